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

const (
	spaceTimeout = time.Second             // for a file system, which answers from memory
	listTimeout  = 2500 * time.Millisecond // for a listing of pg_wal; longer than sqlListTimeout
	quickListing = 100 * time.Millisecond
	// A listing is as new as this multiple of the time that it took: with a lot of WAL it is one twentieth of a core.
	listingLasts = 20
)

// observeWAL reads where the WAL is, and what limits it. An error is one line; the rest of what was observed is good
// without
// it.
func (s *Server) observeWAL(ctx context.Context, seen *observation) error {
	var document []byte
	budget := &model.Budget{}
	err := s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(io, sqlWAL, kept).Scan(&seen.walFolder, &document)
	})
	if err != nil {
		return s.unanswered(err, "read the settings of WAL")
	}
	if err := json.Unmarshal(document, budget); err != nil {
		return fmt.Errorf("read what limits WAL: %w", err)
	}
	seen.instance.Budget = budget
	return nil
}

// listing is how much WAL there is, and the file system that holds it, both of one moment: together they say how much
// there is room for.
type listing struct {
	at         time.Time
	took       time.Duration
	system     string
	inRecovery bool

	space   model.WALSpace
	archive *model.Archive
	problem string // why it is not known, "" if it is
}

// observeSpace adds the last listing, a new one where that is due. Neither a listing nor a file system that takes its
// time
// keeps the rest from being seen.
func (s *Server) observeSpace(ctx context.Context, seen *observation) {
	i := &seen.instance
	if i.Budget == nil {
		return
	}
	l := &s.listing
	if l.system != i.SystemID || l.inRecovery != i.InRecovery || time.Since(l.at) >= listingLasts*l.took {
		*l = s.list(ctx, seen.walFolder, l.took == 0 || l.took > quickListing)
		l.system, l.inRecovery = i.SystemID, i.InRecovery
	}
	if l.problem != "" {
		i.WALSpace, i.Budget, i.WALProblem = nil, nil, l.problem
		return
	}
	space := l.space
	i.WALSpace, i.Archive = &space, l.archive
}

// list makes a listing. One that may take long gets a deadline at the server.
func (s *Server) list(ctx context.Context, folder string, limited bool) (l listing) {
	l.at = time.Now()
	defer func() { l.took = time.Since(l.at) }()
	wal := filepath.Join(folder, "pg_wal")
	listed, err := s.listWAL(ctx, limited)
	if err != nil {
		l.problem = s.unanswered(err, "list "+wal).Error()
		return l
	}
	l.space.WAL, l.archive = listed.space.WAL, listed.archive
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	fs, err := call(ctx, s.space, func() (fs syscall.Statfs_t, err error) {
		err = syscall.Statfs(wal, &fs) // through symbolic links
		return fs, err
	})
	if err != nil {
		l.problem = fmt.Sprintf("read the file system of %s: %s", wal, err)
		return l
	}
	l.space.Size, l.space.Free = fs.Blocks*uint64(fs.Frsize), fs.Bavail*uint64(fs.Frsize)
	return l
}

func (s *Server) listWAL(ctx context.Context, limited bool) (listing, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return call(ctx, s.local, func() (l listing, err error) {
		var archive []byte
		err = s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
			if limited {
				if _, err := conn.Exec(io, sqlListTimeout); err != nil {
					return err
				}
			}
			err := conn.QueryRow(io, sqlListWAL, kept).Scan(&l.space.WAL, &archive)
			if limited && !conn.IsClosed() {
				if _, failed := conn.Exec(io, sqlUsualTimeout); failed != nil {
					return failed
				}
			}
			return err
		})
		if err == nil && archive != nil {
			l.archive = &model.Archive{}
			err = json.Unmarshal(archive, l.archive)
		}
		return l, err
	})
}
