package operation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func (p place) beside() string { return p.data + ".pgrex-new" } // the copy; after the swap the old data

// swap puts the copy in the data's place, at once; where that fails, the copy is removed.
func (p place) swap() error {
	if err := exchange(p.beside(), p.data); err != nil {
		return errors.Join(err, p.clear())
	}
	return syncFolder(filepath.Dir(p.data))
}

// exchange swaps two folders at once.
func exchange(one, other string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("swap %s and %s: %w", one, other, err)
	}
	return nil
}

// trySwap finds out whether the file system can do that, before hours are spent on a copy.
func (p place) trySwap() error {
	folder, err := p.tryFolder()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	one, other := filepath.Join(folder, "one"), filepath.Join(folder, "other")
	if err := errors.Join(os.Mkdir(one, 0o700), os.Mkdir(other, 0o700)); err != nil {
		return err
	}
	if err := exchange(one, other); err != nil {
		return fmt.Errorf("the file system of %s cannot put a copy in its place at once: %w; copy by hand", p.data, err)
	}
	return nil
}

// tryFolder makes a folder for a try beside the data, which the caller removes.
func (p place) tryFolder() (string, error) {
	return os.MkdirTemp(filepath.Dir(p.data), filepath.Base(p.triedPattern()))
}

func (p place) triedPattern() string { return p.data + ".pgrex-archive-" }

// triedFolders are those of tries, of killed ones as well.
func (p place) triedFolders() []string {
	folders, _ := filepath.Glob(p.triedPattern() + "*") // its pattern is a good one
	return folders
}
