package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// backupLabel is the file that tells PostgreSQL where recovery begins. PostgreSQL renames it once recovery has begun.
const backupLabel = "backup_label"

// labelText has the lines of backup_label, by name.
type labelText map[string]string

// label reads backup_label. It returns nil if there is none.
func (p Place) label() (labelText, error) {
	text, err := readFile(filepath.Join(p.Data, backupLabel))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := labelText{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		l[name] = value
	}
	return l, nil
}

// byRewind reports whether pg_rewind has written the label. Then the data are those of a server, not of a backup.
func (l labelText) byRewind() bool { return l["BACKUP METHOD"] == "pg_rewind" }

// HasBackupLabel reports whether there is a backup_label that pg_rewind has not written. In doubt it returns true.
func (p Place) HasBackupLabel() bool {
	l, err := p.label()
	return err != nil || l != nil && !l.byRewind()
}

var startLocation = regexp.MustCompile(`^([0-9A-F]+/[0-9A-F]+) \(file ([0-9A-F]{8})[0-9A-F]{16}\)$`)

// backup returns what the label says of the backup.
func (l labelText) backup() (*reconcile.Backup, error) {
	if _, is := l["INCREMENTAL FROM LSN"]; is {
		return nil, errors.New("it is an incremental backup: restore the full one that pg_combinebackup makes of it")
	}
	start := startLocation.FindStringSubmatch(l["START WAL LOCATION"])
	if start == nil {
		return nil, errors.New("backup_label is not as PostgreSQL writes it: it does not say where the backup begins")
	}
	timeline, err := strconv.ParseUint(start[2], 16, 32)
	if err != nil {
		return nil, err
	}
	b := &reconcile.Backup{Timeline: uint32(timeline)}
	var checkpointErr error
	b.Start, err = model.ParseLSN(start[1])
	b.Checkpoint, checkpointErr = model.ParseLSN(l["CHECKPOINT LOCATION"])
	if said := l["START TIMELINE"]; err == nil && said != "" && said != strconv.FormatUint(timeline, 10) {
		err = fmt.Errorf("it names the timelines %d and %s", timeline, said)
	}
	if err = errors.Join(err, checkpointErr); err != nil {
		return nil, fmt.Errorf("backup_label is not as PostgreSQL writes it: %w", err)
	}
	return b, nil
}

// backup returns the backup that the data were restored from; nil if they were not restored, or have recovered since.
// If it returns an error, the restored data cannot be used.
func (p Place) backup(ctx context.Context, c Control) (*reconcile.Backup, error) {
	l, err := p.label()
	switch {
	case err != nil:
		return nil, err
	case l == nil:
		return c.backup()
	case l.byRewind():
		return nil, nil
	}
	b, err := l.backup()
	if err != nil {
		return &reconcile.Backup{}, err
	}
	if l["BACKUP FROM"] == "standby" {
		// PostgreSQL demands the same, and takes the end of the backup from the control file (xlogrecovery.c,
		// InitWalRecovery).
		if b.End, err = c.lsn("Minimum recovery ending location"); err == nil && b.End == 0 {
			err = fmt.Errorf("backup_label says that the backup is of a standby, but the control file is not (%s)",
				c["Database cluster state"])
		}
		if err != nil {
			return b, err
		}
	}
	return b, p.whole(ctx, b)
}

// backup returns the backup whose WAL PostgreSQL has begun to replay, but not yet to its end; nil if there is none.
func (c Control) backup() (*reconcile.Backup, error) {
	if c["End-of-backup record required"] != "yes" {
		return nil, nil
	}
	timeline, err := strconv.ParseUint(c["Latest checkpoint's TimeLineID"], 10, 32)
	b := &reconcile.Backup{Timeline: uint32(timeline)}
	for name, to := range map[string]*model.LSN{
		"Latest checkpoint's REDO location": &b.Start,
		"Latest checkpoint location":        &b.Checkpoint,
		"Backup end location":               &b.End,
	} {
		var lsnErr error
		*to, lsnErr = c.lsn(name)
		err = errors.Join(err, lsnErr)
	}
	return b, err
}

// HistoryFile is the name of a backup's history file, which PostgreSQL archives at the end of the backup
// (BackupHistoryFileName).
func HistoryFile(b *reconcile.Backup, segment uint64) string {
	first := SegmentName(b.Timeline, b.Start.Segment(segment), segment)
	return fmt.Sprintf("%s.%08X.backup", first, uint64(b.Start)%segment)
}

var stopLocation = regexp.MustCompile(`(?m)^STOP WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) `)

// EndOfBackup returns where a backup ends by its history file; 0 if the file does not say.
func EndOfBackup(history []byte) model.LSN {
	m := stopLocation.FindSubmatch(history)
	if m == nil {
		return 0
	}
	end, err := model.ParseLSN(string(m[1]))
	if err != nil {
		return 0
	}
	return end
}

// hasWALOf reports whether pg_wal has any WAL from after the beginning of a backup.
func (p Place) hasWALOf(b *reconcile.Backup, segment uint64) bool {
	return len(p.segmentsFrom(b.Start, segment)) > 0
}

// gap returns an error if the WAL in pg_wal does not begin where the backup begins, or has a gap. PostgreSQL would
// otherwise replay WAL that is left over from before.
func (p Place) gap(b *reconcile.Backup, segment uint64) error {
	here := p.segmentsFrom(b.Start, segment)
	for n, last := b.Start.Segment(segment), slices.Max(here); n < last; n++ {
		if !slices.Contains(here, n) {
			return fmt.Errorf("the WAL in pg_wal does not go on from the beginning of the backup, %s, which needs %s: "+
				"move what is in pg_wal away", b.Start, SegmentName(b.Timeline, n, segment))
		}
	}
	return nil
}

// segmentsFrom returns the numbers of the WAL segments in pg_wal that end after a position, of any timeline.
func (p Place) segmentsFrom(from model.LSN, segment uint64) (numbers []uint64) {
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return nil // the caller has read the folder before, and would have failed
	}
	for _, e := range entries {
		if !walFile.MatchString(e.Name()) {
			continue
		}
		end, err := p.endOf(e.Name(), segment)
		if err == nil && end > from {
			numbers = append(numbers, (end - 1).Segment(segment))
		}
	}
	return numbers
}

// halfRestored returns an error if a backup is being restored, or its restore has failed: every tool restores the
// control file last.
func (p Place) halfRestored() error {
	_, err := os.Stat(filepath.Join(p.Data, "global", "pg_control"))
	if !os.IsNotExist(err) || p.HalfSwapped() {
		return nil
	}
	for _, mark := range []string{backupLabel, pgBackRestManifest} {
		if isThere(filepath.Join(p.Data, mark)) {
			return fmt.Errorf("the restore of a backup into %s has not come to its end: %s is there, and global/pg_control, "+
				"which comes last, is not: wait for its end, restore it again, or empty the folder for a copy", p.Data, mark)
		}
	}
	return nil
}

// pgBackRestManifest is a file that exists while pgBackRest restores.
const pgBackRestManifest = "backup.manifest"
