package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// atOnce is how many names of a folder are held in memory: one folder may have millions.
const atOnce = 1000

// walk is filepath.WalkDir for folders of any size: it ends with ctx, holds few names in memory, and goes in the order
// of the file system. see may remove what it is called for. walk counts what it has seen.
func (p Place) walk(ctx context.Context, root string, see fs.WalkDirFunc) error {
	info, err := os.Lstat(root)
	if err == nil {
		err = p.walkIn(ctx, root, fs.FileInfoToDirEntry(info), see)
	} else {
		err = see(root, nil, err)
	}
	if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (p Place) walkIn(ctx context.Context, path string, d fs.DirEntry, see fs.WalkDirFunc) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.count()
	err := see(path, d, nil)
	if err == nil && d.IsDir() {
		err = EachIn(path, func(e fs.DirEntry, err error) error {
			if err != nil {
				return see(path, d, err)
			}
			return p.walkIn(ctx, filepath.Join(path, e.Name()), e, see)
		})
	}
	if errors.Is(err, fs.SkipDir) && d.IsDir() {
		return nil
	}
	return err
}

// EachIn calls see for each entry of a folder of any size, up to its first error, or with the error of reading the
// folder.
func EachIn(folder string, see func(e fs.DirEntry, err error) error) error {
	f, err := os.Open(folder)
	if err != nil {
		return see(nil, err)
	}
	defer func() { _ = f.Close() }() // only read
	for {
		entries, err := f.ReadDir(atOnce)
		for _, e := range entries {
			if err := see(e, nil); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return see(nil, err)
		}
	}
}

// remove is os.RemoveAll for folders of any size: it ends with ctx, which leaves a part. It counts what it has removed.
func (p Place) remove(ctx context.Context, path string) error {
	for {
		err := os.Remove(path)
		if err == nil || os.IsNotExist(err) {
			p.count()
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
		// A file system may skip names while others are removed. Then the folder is read again.
		removed := false
		err = EachIn(path, func(e fs.DirEntry, err error) error {
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return err
			}
			removed = true
			return p.remove(ctx, filepath.Join(path, e.Name()))
		})
		if err == nil && !removed {
			err = fmt.Errorf("%s is not empty, and shows no files", path)
		}
		if err != nil {
			return err
		}
	}
}

// removeAll removes folders, the first first.
func (p Place) removeAll(ctx context.Context, paths ...string) error {
	for _, path := range paths {
		if err := p.remove(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// count counts a file or folder that was looked at or removed.
func (p Place) count() {
	if p.Count != nil {
		p.Count.Add(1)
	}
}

// Reader reads from r until ctx ends.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(text []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(text)
}
