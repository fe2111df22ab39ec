package operation

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pgrex/pgrex/controller/postgres"
)

// ErrNoRewind says that a rewind cannot be, mostly because this host's own WAL back to the last common checkpoint is gone. The
// data are as they were.
var ErrNoRewind = errors.New("pg_rewind cannot take these data back, and has changed nothing; a copy is left")

// rewind takes the data back to where they parted from the primary's. From the journal's beginning until it is closed, nobody
// may start the server: the agent's own lock sees to that, whatever becomes of this process.
func (r *Rejoin) rewind(c *Case) []Step {
	return []Step{
		c.makeLock(),
		{Text: "crash recovery of " + c.place.data + ", if it was not shut down", Do: c.place.recover},
		{Text: "a checkpoint on the primary " + c.primary, Do: func(ctx context.Context) error {
			source, err := postgres.OpenSourceDatabase(ctx, c.conninfo)
			if err != nil {
				return err
			}
			defer source.Close()
			return source.Checkpoint(ctx)
		}},
		{Text: "pg_rewind from " + c.primary + ", as a dry run", Do: func(ctx context.Context) error {
			t, err := r.pgRewindTool(ctx, c, "--dry-run")
			if err != nil {
				return err
			}
			nothing := "" // what it says where it takes nothing back
			t.progress = func(line string) {
				if notRequired.MatchString(line) {
					nothing = line
				}
			}
			_, err = t.run(ctx)
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
		{Text: "pg_rewind from " + c.primary, Do: func(ctx context.Context) error {
			if err := c.place.begin(); err != nil {
				return err
			}
			t, err := r.pgRewindTool(ctx, c)
			if err != nil {
				return err
			}
			t.progress = r.progress()
			if _, err := t.run(ctx); err != nil {
				return err
			}
			return c.place.through()
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
func (c *Case) makeLock() Step {
	p, was := c.place, false
	return Step{
		Text: "make sure that the agent's lock is there: " + p.lock(),
		Do: func(context.Context) (err error) {
			was, err = p.makeLock()
			return err
		},
		Undo: func(context.Context) error {
			if was || p.rewinding() != notBegun {
				return nil
			}
			return p.removeLock()
		},
		UndoText: "the lock as it was",
	}
}

func (c *Case) putBack() Step {
	return Step{
		Text: fmt.Sprintf("put back %s as they were here, with primary_slot_name %s", strings.Join(nodeLocal, ", "), c.slot),
		Do:   func(context.Context) error { return c.place.putBack(c.slot) },
	}
}

// pgRewindTool is pg_rewind, which fetches WAL that is no longer here from the archive, if there is a restore_command.
func (r *Rejoin) pgRewindTool(ctx context.Context, c *Case, options ...string) (tool, error) {
	access, err := postgres.AccessFor(c.conninfo)
	if err != nil {
		return tool{}, err
	}
	restore, err := c.place.configured(ctx, "restore_command")
	if err != nil {
		return tool{}, err
	}
	if restore != "" {
		options = append(options, "--restore-target-wal")
	}
	t := c.place.program("pg_rewind", append(options, "--progress", "--target-pgdata="+c.place.data,
		"--source-server="+access.Conninfo+" dbname=postgres")...)
	t.access = access
	t.onlyFrom = "pg_rewind:" // what restore_command says may hold a secret of its own
	return t, nil
}
