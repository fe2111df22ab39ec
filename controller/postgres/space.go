package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

// spaceTimeout is for a file system, which answers from memory.
const spaceTimeout = time.Second

// observeWAL reads where the WAL is, how much there is, and what limits it. An error is one line; the rest of what was
// observed is good without it.
func (s *Server) observeWAL(ctx context.Context, seen *observation) error {
	var document, archive []byte
	space, budget := &model.WALSpace{}, &model.Budget{}
	err := s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(io, sqlWAL, kept).Scan(&seen.walFolder, &space.WAL, &document, &archive)
	})
	if err != nil {
		return s.unanswered(err, "read the settings of WAL")
	}
	if err := json.Unmarshal(document, budget); err != nil {
		return fmt.Errorf("read what limits WAL: %w", err)
	}
	if archive != nil {
		seen.instance.Archive = &model.Archive{}
		if err := json.Unmarshal(archive, seen.instance.Archive); err != nil {
			return fmt.Errorf("read how archiving goes: %w", err)
		}
	}
	seen.instance.WALSpace, seen.instance.Budget = space, budget
	return nil
}

// observeSpace reads the file system that holds pg_wal. One that hangs, as that of a dead file server does, is asked once:
// no other look waits for it.
func (s *Server) observeSpace(ctx context.Context, seen *observation) {
	space := seen.instance.WALSpace
	if space == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	folder := filepath.Join(seen.walFolder, "pg_wal")
	fs, err := call(ctx, s.space, func() (fs syscall.Statfs_t, err error) {
		err = syscall.Statfs(folder, &fs) // through symbolic links
		return fs, err
	})
	if err != nil {
		seen.instance.WALSpace, seen.instance.Budget = nil, nil
		seen.instance.WALProblem = fmt.Sprintf("read the file system of %s: %s", folder, err)
		return
	}
	space.Size, space.Free = fs.Blocks*uint64(fs.Frsize), fs.Bavail*uint64(fs.Frsize)
}
