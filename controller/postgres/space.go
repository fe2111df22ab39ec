package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

type spaceAnswer struct {
	size, free uint64
	err        error
}

// observeWAL reads the file system that holds pg_wal, and what limits the WAL there. An error is one line; the rest of what
// was observed is good without it.
func (s *Server) observeWAL(ctx context.Context, i *model.Instance) error {
	var folder string
	var document, archive []byte
	space, budget := &model.WALSpace{}, &model.Budget{}
	err := s.query(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sqlWAL).Scan(&folder, &space.WAL, &document, &archive)
	})
	if err != nil {
		return s.unanswered(err, "read the settings of WAL")
	}
	if err := json.Unmarshal(document, budget); err != nil {
		return fmt.Errorf("read what limits WAL: %w", err)
	}
	i.Budget = budget
	if archive != nil {
		i.Archive = &model.Archive{}
		if err := json.Unmarshal(archive, i.Archive); err != nil {
			return fmt.Errorf("read how archiving goes: %w", err)
		}
	}
	answer := s.fileSystem(ctx, filepath.Join(folder, "pg_wal"))
	if answer.err != nil {
		return fmt.Errorf("read the file system of pg_wal: %w", answer.err)
	}
	space.Size, space.Free = answer.size, answer.free
	i.WALSpace = space
	return nil
}

// fileSystem asks a folder's file system, through symbolic links, for its size and for what is free to users. One that hangs,
// as that of a dead file server does, is asked once and awaited no longer than ctx.
func (s *Server) fileSystem(ctx context.Context, folder string) spaceAnswer {
	if s.space == nil {
		asked := make(chan spaceAnswer, 1)
		s.space = asked
		go func() {
			var fs syscall.Statfs_t
			if err := syscall.Statfs(folder, &fs); err != nil {
				asked <- spaceAnswer{err: fmt.Errorf("%s: %w", folder, err)}
				return
			}
			asked <- spaceAnswer{size: fs.Blocks * uint64(fs.Frsize), free: fs.Bavail * uint64(fs.Frsize)}
		}()
	}
	select {
	case answer := <-s.space:
		s.space = nil
		return answer
	case <-ctx.Done():
		return spaceAnswer{err: fmt.Errorf("%s does not answer", folder)}
	}
}
