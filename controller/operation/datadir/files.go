package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// newMode is that of a file that replaces none.
const newMode = 0o600

// temporarySuffix ends the name of a file that is not complete yet.
const temporarySuffix = ".pgrex-new"

// writeWhole replaces a file at once. A reader finds the old text or the new one, even after a power cut. Group, mode
// and SELinux label stay.
func writeWhole(path, text string) error {
	return writeAs(path, text, path)
}

// writeAs is writeWhole with the group, mode and SELinux label of another file, if that file exists.
func writeAs(path, text, like string) error {
	return copyAs(path, strings.NewReader(text), like)
}

// copyAs is writeAs for a text of any size.
func copyAs(path string, text io.Reader, like string) error {
	temporary := path + temporarySuffix
	if err := RemoveFile(temporary); err != nil { // of an attempt that was killed, or a link to somebody else's file
		return err
	}
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, newMode)
	if err != nil {
		return err
	}
	err = resemble(temporary, like)
	_, copyErr := io.Copy(f, text)
	if err = errors.Join(err, copyErr); err == nil { // what was interrupted need not reach the disk
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// makeLike makes a folder, unless it exists, and gives it the group, mode and SELinux label of another folder. New
// files in it get the same label.
func makeLike(path, like string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return resemble(path, like)
}

// resemble gives a file or folder the group, mode and SELinux label of another one, if that exists.
func resemble(path, like string) error {
	info, err := os.Stat(like)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	_ = os.Lchown(path, -1, int(info.Sys().(*syscall.Stat_t).Gid)) // fails for a group that this user is not in
	label(path, like)
	return os.Chmod(path, info.Mode()&(fs.ModePerm|fs.ModeSetgid))
}

// label gives a path the SELinux label of another one. Otherwise a new file has the label of its folder, with which the
// server might not be allowed to read the file. It is no error if the label cannot be set: with SELinux off, a file may
// still have an old label.
func label(path, like string) {
	const name, longest = "security.selinux", 4096
	text := make([]byte, longest)
	if n, err := unix.Lgetxattr(like, name, text); err == nil && n > 0 {
		_ = unix.Lsetxattr(path, name, text[:n], 0)
	}
}

// openFile opens a file that may be a link, but not a pipe, at whose other end nobody may be: no deadline would end that.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readFile reads a file as openFile opens it.
func readFile(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
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
