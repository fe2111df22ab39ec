package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/reconcile"
)

// WALFolder returns the folder that pg_wal leads to, whether that exists or not; "" if pg_wal is not a symbolic link.
func (p Place) WALFolder() (string, error) {
	return leadsTo(filepath.Join(p.Data, "pg_wal"))
}

// Other is the folder for the WAL or a tablespace of a copy: beside the folder in use, on the same file system. The two
// names alternate from copy to copy, so nothing has to be renamed.
func Other(folder string) string {
	const suffix = ".pgrex"
	if name, ok := strings.CutSuffix(folder, suffix); ok {
		return name
	}
	return folder + suffix
}

// noCopy explains why a copy cannot take the place of the data folder; "" if it can.
func (p Place) noCopy(local reconcile.LocalData) string {
	if empty, err := p.empty(); err == nil && empty == "" && !p.isDatabase() {
		return fmt.Sprintf("%s holds files, but no database: see whether the agent's pgdata is right, or move the "+
			"files away", p.Data)
	}
	for _, why := range []string{p.noSettings(local), p.noneInPlace(), p.ownFilesLost()} {
		if why != "" {
			return why
		}
	}
	wal, err := p.WALFolder()
	if err != nil {
		return fmt.Sprintf("pg_wal leads nowhere: %v", err)
	}
	if wal == "" {
		return ""
	}
	if lies, err := liesIn(wal, p.Data); lies || err != nil {
		return fmt.Sprintf("pg_wal leads to %s, in the data folder, with which it would be moved away: move it out "+
			"of the data folder, or make it a folder instead of a link", wal)
	}
	if why := noneBeside(wal); why != "" {
		return "pg_wal leads to " + wal + ": " + why
	}
	next := Other(wal)
	if entries, err := os.ReadDir(next); err == nil && len(entries) > 0 && p.leftWAL() != next {
		return fmt.Sprintf("the copy's WAL would go into %s, but that is there, and not from an earlier copy: move "+
			"it away", next)
	}
	return ""
}

// noSettings explains why a copy would have settings that PostgreSQL cannot read; "" if it would not.
func (p Place) noSettings(local reconcile.LocalData) string {
	_, err := os.Lstat(p.config())
	switch {
	case local.Unconfigured == "":
		return ""
	case p.nameOf(p.config()) == "":
		return local.Unconfigured + ": mend that, since a copy brings no such file"
	case err == nil:
		return local.Unconfigured + ": mend it; or move the file away, and the copy keeps the primary's"
	}
	return ""
}

// noneInPlace explains why a copy can be made neither beside the data folder nor in it; "" if it can.
func (p Place) noneInPlace() string {
	_, err := os.Stat(p.Data)
	switch {
	case !p.inside():
		return cmp.Or(noneBeside(p.Data), p.mountsBelow())
	case os.IsNotExist(err):
		return fmt.Sprintf("there is no data folder %s, and this user cannot make it: type: %s", p.Data,
			install(p.Data))
	case !writable(p.Data):
		return "this user may not write in " + p.Data
	}
	return cmp.Or(p.unmovable(), p.mountsBelow())
}

// unmovable names something in the data folder that this user cannot move to another folder; "" if there is none. A
// folder that is moved has to be writable itself, because its entry ".." changes. What is immutable stays where it is.
func (p Place) unmovable() string {
	entries, err := os.ReadDir(p.Data)
	if err != nil {
		return err.Error()
	}
	for _, e := range entries {
		path := filepath.Join(p.Data, e.Name())
		if notData(e.Name()) || !e.IsDir() && !e.Type().IsRegular() {
			continue
		}
		err := unix.Access(path, unix.W_OK)
		if err == nil || !e.IsDir() && !errors.Is(err, unix.EPERM) {
			continue
		}
		return fmt.Sprintf("this user cannot move %s, as a copy has to (%v): see whether it is immutable (lsattr), "+
			"and type: %s",
			path, err, sudo("mv", path, filepath.Dir(p.Data)))
	}
	return ""
}

// isDatabase reports whether the files in the data folder are a database's, even a damaged one's.
func (p Place) isDatabase() bool {
	return slices.ContainsFunc([]string{"PG_VERSION", "global", "base"}, func(name string) bool {
		_, err := os.Lstat(filepath.Join(p.Data, name))
		return err == nil
	})
}

// noneBeside explains why no folder can be made beside another one, on the same file system; "" if it can. The other
// one may be missing.
func noneBeside(folder string) string {
	parent := filepath.Dir(folder)
	if _, err := os.Stat(parent); os.IsNotExist(err) {
		return fmt.Sprintf("%s is not there: type: %s", parent, install(parent))
	}
	apart := false
	_, err := os.Stat(folder)
	if err == nil {
		apart, err = onOther(folder, parent)
	}
	switch {
	case err != nil && !os.IsNotExist(err):
		return err.Error()
	case apart || isMountPoint(folder):
		return folder + " is a file system of its own, and no other folder can take its place: make a folder below " +
			"it, and let the link lead there"
	case !writable(parent):
		return fmt.Sprintf("no folder can be made beside %s: let this user write in %s", folder, parent)
	}
	return ""
}

// onOther reports whether two folders are on different file systems.
func onOther(a, b string) (bool, error) {
	var first, second syscall.Stat_t
	if err := errors.Join(syscall.Stat(a, &first), syscall.Stat(b, &second)); err != nil {
		return false, fmt.Errorf("look at the file systems of %s and %s: %w", a, b, err)
	}
	return first.Dev != second.Dev, nil
}

// leftWAL is the WAL folder that goes with what is beside the data, if it is a copy's or the old one.
func (p Place) leftWAL() string {
	beside := Place{Data: p.Beside()}
	left, err := beside.WALFolder()
	now, nowErr := p.WALFolder()
	if err != nil || nowErr != nil || left == "" || now == "" || left != Other(now) {
		return ""
	}
	return left
}

// Clear removes what is beside the data: what is left of a copy, or, after the swap, the old data. Tablespaces and WAL
// go first, because only the folder that links to them shows whose they are. While a swap inside the data folder is not
// whole, Clear refuses: nothing shows then what is in use. If ctx ends, the next Clear goes on.
func (p Place) Clear(ctx context.Context) error {
	if p.HalfSwapped() {
		return fmt.Errorf("a copy is being put in its place in %s, and nothing of it or of the old data is removed "+
			"until that is done: type sudo pgrex rejoin, which goes on", p.Data)
	}
	if err := p.clearSpaces(ctx); err != nil {
		return err
	}
	if wal := p.leftWAL(); wal != "" {
		if err := p.discard(ctx, wal); err != nil {
			return err
		}
	} else if now, err := p.WALFolder(); err == nil && now != "" {
		// A pg_basebackup that fails empties its folders. With the data folder's content goes the link to the WAL's.
		if err := removeEmpty(Other(now)); err != nil {
			return err
		}
	}
	for _, folder := range append(p.triedFolders(), p.Beside()) {
		if err := p.discard(ctx, folder); err != nil {
			return err
		}
	}
	return nil
}

// Left reports whether there is anything that Clear, or the end of an operation, removes.
func (p Place) Left() bool {
	for _, path := range append(append(p.triedFolders(), p.leftOfJournals()...), filepath.Join(p.Data, insideOld),
		p.Beside()) {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	marks, _ := p.marks()
	return len(marks) > 0
}
