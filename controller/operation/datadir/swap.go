package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Beside is the folder of a copy, and after the swap that of the old data.
func (p Place) Beside() string { return p.Data + ".pgrex-new" }

// Swap puts the copy in the data's place, at once; where that fails, the copy is removed. A data folder that is not
// there is made first.
func (p Place) Swap() error {
	if err := os.Mkdir(p.Data, 0o700); err != nil && !os.IsExist(err) {
		return errors.Join(err, p.Clear())
	}
	if err := exchange(p.Beside(), p.Data); err != nil {
		return errors.Join(err, p.Clear())
	}
	return SyncFolder(filepath.Dir(p.Data))
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

// TryFolder makes a folder for a try beside the data, which the caller removes.
func (p Place) TryFolder() (string, error) {
	return os.MkdirTemp(filepath.Dir(p.Data), filepath.Base(p.triedPattern()))
}

func (p Place) triedPattern() string { return p.Data + ".pgrex-archive-" }

// triedFolders are those of tries, of killed ones as well.
func (p Place) triedFolders() []string {
	folders, _ := filepath.Glob(p.triedPattern() + "*") // its pattern is a good one
	return folders
}
