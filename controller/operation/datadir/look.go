package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/pgrex/pgrex/reconcile"
)

// Look reads what a stopped server's data tell. What they do not tell is no error, because a copy is still possible. An
// unfinished restore of a backup is an error.
func (p Place) Look(ctx context.Context) (local reconcile.LocalData, err error) {
	gone, err := p.empty()
	if err == nil && gone == "" {
		if local, err = p.database(ctx); err == nil {
			gone, err = p.partGone(local.Backup != nil)
		}
	}
	if err != nil {
		return local, err
	}
	if local.Gone = gone; gone != "" && p.HasBackupLabel() {
		local.Gone = cmp.Or(local.Unreadable, gone) // says what was not restored
	}
	if local.NoCopy = cmp.Or(p.noCopy(local), local.NoCopy); local.NoCopy == "" {
		err = p.room(&local)
	}
	return local, err
}

// empty explains why there is no database in the data folder; "" if there is one, even a damaged one.
func (p Place) empty() (why string, err error) {
	entries, err := os.ReadDir(p.Data)
	switch {
	case os.IsNotExist(err):
		return "there is no data folder " + p.Data, nil
	case err != nil:
		return "", fmt.Errorf("look at the data folder: %w", err)
	case !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !notData(e.Name()) && e.Name() != agentsRecovery
	}):
		return "the data folder " + p.Data + " is empty", nil
	}
	return "", nil
}

// lostAndFound is a folder that an empty file system may have.
const lostAndFound = "lost+found"

// agentsRecovery is what the agent leaves in an empty data folder, because it takes that for one of PostgreSQL 11
// (heartbeat/pgsql, RECOVERY_CONF). A database of PostgreSQL 12 or newer has no such file.
const agentsRecovery = "recovery.conf"

// partGone names a part of the database that is not in its place; "" if there is none. A restored backup needs no WAL.
func (p Place) partGone(restored bool) (why string, err error) {
	wal, err := p.WALFolder()
	if err != nil {
		return "", err
	}
	if wal == "" {
		wal = filepath.Join(p.Data, "pg_wal")
	}
	entries, err := os.ReadDir(wal)
	switch {
	case os.IsNotExist(err):
		return fmt.Sprintf("its WAL is gone: %s is not there", wal), nil
	case err != nil:
		return "", fmt.Errorf("look at the WAL here: %w", err)
	case !restored && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return walFile.MatchString(e.Name()) }):
		return fmt.Sprintf("its WAL is gone: %s has none", wal), nil // a database that ran always has some
	}
	spaces, err := p.Linked()
	for _, oid := range slices.Sorted(maps.Keys(spaces)) {
		if folder := spaces[oid]; len(versions(folder, p.major())) == 0 {
			return fmt.Sprintf("its tablespace %d is gone: %s is not there, or holds none", oid, folder), nil
		}
	}
	return "", err
}

// database reads what the data tell.
func (p Place) database(ctx context.Context) (local reconcile.LocalData, err error) {
	c, err := p.Control(ctx)
	switch {
	case errors.Is(err, errDamaged):
		if half := p.halfRestored(); half != nil {
			return local, half
		}
		local.Unreadable = err.Error()
	case err != nil:
		return local, err
	default:
		if local, err = p.WAL(ctx, c); err != nil {
			if ctx.Err() != nil {
				return local, context.Cause(ctx)
			}
			if local.Segment == 0 {
				return local, err
			}
			local.Unreadable = "its data are of no use as they are: " + err.Error()
		}
	}
	if err := p.configured(ctx, c, &local); err != nil {
		return local, err
	}
	noRewind := p.noRewind(c)
	if local.Unconfigured == "" || !p.hasSettings() { // noCopy reports settings that cannot be read
		local.NoRewind, local.NoCopy, err = p.hindrances(ctx)
	}
	local.NoRewind = cmp.Or(noRewind, local.NoRewind)
	return local, err
}

// noRewind explains why pg_rewind cannot work on the data, whatever files there are; "" if it can.
func (p Place) noRewind(c Control) string {
	switch kept := filepath.Dir(p.Marker()); {
	case c["wal_log_hints setting"] != "on" && c["Data page checksum version"] == "0":
		return "pg_rewind needs wal_log_hints=on, or data checksums, from before the WAL parted; neither was there"
	case p.HasBackupLabel():
		return "pg_rewind does not work on data that were restored from a backup: backup_label is there"
	case !writable(kept):
		return "its journal cannot be kept: let this user write in " + kept
	case kept != filepath.Dir(p.Data) && isMemory(kept):
		return fmt.Sprintf("its journal would be kept in %s, which is empty when the host has started again: "+
			"let this user write in %s", kept, filepath.Dir(p.Data))
	}
	return ""
}

// configured reads how much WAL PostgreSQL will keep by its settings, and whether these are too low. If they cannot be
// read, it says why.
func (p Place) configured(ctx context.Context, c Control, local *reconcile.LocalData) (err error) {
	size := "" // in MB
	if err = p.Configuration(ctx); err == nil {
		size, err = p.Configured(ctx, "max_wal_size")
	}
	if err == nil {
		local.TooLow, err = p.tooLow(ctx, c)
	}
	if _, ran := errors.AsType[*ToolError](err); ran && ctx.Err() == nil {
		local.Unconfigured = "PostgreSQL cannot read its configuration here: " + err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(size, 10, 32)
	if err != nil {
		return fmt.Errorf("max_wal_size is %q, not a number", size)
	}
	local.WAL = n << 20
	return nil
}

// room measures what is free.
func (p Place) room(local *reconcile.LocalData) (err error) {
	data, wal := existing(p.Data), existing(p.Data)
	link, err := p.WALFolder()
	if err != nil {
		return err
	}
	if link != "" {
		wal = existing(link)
	}
	if local.FileSystem, local.Free, err = Disk(data); err != nil {
		return err
	}
	if local.WALApart, err = onOther(data, wal); err != nil {
		return err
	}
	local.WALFree, err = freeBytes(wal)
	return err
}

// existing returns a folder, or, if it does not exist, the nearest folder above it that does.
func existing(folder string) string {
	for {
		parent := filepath.Dir(folder)
		if _, err := os.Stat(folder); err == nil || parent == folder {
			return folder
		}
		folder = parent
	}
}

// Disk returns the number of the file system that a folder is on, or would be on, and the bytes that are free there.
func Disk(folder string) (number, free uint64, err error) {
	folder = existing(folder)
	var s syscall.Stat_t
	if err := syscall.Stat(folder, &s); err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", folder, err)
	}
	free, err = freeBytes(folder)
	return s.Dev, free, err
}

func freeBytes(folder string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", folder, err)
	}
	return s.Bavail * uint64(s.Frsize), nil
}

// Size is the sum of the sizes of the data folder's files, without pg_wal; 0 if there is none. What a server removes
// meanwhile does not count.
func (p Place) Size(ctx context.Context) (total uint64, err error) {
	err = p.walk(ctx, p.Data, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err), path != p.Data && os.IsPermission(err): // hindrances reports such a folder
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "pg_wal":
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		switch {
		case err == nil:
			total += uint64(info.Size())
		case os.IsNotExist(err):
			return nil
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("measure %s: %w", p.Data, err)
	}
	return total, err
}
