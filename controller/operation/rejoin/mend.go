package rejoin

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
)

// ErrNoRewind says that a rewind cannot be, mostly because this host's own WAL back to the last common checkpoint is gone. The
// data are as they were.
var ErrNoRewind = errors.New("pg_rewind cannot take these data back, and has changed nothing; a copy is left")

// rewind takes the data back to where they parted from the primary's. From the journal's beginning until it is closed, nobody
// may start the server: the agent's own lock sees to that, whatever becomes of this process.
func (r *Rejoin) rewind(c *Case) []operation.Step {
	return []operation.Step{
		c.makeLock(),
		{Text: "crash recovery of " + c.Place.Data + ", if it was not shut down", Do: c.Place.Recover},
		{Text: "a checkpoint on the primary " + c.Primary, Do: func(ctx context.Context) error {
			source, err := postgres.OpenSourceDatabase(ctx, c.Conninfo)
			if err != nil {
				return err
			}
			defer source.Close()
			return source.Checkpoint(ctx)
		}},
		{Text: "pg_rewind from " + c.Primary + ", as a dry run", Do: func(ctx context.Context) error {
			t, err := r.pgRewindTool(ctx, c, "--dry-run")
			if err != nil {
				return err
			}
			nothing := "" // what it says where it takes nothing back
			t.Progress = func(line string) {
				if notRequired.MatchString(line) {
					nothing = line
				}
			}
			_, err = t.Run(ctx)
			switch {
			case err != nil && noRewind.MatchString(err.Error()):
				return fmt.Errorf("%w: %w", ErrNoRewind, err)
			case err == nil && nothing != "":
				return fmt.Errorf("%w: though the data are not a part of the primary's, it says %q", ErrNoRewind, nothing)
			}
			return err
		}},
		// Once more: the checkpoint may have let go of it.
		{Text: "there is the WAL with which the rewound data go on", Do: func(ctx context.Context) error {
			why, err := r.noRewindWAL(ctx, c)
			if err == nil && why != "" {
				err = fmt.Errorf("%w: %s", ErrNoRewind, why)
			}
			return err
		}},
		{Text: "pg_rewind from " + c.Primary, Do: func(ctx context.Context) error {
			if err := c.Place.Begin(); err != nil {
				return err
			}
			t, err := r.pgRewindTool(ctx, c)
			if err != nil {
				return err
			}
			t.Progress = r.progress()
			if _, err := t.Run(ctx); err != nil {
				return err
			}
			return c.Place.Through()
		}},
		c.putBack(),
	}
}

// noRewind is what pg_rewind says where WAL of this host back to the last common checkpoint is not to be had. Anything else
// may pass.
var noRewind = regexp.MustCompile(`could not (find previous|read) WAL record|could not find common ancestor`)

// notRequired is what pg_rewind says where it sees nothing to take back: the timelines have the same number, or nothing in the
// data is newer than where they parted, though the WAL goes on from there.
var notRequired = regexp.MustCompile(`no rewind required`)

// noRewindWAL is why there is not the WAL with which rewound data go on; "" if there is. Up to where they parted from the
// primary's pg_rewind keeps this host's own; the rest comes from the primary, or from the archive what the primary no longer has.
func (r *Rejoin) noRewindWAL(ctx context.Context, c *Case) (why string, err error) {
	from := c.Return.Parted()
	first := from.Segment(c.Return.Local.Segment)
	sendable, err := c.sendable(ctx, from)
	if err != nil || sendable == first {
		return "", err
	}
	if why, err = r.archiveLacks(ctx, c, first, sendable); why != "" {
		why = "the primary no longer has the WAL from there on, with which the rewound data would go on: " + why
	}
	return why, err
}

// makeLock keeps the agent from starting the server. It is undone as long as nothing was changed.
func (c *Case) makeLock() operation.Step {
	p, was := c.Place, false
	return operation.Step{
		Text: "make sure that the agent's lock is there: " + p.Lock(),
		Do: func(context.Context) (err error) {
			was, err = p.MakeLock()
			return err
		},
		Undo: func(context.Context) error {
			if was || p.Rewinding() != datadir.NotBegun {
				return nil
			}
			return p.RemoveLock()
		},
		UndoText: "the lock as it was",
	}
}

func (c *Case) putBack() operation.Step {
	return operation.Step{
		Text: fmt.Sprintf("put back %s as they were here, with primary_slot_name %s", strings.Join(datadir.NodeLocal, ", "), c.Slot),
		Do:   func(context.Context) error { return c.Place.PutBack(c.Slot) },
	}
}

// pgRewindTool is pg_rewind, which fetches WAL that is no longer here from the archive, if there is a restore_command.
func (r *Rejoin) pgRewindTool(ctx context.Context, c *Case, options ...string) (datadir.Tool, error) {
	access, err := postgres.AccessFor(c.Conninfo)
	if err != nil {
		return datadir.Tool{}, err
	}
	restore, err := c.Place.Configured(ctx, "restore_command")
	if err != nil {
		return datadir.Tool{}, err
	}
	if restore != "" {
		options = append(options, "--restore-target-wal")
	}
	t := c.Place.Program("pg_rewind", append(options, "--progress", "--target-pgdata="+c.Place.Data,
		"--source-server="+access.Conninfo+" dbname=postgres")...)
	t.Access = access
	t.OnlyFrom = "pg_rewind:" // what restore_command says may hold a secret of its own
	return t, nil
}
