package testenv

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// tree writes what a host has of its own, over the files of its system. After an error it does nothing more, and keeps
// it.
type tree struct {
	dir    string // the host's own files
	system System
	err    error
}

func newTree(dir string, system System) *tree { return &tree{dir: dir, system: system} }

// file is one of a host's files.
type file struct {
	path, text, owner, group string
	mode                     os.FileMode
}

// file writes a file, whatever the umask.
func (t *tree) file(f file) {
	t.parents(filepath.Dir(f.path))
	t.do(func() error { return os.WriteFile(t.dir+f.path, []byte(f.text), 0o600) })
	t.own(f.path, f.owner, f.group, f.mode)
}

// folder makes a folder, whatever the umask.
func (t *tree) folder(path, owner, group string, mode os.FileMode) {
	t.parents(path)
	t.own(path, owner, group, mode)
}

// parents makes the folders down to a path, each as the system has it: what a host sees are the modes of its own.
func (t *tree) parents(path string) {
	if path == "/" || t.err != nil {
		return
	}
	t.parents(filepath.Dir(path))
	t.do(func() error {
		err := os.Mkdir(t.dir+path, 0o755) //nolint:gosec // most are for everybody; the others follow
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(t.system.Root() + path)
		if errors.Is(err, fs.ErrNotExist) {
			return os.Chmod(t.dir+path, 0o755) //nolint:gosec // whatever the umask
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := os.Chown(t.dir+path, int(stat.Uid), int(stat.Gid)); err != nil {
				return err
			}
		}
		return os.Chmod(t.dir+path, info.Mode())
	})
}

// own sets the owner and mode of a path.
func (t *tree) own(path, owner, group string, mode os.FileMode) {
	t.do(func() error {
		account, _, err := t.system.user(owner)
		if err != nil {
			return err
		}
		gid, err := t.system.group(group)
		if err != nil {
			return err
		}
		if err := os.Chown(t.dir+path, account.uid, gid); err != nil {
			return err
		}
		return os.Chmod(t.dir+path, mode)
	})
}

func (t *tree) do(step func() error) {
	if t.err == nil {
		t.err = step()
	}
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
