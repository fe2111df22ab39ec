package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// ErrNoRewind says that pg_rewind has found that it cannot do it, mostly because this host's own WAL back to the last common
// checkpoint is gone. The data are as they were.
var ErrNoRewind = errors.New("pg_rewind cannot take these data back, and has changed nothing; a copy is left")

// rewind takes the data back to where they parted from the primary's. From the marker on, until it is gone, nobody may
// start the server: the agent's own lock sees to that, whatever becomes of this process.
func (r *Rejoin) rewind(c *Case) []Step {
	return []Step{
		{Text: "make sure that the agent's lock is there: " + c.place.lock(), Do: func(context.Context) error {
			return writeWhole(c.place.lock(), "")
		}},
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
			t, err := r.pgRewindTool(c, "--dry-run")
			if err == nil {
				_, err = t.run(ctx)
			}
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w: %w", ErrNoRewind, err)
			}
			return err
		}},
		{Text: "pg_rewind from " + c.primary, Do: func(ctx context.Context) error { return r.pgRewind(ctx, c) }},
	}
}

// recover lets a database that was not shut down replay its own WAL, following nobody: pg_rewind wants it clean, and a
// server in single-user mode refuses to be a standby, which the agent's last start has made it.
func (p place) recover(ctx context.Context) error {
	c, err := p.control(ctx)
	if err != nil || c.clean() {
		return err
	}
	for _, signal := range []string{"standby.signal", "recovery.signal"} {
		if err := removeFile(filepath.Join(p.data, signal)); err != nil {
			return err
		}
	}
	// The checkpoint at the end must not recycle what pg_rewind reads next.
	_, err = p.program("postgres", "--single", "-D", p.data, "-c", "synchronous_standby_names=", "-c", "wal_keep_size=2147483647",
		"template1").run(ctx)
	return err
}

func (r *Rejoin) pgRewindTool(c *Case, options ...string) (tool, error) {
	arguments, password, err := postgres.Conninfo(c.conninfo)
	t := c.place.program("pg_rewind", append(options, "--progress", "--target-pgdata="+c.place.data,
		"--source-server="+arguments+" dbname=postgres")...)
	t.password, t.progress = password, r.progress()
	return t, err
}

func (r *Rejoin) pgRewind(ctx context.Context, c *Case) error {
	if err := os.Mkdir(c.place.marker(), 0o700); err != nil {
		return err
	}
	if err := copyFiles(c.place.data, c.place.marker()); err != nil {
		return err
	}
	t, err := r.pgRewindTool(c)
	if err != nil {
		return err
	}
	if _, err := t.run(ctx); err != nil {
		return err
	}
	if err := copyFiles(c.place.marker(), c.place.data); err != nil {
		return err
	}
	if err := c.place.setSlotName(c.slot); err != nil {
		return err
	}
	return os.RemoveAll(c.place.marker())
}

// copyFiles copies the node's own files, those that are there.
func copyFiles(from, to string) error {
	for _, name := range nodeLocal {
		text, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = writeWhole(filepath.Join(to, name), string(text))
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

// copy makes a copy of the primary beside the old data, through this host's own slot, and then swaps the two at once.
// Until then nothing of the old data is touched; after that the copy is whole.
func (r *Rejoin) copy(c *Case) []Step {
	steps := []Step{{Text: "remove what is left of an earlier copy: " + c.place.beside(), Do: func(context.Context) error {
		return os.RemoveAll(c.place.beside())
	}}}
	if slot, _ := c.Return.Primary.Slot(c.slot); !slot.RestartLSN.IsValid() {
		steps = append(steps, Step{Text: "make the slot " + c.slot + " anew on the primary " + c.primary, Do: func(ctx context.Context) error {
			source, err := postgres.OpenSource(ctx, c.conninfo)
			if err != nil {
				return err
			}
			defer source.Close()
			return source.MakeSlot(ctx, c.slot, slot.Exists)
		}})
	}
	return append(steps,
		Step{Text: "pg_basebackup from " + c.primary + " into " + c.place.beside(), Do: func(ctx context.Context) error {
			err := r.baseBackup(ctx, c)
			if err != nil { // it may have filled the disk
				err = errors.Join(err, os.RemoveAll(c.place.beside()))
			}
			return err
		}},
		Step{Text: "swap " + c.place.beside() + " and " + c.place.data, Do: func(context.Context) error {
			err := unix.Renameat2(unix.AT_FDCWD, c.place.beside(), unix.AT_FDCWD, c.place.data, unix.RENAME_EXCHANGE)
			if err != nil {
				return err
			}
			return errors.Join(syncFolder(filepath.Dir(c.place.data)), os.RemoveAll(c.place.marker()))
		}},
	)
}

func (r *Rejoin) baseBackup(ctx context.Context, c *Case) error {
	arguments, password, err := postgres.Conninfo(c.conninfo)
	if err != nil {
		return err
	}
	args := []string{
		"--dbname=" + arguments, "--pgdata=" + c.place.beside(), "--wal-method=stream", "--slot=" + c.slot, "--checkpoint=fast",
		"--progress", "--no-password",
	}
	if r.MaxRate != "" {
		args = append(args, "--max-rate="+r.MaxRate)
	}
	t := c.place.program("pg_basebackup", args...)
	t.password, t.progress = password, r.progress()
	if err := whileBusy(ctx, t); err != nil {
		return err
	}
	if err := copyFiles(c.place.data, c.place.beside()); err != nil {
		return err
	}
	beside := c.place
	beside.data = c.place.beside()
	return beside.setSlotName(c.slot)
}

// whileBusy runs a tool, again as long as the slot is in use: by what an attempt that was killed has left, until the
// primary notices (wal_sender_timeout).
func whileBusy(ctx context.Context, t tool) error {
	const patience, between = 90 * time.Second, time.Second
	for end := time.Now().Add(patience); ; {
		_, err := t.run(ctx)
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

var slotInUse = regexp.MustCompile(`replication slot "[a-z0-9_]+" is active for PID`)

// progress hands on what a tool says of its progress, a line every other second, with what has passed.
func (r *Rejoin) progress() func(string) {
	const every = 2 * time.Second
	begin := time.Now()
	last := begin
	return func(line string) {
		if now := time.Now(); now.Sub(last) >= every {
			last = now
			r.Report(fmt.Sprintf("   %s: %s", now.Sub(begin).Round(time.Second), line))
		}
	}
}

// Size is what is fetched, for people, with the time it takes at a rate that a network of 1 Gbit/s has.
func Size(bytes uint64) string {
	const rate = 100 << 20
	return fmt.Sprintf("%s, %s at 100 MiB/s", model.FormatBytes(bytes), time.Duration(float64(bytes)/rate*float64(time.Second)).Round(time.Second))
}
