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

// copy makes a copy of the primary beside the old data, through this host's own slot, and then swaps the two at once.
// Before the swap, nothing touches the old data; after it, the copy is whole. If pg_wal is a link to another file
// system, the copy's WAL is there, beside the old WAL. The same holds for tablespaces. Each of the swapped folders
// links to its own.
func (r *Rejoin) copy(c *Case) []operation.Step {
	p := c.Place
	c.flags()
	text := "pg_basebackup from " + c.Primary + " into " + p.Beside()
	if wal, err := p.WALFolder(); err == nil && wal != "" {
		text += ", its WAL into " + datadir.Other(wal)
	}
	for _, s := range c.fresh {
		text += fmt.Sprintf(", the tablespace %s into %s", s.Name, s.Folder)
	}
	swap := operation.Step{ID: stepSwap, Action: operation.Change{Text: p.SwapText(), Make: func() error {
		if p.Runs() {
			return errors.Join(errors.New("PostgreSQL was started here meanwhile, on the old data"), r.clear(context.Background(), c))
		}
		*c.changed = true
		return p.Swap()
	}}, Back: []operation.Action{operation.Change{Text: "leave what is beside the data: it may be the old data", Make: func() error {
		*c.swapped, *c.changed = true, true
		if p.HalfSwapped() { // neither is whole
			return p.Swap()
		}
		return nil
	}}}}
	if p.HalfSwapped() {
		return []operation.Step{swap}
	}
	return []operation.Step{
		{ID: "clean", Action: operation.Program{Text: "remove what is left of an earlier copy: " + p.Beside(), Run: func(ctx context.Context) error {
			if err := r.clear(ctx, c); err != nil {
				return err
			}
			*c.swapped = false
			return p.TrySwap()
		}}},
		{ID: "copy", Action: operation.Program{Text: text, Run: func(ctx context.Context) error {
			return r.baseBackup(ctx, c)
		}}, Back: []operation.Action{operation.Change{Text: "remove the copy, unless it may be in place already", Make: func() error {
			if *c.swapped {
				return nil
			}
			return r.clear(context.Background(), c) // however long that takes: the room is needed
		}}}},
		swap,
	}
}

// reserve makes the slot of this host on the primary again if it holds no WAL.
func (c *Case) reserve() []operation.Step {
	if slot, _ := c.Return.Primary.Slot(c.Slot); slot.RestartLSN.IsValid() {
		return nil
	}
	return []operation.Step{{ID: "slot", Action: operation.Program{
		Text: "make the slot " + c.Slot + " again on the primary " + c.Primary, Run: func(ctx context.Context) error {
			return whileBusy(ctx, func() error {
				source, err := postgres.OpenSource(ctx, c.Conninfo)
				if err != nil {
					return err
				}
				defer source.Close()
				return source.MakeSlot(ctx, c.Slot)
			})
		},
	}}}
}

func (r *Rejoin) baseBackup(ctx context.Context, c *Case) error {
	if err := c.sameSpaces(ctx); err != nil {
		return err
	}
	access, err := postgres.AccessFor(c.Conninfo)
	if err != nil {
		return err
	}
	args := []string{
		"--dbname=" + access.Conninfo, "--pgdata=" + c.Place.Beside(), "--wal-method=stream", "--slot=" + c.Slot, "--checkpoint=fast",
		"--progress", "--no-password",
	}
	if r.MaxRate > 0 {
		args = append(args, fmt.Sprintf("--max-rate=%dk", r.MaxRate>>10))
	}
	wal, err := c.Place.WALFolder()
	if err != nil {
		return err
	}
	if wal != "" {
		args = append(args, "--waldir="+datadir.Other(wal))
	}
	for _, s := range c.fresh {
		args = append(args, s.Mapping())
	}
	own, err := c.Place.Own(ctx, postgres.Files(c.Conninfo)...)
	if err == nil {
		err = c.Place.MakeBeside(c.fresh)
	}
	if err != nil {
		return err
	}
	t := c.Place.Program("pg_basebackup", args...)
	t.Access = access
	if err := whileBusy(ctx, func() error { return r.run(ctx, t) }); err != nil {
		return err
	}
	if err := c.Place.CopyOwn(ctx, own); err != nil {
		return err
	}
	beside := c.Place
	beside.Data = c.Place.Beside()
	return beside.SetSlotName(c.Slot)
}

var slotInUse = regexp.MustCompile(`replication slot "[a-z0-9_]+" is active for PID`)

// whileBusy repeats something while the slot is in use. A killed attempt may still use it, until the primary notices
// (wal_sender_timeout).
func whileBusy(ctx context.Context, do func() error) error {
	const patience, between = 90 * time.Second, time.Second
	for end := time.Now().Add(patience); ; {
		err := do()
		if err == nil || !slotInUse.MatchString(err.Error()) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(between):
		}
	}
}
