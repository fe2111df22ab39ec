package operation

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
)

// copy makes a copy of the primary beside the old data, through this host's own slot, and then swaps the two at once.
// Until then nothing of the old data is touched; after that the copy is whole. Where pg_wal leads elsewhere, the copy's WAL
// is beside the old one there, and the swapped folders each lead to their own.
func (r *Rejoin) copy(c *Case) []Step {
	p := c.place
	steps := []Step{{Text: "remove what is left of an earlier copy: " + p.beside(), Do: func(context.Context) error {
		if err := p.clear(); err != nil {
			return err
		}
		return p.trySwap()
	}}}
	text := "pg_basebackup from " + c.primary + " into " + p.beside()
	if wal, err := p.walFolder(); err == nil && wal != "" {
		text += ", its WAL into " + otherWAL(wal)
	}
	return append(steps,
		Step{Text: text, Do: func(ctx context.Context) error {
			err := r.baseBackup(ctx, c)
			if err != nil { // it may have filled the disk
				err = errors.Join(err, p.clear())
			}
			return err
		}},
		Step{Text: "swap " + p.beside() + " and " + p.data, Do: func(context.Context) error {
			if p.runs() {
				return errors.Join(errors.New("PostgreSQL was started here meanwhile, on the old data"), p.clear())
			}
			return p.swap()
		}},
	)
}

// reserve makes this host's slot anew on the primary, where it holds no WAL.
func (c *Case) reserve() []Step {
	if slot, _ := c.Return.Primary.Slot(c.slot); slot.RestartLSN.IsValid() {
		return nil
	}
	return []Step{{Text: "make the slot " + c.slot + " anew on the primary " + c.primary, Do: func(ctx context.Context) error {
		return whileBusy(ctx, func() error {
			source, err := postgres.OpenSource(ctx, c.conninfo)
			if err != nil {
				return err
			}
			defer source.Close()
			return source.MakeSlot(ctx, c.slot)
		})
	}}}
}

func (r *Rejoin) baseBackup(ctx context.Context, c *Case) error {
	access, err := postgres.AccessFor(c.conninfo)
	if err != nil {
		return err
	}
	args := []string{
		"--dbname=" + access.Conninfo, "--pgdata=" + c.place.beside(), "--wal-method=stream", "--slot=" + c.slot, "--checkpoint=fast",
		"--progress", "--no-password",
	}
	if r.MaxRate > 0 {
		args = append(args, fmt.Sprintf("--max-rate=%dk", r.MaxRate>>10))
	}
	wal, err := c.place.walFolder()
	if err != nil {
		return err
	}
	if wal != "" {
		args = append(args, "--waldir="+otherWAL(wal))
	}
	t := c.place.program("pg_basebackup", args...)
	t.access, t.progress = access, r.progress()
	err = whileBusy(ctx, func() error {
		_, err := t.run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	own := []string{c.place.data}
	if c.place.rewinding() != notBegun {
		own = append(own, c.place.marker()) // those in the data may be the primary's by now
	}
	for _, from := range own {
		if err := copyFiles(from, c.place.beside()); err != nil {
			return err
		}
	}
	beside := c.place
	beside.data = c.place.beside()
	return beside.setSlotName(c.slot)
}

var slotInUse = regexp.MustCompile(`replication slot "[a-z0-9_]+" is active for PID`)

// whileBusy does something, again as long as the slot is in use: by what an attempt that was killed has left, until the
// primary notices (wal_sender_timeout).
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
