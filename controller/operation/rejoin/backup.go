package rejoin

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// restored reports whether the data were restored from a backup, and have not recovered yet.
func (c *Case) restored() bool { return c.Return.Local.Backup != nil }

// lookAtBackup finds out what the data folder does not tell about the backup: the history of its timeline, where the
// backup ended, and whether its WAL is the primary's.
func (c *Case) lookAtBackup(ctx context.Context) (err error) {
	local, b := &c.Return.Local, c.Return.Local.Backup
	if b == nil || cmp.Or(local.Gone, local.Unreadable, local.Unconfigured) != "" {
		return nil
	}
	if len(local.Timelines) == 1 {
		i := slices.IndexFunc(c.Return.Timelines, func(t model.Timeline) bool { return t.ID == b.Timeline })
		if i >= 0 && local.Timelines[0].ID == b.Timeline {
			local.Timelines = slices.Clone(c.Return.Timelines[:i+1])
		}
	}
	if b.End == 0 && c.Return.Parted() >= b.Start && len(local.Timelines) < len(c.Return.Timelines) {
		if b.End, c.Return.NoBackupEnd, err = c.backupEnd(ctx); err != nil {
			return err
		}
		local.Changed = max(local.Changed, b.End)
	}
	if c.Return.Fits() && local.End <= b.Checkpoint {
		c.Return.Differs, err = c.beginsElsewhere(ctx)
	}
	return err
}

// backupEnd returns where the backup ended, by its history file, or why that is not known.
func (c *Case) backupEnd(ctx context.Context) (end model.LSN, why string, err error) {
	name := datadir.HistoryFile(c.Return.Local.Backup, c.Return.Local.Segment)
	if end = endIn(filepath.Join(c.Place.Data, "pg_wal", name)); end != 0 {
		return end, "", nil
	}
	a, why, err := c.openArchive(ctx)
	if err == nil && why == "" {
		defer func() { _ = os.RemoveAll(a.folder) }()
		why = name + " of the WAL archive does not say where it ended"
		if missing := a.restore(ctx, name, nil); missing != nil {
			why = missing.Error()
		}
		end = endIn(a.path())
	}
	if end != 0 || err != nil {
		return end, "", err
	}
	if ctx.Err() != nil {
		return 0, "", context.Cause(ctx)
	}
	left := c.Return.Timelines[len(c.Return.Local.Timelines)].Begin
	return 0, fmt.Sprintf("the primary left timeline %d at %s, and it is not known whether the backup had ended by then: "+
		"there is no backup_manifest of it here, and %s", c.Return.Local.Backup.Timeline, left, why), nil
}

func endIn(path string) model.LSN {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return datadir.EndOfBackup(text)
}

// checkpointLength is the number of bytes read of a checkpoint's record: what is compared, and the header of a page in
// between.
const checkpointLength = 128

// beginsElsewhere reports whether the primary's WAL lacks the checkpoint with which the backup begins. If the primary
// no longer has that WAL, the archive is compared instead (archive.begins).
func (c *Case) beginsElsewhere(ctx context.Context) (bool, error) {
	source, err := postgres.OpenSource(ctx, c.Conninfo)
	if err != nil {
		return false, err
	}
	defer source.Close()
	b := c.Return.Local.Backup
	wal, err := source.WAL(ctx, b.Checkpoint, min(b.Checkpoint+checkpointLength, c.Return.Primary.Flushed), b.Timeline)
	if errors.Is(err, postgres.ErrNoWAL) {
		return false, nil
	}
	return err == nil && !begins(wal, b, c.Return.Local.Segment), err
}

// begins returns an error if the WAL segment that was restored last lacks the checkpoint with which the backup begins.
func (a archive) begins(b *reconcile.Backup, segment uint64) error {
	f, err := os.Open(a.path())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	wal, err := io.ReadAll(io.NewSectionReader(f, int64(uint64(b.Checkpoint)%segment), checkpointLength))
	if err == nil && len(wal) == checkpointLength && !begins(wal, b, segment) {
		err = fmt.Errorf("the archive's WAL does not have the checkpoint at %s with which the backup begins", b.Checkpoint)
	}
	return err
}

// begins reports whether WAL that is read from the position of a backup's checkpoint begins with the record of that
// checkpoint. A record begins with a header of 24 bytes: byte 17 names the resource manager, 0 for checkpoints, and
// byte 16 the kind of record. The data follow two bytes later, and begin with the redo position (xlogrecord.h,
// pg_control.h).
func begins(wal []byte, b *reconcile.Backup, segment uint64) bool {
	const info, manager, redo, online = 16, 17, 26, 0x10
	record := withoutHeaders(wal, b.Checkpoint, segment)
	if len(record) < redo+8 {
		return false
	}
	return record[manager] == 0 && record[info]&^online&0xF0 == 0 &&
		model.LSN(binary.NativeEndian.Uint64(record[redo:])) == b.Start
}

// withoutHeaders removes the page headers from WAL that begins at a position. The header of a segment's first page is
// longer (xlog_internal.h).
func withoutHeaders(wal []byte, at model.LSN, segment uint64) (record []byte) {
	const page, header, firstHeader = 8192, 24, 40
	for at := uint64(at); len(wal) > 0; {
		skip := 0
		switch {
		case at%segment == 0:
			skip = firstHeader
		case at%page == 0:
			skip = header
		}
		skip = min(skip, len(wal))
		end := min(int(page-at%page), len(wal))
		record = append(record, wal[skip:end]...)
		wal, at = wal[end:], at+uint64(end)
	}
	return record
}

// Follow is the step that removes what a restore has left and what keeps PostgreSQL from following the primary.
func (c *Case) Follow(way Method) []operation.Step {
	restored := c.restored() || way == MethodRestored
	if !restored && len(c.astray) == 0 {
		return nil
	}
	text := "make standby.signal"
	if len(c.astray) > 0 {
		text += ", and take out what the restore has left: " + strings.Join(c.astray, ", ")
	}
	return []operation.Step{{ID: "follow", Action: operation.Program{Text: text, Run: func(ctx context.Context) error {
		return c.Place.Follow(ctx, restored)
	}}}}
}
