package rejoin

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
)

// ErrNoRewind says that pg_rewind is impossible, mostly because this host's own WAL back to the last common checkpoint
// is gone. The data are unchanged.
var ErrNoRewind = errors.New("pg_rewind cannot rewind this data directory; nothing was changed; use a full copy " +
	"(--method copy)")

// rewind rewinds the data to where they parted from the primary's. While the journal of pg_rewind is open, nobody may
// start the server. The agent's own lock ensures that, even if this process dies.
func (r *Rejoin) rewind(c *Case) []operation.Step {
	c.flags()
	steps := []operation.Step{
		c.makeLock(),
		{ID: "recover", Action: operation.Program{
			Text: "run crash recovery of " + c.Place.Data + " if it was not shut down", Run: c.Place.Recover,
		}},
		{ID: "checkpoint", Action: operation.Program{
			Text: "run a checkpoint on the primary " + c.Primary, Run: c.checkpoint,
		}},
		{ID: "dry-rewind", Action: operation.Program{Text: "pg_rewind from " + c.Primary + ", as a dry run", Run: func(ctx context.Context) error {
			return r.tryRewind(ctx, c)
		}}},
		// Check again: the checkpoint may have removed some.
		{ID: "rewind-wal", Action: operation.Look{Text: "see that there is the WAL that the rewound data need", See: func(ctx context.Context) error {
			why, err := r.noRewindWAL(ctx, c)
			if err == nil && why != "" {
				err = fmt.Errorf("%w: %s", ErrNoRewind, why)
			}
			return err
		}}},
	}
	return append(append(steps, r.keepWAL(c)...), []operation.Step{
		{ID: stepRewind, Action: operation.Program{Text: "pg_rewind from " + c.Primary, Run: func(ctx context.Context) error {
			own, err := c.Place.Own(ctx, postgres.Files(c.Conninfo)...)
			if err != nil {
				return err
			}
			t, err := r.pgRewindTool(ctx, c)
			if err != nil {
				return err
			}
			if err := c.beginRewind(ctx, own); err != nil {
				return err
			}
			longer, end := outlast(ctx, r.Outlasts)
			defer end()
			if err := r.run(longer, t); err != nil {
				return err
			}
			return c.Place.Through()
		}}},
		c.putBack("files"),
	}...)
}

// beginRewind notes that pg_rewind is about to change the data. The plan still says so when the data are whole again.
func (c *Case) beginRewind(ctx context.Context, own []string) error {
	if err := c.Place.Begin(ctx, own); err != nil {
		return err
	}
	*c.changed = true
	return nil
}

// outlast is a context that ends a while after another one. Until then there is no way back but a copy.
func outlast(ctx context.Context, while time.Duration) (longer context.Context, end func()) {
	if while == 0 {
		return ctx, func() {}
	}
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(while):
			cancel(context.Cause(ctx))
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		cancel(context.Canceled)
	}
}

// checkpoint has the primary's control file show its timeline, by which pg_rewind goes.
func (c *Case) checkpoint(ctx context.Context) error {
	source, err := postgres.OpenSourceDatabase(ctx, c.Conninfo)
	if err != nil {
		return err
	}
	defer source.Close()
	return source.Checkpoint(ctx)
}

// tryRewind has pg_rewind say whether it can, before anything is changed. It fetches all that pg_rewind will: a file that
// the primary cannot read ends it here, and not half way.
func (r *Rejoin) tryRewind(ctx context.Context, c *Case) error {
	if err := c.sameSpaces(ctx); err != nil {
		return err
	}
	t, err := r.pgRewindTool(ctx, c, "--dry-run")
	if err != nil {
		return err
	}
	nothing := "" // what it says if it rewinds nothing
	t.Progress = func(line string) {
		if notRequired.MatchString(line) {
			nothing = line
		}
	}
	err = r.run(ctx, t)
	switch {
	case err != nil && noRewind.MatchString(err.Error()):
		return fmt.Errorf("%w: %w", ErrNoRewind, err)
	case err == nil && nothing != "":
		return fmt.Errorf("%w: though the data are not a part of the primary's, it says %q", ErrNoRewind, nothing)
	}
	return err
}

// noRewind is what pg_rewind says where WAL of this host back to the last common checkpoint is not to be had. Anything
// else may pass.
var noRewind = regexp.MustCompile(`could not (find previous|read) WAL record|could not find common ancestor`)

// notRequired is what pg_rewind says if it sees nothing to rewind: the timelines have the same number, or nothing in
// the data is newer than where they parted, though the WAL goes on from there.
var notRequired = regexp.MustCompile(`no rewind required`)

// noRewindWAL is why there is not the WAL with which rewound data go on; "" if there is. Up to where they parted from
// the primary's pg_rewind keeps this host's own; the rest comes from the primary, or from the archive what the primary
// no longer has.
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

// makeLock keeps the agent from starting the server. It is undone while nothing is changed.
func (c *Case) makeLock() operation.Step {
	p := c.Place
	return operation.Step{
		ID:     "lock",
		Action: operation.Change{Text: "make sure that the agent's lock is there: " + p.Lock(), Make: p.MakeLock},
		Back: []operation.Action{operation.Change{Text: "put the agent's lock back as it was", Make: func() error {
			if c.locked || p.Rewinding() != datadir.NotBegun {
				return nil
			}
			return p.RemoveOwnLock()
		}}},
	}
}

func (c *Case) putBack(id string) operation.Step {
	return operation.Step{ID: id, Action: operation.Program{
		Text: "put back this host's own files as they were, with primary_slot_name " + c.Slot,
		Run:  func(ctx context.Context) error { return c.Place.PutBack(ctx, c.Slot) },
	}}
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
	config, err := c.Place.Configured(ctx, "config_file") // pg_rewind passes it to the server's program
	if err != nil {
		return datadir.Tool{}, err
	}
	t := c.Place.Program("pg_rewind", append(options, "--progress",
		"--target-pgdata="+c.Place.Data, "--config-file="+config, "--source-server="+access.Conninfo+" dbname=postgres")...)
	t.Access = access
	t.OnlyFrom = "pg_rewind:" // what restore_command says may hold a secret of its own
	return t, nil
}
