package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Beside is the folder of a copy, and after the swap that of the old data.
func (p Place) Beside() string {
	if p.inside() {
		return filepath.Join(p.Data, insideNew)
	}
	return p.Data + ".pgrex-new"
}

// The folders that a swap inside the data folder makes. PostgreSQL ignores them.
const (
	insideNew  = "pgrex-new"  // the copy, and after the swap the old data
	insideOld  = "pgrex-old"  // the old data. While it is there, the swap has begun, and the copy was whole
	insideCopy = "pgrex-copy" // the copy, once all of the old data are in insideOld
)

var insideFolders = []string{insideNew, insideOld, insideCopy}

// inside reports whether no copy can be made beside the data folder: it is a mount point, or this user may not write in
// the folder that it is in. Then the data folder stays, and its files are swapped. What was begun so ends so, even if a
// copy could be made beside the data folder by now.
func (p Place) inside() bool {
	begun := slices.ContainsFunc(insideFolders, func(name string) bool {
		_, err := os.Lstat(filepath.Join(p.Data, name))
		return err == nil
	})
	return begun || isMountPoint(p.Data) || !writable(filepath.Dir(p.Data))
}

// MakeBeside makes the copy's folder, and the folders of its WAL and of its tablespaces where these are elsewhere, with
// the group, mode and SELinux label of the folders in use. What pg_basebackup makes in them gets the same label.
func (p Place) MakeBeside(fresh []Tablespace) error {
	if err := makeLike(p.Beside(), p.Data); err != nil {
		return err
	}
	if err := closeToOthers(p.Beside()); err != nil {
		return err
	}
	wal, err := p.WALFolder()
	if err == nil && wal != "" {
		err = makeLike(Other(wal), wal)
	}
	if err != nil {
		return err
	}
	spaces, err := p.Linked()
	for _, s := range fresh {
		if used := spaces[s.OID]; err == nil && isThere(used) {
			err = makeLike(s.Folder, used)
		}
	}
	return err
}

// closeToOthers gives a data folder mode 700 if PostgreSQL would refuse the mode that it has (PG_MODE_MASK_GROUP). The
// root of a new file system has such a mode.
func closeToOthers(folder string) error {
	const refused = 0o027
	info, err := os.Stat(folder)
	if err == nil && info.Mode()&refused != 0 {
		err = os.Chmod(folder, info.Mode()&0o700)
	}
	return err
}

// Swap puts the copy in the place of the data. It makes a missing data folder first.
//
// It swaps a copy beside the data at once, and removes the copy if that fails. It moves a copy inside the data folder
// file by file. If it is killed or fails then, HalfSwapped reports that, and the next Swap goes on.
func (p Place) Swap() error {
	if p.inside() {
		return p.swapInside()
	}
	if err := os.Mkdir(p.Data, 0o700); err != nil && !os.IsExist(err) {
		return errors.Join(err, p.Clear(context.Background()))
	}
	if err := exchange(p.Beside(), p.Data); err != nil {
		return errors.Join(err, p.Clear(context.Background()))
	}
	return SyncFolder(filepath.Dir(p.Data))
}

// SwapText says what Swap does.
func (p Place) SwapText() string {
	if p.inside() {
		return fmt.Sprintf("move the old files of %s into %s, and the copy's out of it", p.Data, p.Beside())
	}
	return "swap " + p.Beside() + " and " + p.Data
}

// HalfSwapped reports whether a swap inside the data folder has begun and is not whole.
func (p Place) HalfSwapped() bool {
	_, err := os.Lstat(filepath.Join(p.Data, insideOld))
	return err == nil
}

// swapInside moves the old data out, and then the copy in. It moves PG_VERSION out first and in last, because no server
// starts without that file.
func (p Place) swapInside() error {
	fresh, old := filepath.Join(p.Data, insideNew), filepath.Join(p.Data, insideOld)
	whole := filepath.Join(p.Data, insideCopy)
	if !p.HalfSwapped() {
		if _, err := os.Stat(filepath.Join(fresh, "PG_VERSION")); err != nil {
			return err
		}
		if err := os.Mkdir(old, 0o700); err != nil {
			return err
		}
	}
	if isThere(fresh) {
		if err := moveFiles(p.Data, old, true); err != nil {
			if why := p.unmovable(); why != "" {
				err = fmt.Errorf("%w: %s", err, why)
			}
			return err
		}
		if err := os.Rename(fresh, whole); err != nil {
			return err
		}
	}
	if isThere(whole) {
		if err := resemble(p.Data, whole); err != nil { // PostgreSQL would refuse the mode of a new file system's root
			return err
		}
		if err := moveFiles(whole, p.Data, false); err != nil {
			return err
		}
		if err := os.Remove(whole); err != nil {
			return err
		}
	}
	if err := os.Rename(old, fresh); err != nil {
		return err
	}
	return SyncFolder(p.Data)
}

// moveFiles moves all files of a folder, PG_VERSION first or last. It can be repeated.
func moveFiles(from, to string, versionFirst bool) error {
	const version = "PG_VERSION"
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	names := []string{version}
	for _, e := range entries {
		if name := e.Name(); name != version && !notData(name) {
			names = append(names, name)
		}
	}
	if !versionFirst {
		slices.Reverse(names)
	}
	for _, name := range names {
		err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && (name != version || !os.IsNotExist(err)) {
			return err
		}
		if name == version {
			if err := errors.Join(SyncFolder(from), SyncFolder(to)); err != nil {
				return err
			}
		}
	}
	return errors.Join(SyncFolder(from), SyncFolder(to))
}

// notData reports whether a name in the data folder does not belong to a database.
func notData(name string) bool {
	return name == lostAndFound || slices.Contains(insideFolders, name)
}

// exchange swaps two folders at once.
func exchange(one, other string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("swap %s and %s: %w", one, other, err)
	}
	return nil
}

// TrySwap finds out whether the file system can do that, before hours are spent on a copy.
func (p Place) TrySwap() error {
	if p.inside() {
		return nil // it only renames
	}
	folder, err := p.TryFolder()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	one, other := filepath.Join(folder, "one"), filepath.Join(folder, "other")
	if err := errors.Join(os.Mkdir(one, 0o700), os.Mkdir(other, 0o700)); err != nil {
		return err
	}
	if err := exchange(one, other); err != nil {
		return fmt.Errorf("the file system of %s cannot put a copy in its place at once: %w; copy by hand", p.Data, err)
	}
	return nil
}

// TryFolder makes a folder for a try, which the caller removes.
func (p Place) TryFolder() (string, error) {
	return os.MkdirTemp(filepath.Dir(p.triedPattern()), filepath.Base(p.triedPattern()))
}

func (p Place) triedPattern() string { return p.side() + triedSuffix }

const triedSuffix = ".pgrex-archive-"

// side is how the names begin of what pgrex keeps beside the data folder, on whatever file system. If this user may not
// write there, pgrex keeps it in the folder of the agent's lock.
func (p Place) side() string {
	if parent := filepath.Dir(p.Data); !writable(parent) && p.Tmp != "" {
		return filepath.Join(p.Tmp, filepath.Base(p.Data))
	}
	return p.Data
}

// sides are how those names may begin: this user may have been allowed to write there before, or may be now.
func (p Place) sides() []string {
	if p.Tmp == "" {
		return []string{p.Data}
	}
	return []string{p.Data, filepath.Join(p.Tmp, filepath.Base(p.Data))}
}

// triedFolders are those of tries, of killed ones as well.
func (p Place) triedFolders() (all []string) {
	for _, side := range p.sides() {
		folders, _ := filepath.Glob(side + triedSuffix + "*") // its pattern is a good one
		all = append(all, folders...)
	}
	return all
}
