package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// newMode is that of a file that replaces none.
const newMode = 0o600

// writeWhole replaces a file at once. A reader finds the old text or the new one, even after a power cut. Mode and
// group stay.
func writeWhole(path, text string) error {
	as, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return writeAs(path, text, as)
}

// writeAs is writeWhole with the mode and the group of another file, or of none.
func writeAs(path, text string, as fs.FileInfo) error {
	temporary := path + ".pgrex-new"
	if err := RemoveFile(temporary); err != nil { // of an attempt that was killed, or a link to somebody else's file
		return err
	}
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, newMode)
	if err != nil {
		return err
	}
	if as != nil {
		_ = f.Chown(-1, int(as.Sys().(*syscall.Stat_t).Gid)) // a group that this user is not in cannot be given
		err = f.Chmod(as.Mode().Perm())
	}
	_, writeErr := f.WriteString(text)
	if err = errors.Join(err, writeErr, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// readFile reads a file that may be a link, but not a pipe, at whose other end nobody may be: no deadline would end
// that.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// SyncFolder makes renames and removals in a folder survive a power cut.
func SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lacking are the node's own files that none of some folders has.
func Lacking(folders []string) (lacking []string) {
	for _, name := range NodeLocal {
		if !slices.ContainsFunc(folders, func(folder string) bool {
			_, err := os.Stat(filepath.Join(folder, name))
			return err == nil
		}) {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

// CopyFiles copies the node's own files, those that are there.
func CopyFiles(from, to string) error {
	for _, name := range NodeLocal {
		own := filepath.Join(from, name)
		text, err := readFile(own)
		if os.IsNotExist(err) {
			continue
		}
		var as fs.FileInfo
		if err == nil {
			as, err = os.Stat(own)
		}
		if err == nil {
			err = writeAs(filepath.Join(to, name), string(text), as)
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}
