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

// notWritable is what of the data folder pg_rewind could not replace, because this user may not write it: pg_rewind
// would end half way. It is "" if there is nothing of that kind.
func (p Place) notWritable() (why string) {
	_ = filepath.WalkDir(p.Data, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err): // it went meanwhile
			return nil
		case err != nil, d.IsDir() && unix.Access(path, unix.R_OK|unix.W_OK|unix.X_OK) != nil,
			d.Type().IsRegular() && unix.Access(path, unix.W_OK) != nil:
			why = fmt.Sprintf("this user may not write %s, which pg_rewind may have to replace: move it out of the data "+
				"folder, or see to its owner and mode (ls -l), and whether it is immutable (lsattr)", path)
			return fs.SkipAll
		}
		return nil
	})
	return why
}

// notKept is which of the host's own files could not be kept as it is; "" if all can be.
func (p Place) notKept(own []string) (why string) {
	for _, name := range p.Here(own) {
		err := filepath.WalkDir(filepath.Join(p.Data, name), func(path string, d fs.DirEntry, err error) error {
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
		if err != nil {
			return fmt.Sprintf("%v, so that it could not be kept as it is: move it out of the data folder, and "+
				"have the setting name it there, or give it to the user that owns the data", err)
		}
	}
	return ""
}

// hindrances are why neither pg_rewind nor a copy could end, by what lies in the data folder.
func (p Place) hindrances(ctx context.Context) (noRewind, noCopy string, err error) {
	if p.Rewinding() != NotBegun {
		return "", "", nil // the journal has what is this host's own, and only a copy is left
	}
	own, err := p.Own(ctx)
	if err != nil {
		return "", "", err
	}
	noCopy = p.notKept(own)
	if noRewind = noCopy; noRewind == "" {
		noRewind = p.notWritable()
	}
	return noRewind, noCopy, nil
}

// Odd are the names in the data folder of what is neither a file nor a folder, which pg_rewind does not replace by a
// file of the primary's. pg_wal and tablespaces may be links.
func (p Place) Odd() (names []string, err error) {
	err = filepath.WalkDir(p.Data, func(path string, d fs.DirEntry, err error) error {
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
