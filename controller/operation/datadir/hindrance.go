package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// notWritable names a file or folder of the data folder that this user may not write, so that pg_rewind could not
// replace it and would fail half way. It is "" if there is none.
func (p Place) notWritable(ctx context.Context) (why string, err error) {
	err = p.walk(ctx, p.Data, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err): // removed meanwhile
			return nil
		case err != nil, d.IsDir() && unix.Access(path, unix.R_OK|unix.W_OK|unix.X_OK) != nil,
			d.Type().IsRegular() && unix.Access(path, unix.W_OK) != nil:
			why = fmt.Sprintf("this user may not write %s, which pg_rewind may have to replace: move it out of the data "+
				"folder, or see to its owner and mode (ls -l), and whether it is immutable (lsattr)", path)
			return fs.SkipAll
		}
		return nil
	})
	return why, err
}

// notKept names one of the host's own files that this user could not put back as it is, and why; "" if there is none.
func (p Place) notKept(ctx context.Context, own []string) (why string, err error) {
	for _, name := range p.Here(own) {
		err := p.walk(ctx, filepath.Join(p.Data, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			switch {
			case err != nil || d.Type()&fs.ModeSymlink != 0:
				return err
			case !d.IsDir() && !d.Type().IsRegular():
				return fmt.Errorf("%s is neither a file nor a folder", path)
			case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
				return fmt.Errorf("%s belongs to another user", path)
			case unix.Access(path, unix.R_OK) != nil:
				return fmt.Errorf("this user may not read %s", path)
			}
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return "", err
		case err != nil:
			return fmt.Sprintf("%v, so that it could not be kept as it is: move it out of the data folder, and "+
				"have the setting name it there, or give it to the user that owns the data", err), nil
		}
	}
	return "", nil
}

// hindrances returns why pg_rewind, or a copy, would fail because of a file in the data folder; "" if it would not.
func (p Place) hindrances(ctx context.Context) (noRewind, noCopy string, err error) {
	if p.Rewinding() != NotBegun || p.HalfSwapped() {
		return "", "", nil // the journal, or the copy, already has this host's own files
	}
	own, err := p.Own(ctx)
	if err != nil {
		return "", "", err
	}
	noCopy, err = p.notKept(ctx, own)
	if noRewind = noCopy; noRewind == "" && err == nil {
		noRewind, err = p.notWritable(ctx)
	}
	return noRewind, noCopy, err
}

// Odd returns the names in the data folder that are neither a file nor a folder, such as links. pg_rewind does not
// replace them by a file of the primary's. pg_wal and tablespaces do not count: they may be links.
func (p Place) Odd(ctx context.Context) (names []string, err error) {
	err = p.walk(ctx, p.Data, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(p.Data, path)
		switch {
		case errors.Is(err, fs.ErrPermission), os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case name == "pg_wal", strings.HasPrefix(name, "pg_tblspc/"), d.IsDir(), d.Type().IsRegular():
			return nil
		}
		names = append(names, name)
		return nil
	})
	return names, err
}
