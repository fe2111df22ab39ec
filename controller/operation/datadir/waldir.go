package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/reconcile"
)

// WALFolder is the folder that pg_wal leads to, "" if it is not a symbolic link.
func (p Place) WALFolder() (string, error) {
	link := filepath.Join(p.Data, "pg_wal")
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return "", err
	}
	return filepath.EvalSymlinks(link)
}

// OtherWAL is the folder for the WAL of a copy: beside the one in use, on the same file system. The two names alternate
// from copy to copy. So nothing needs renaming.
func OtherWAL(folder string) string {
	const suffix = ".pgrex"
	if name, ok := strings.CutSuffix(folder, suffix); ok {
		return name
	}
	return folder + suffix
}

// noCopy is why the data folder cannot be replaced by one beside it.
func (p Place) noCopy() string {
	spaces, err := os.ReadDir(filepath.Join(p.Data, "pg_tblspc"))
	if err == nil && len(spaces) > 0 {
		return "the database has tablespaces outside of its folder: copy it by hand, with pg_basebackup --tablespace-mapping"
	}
	if why := noneBeside(p.Data); why != "" {
		return why
	}
	if why := p.ownFilesLost(); why != "" {
		return why
	}
	wal, err := p.WALFolder()
	if err != nil {
		return fmt.Sprintf("pg_wal leads nowhere: %v", err)
	}
	if wal == "" {
		return ""
	}
	if why := noneBeside(wal); why != "" {
		return "pg_wal leads to " + wal + ": " + why
	}
	next := OtherWAL(wal)
	if entries, err := os.ReadDir(next); err == nil && len(entries) > 0 && p.leftWAL() != next {
		return fmt.Sprintf("the copy's WAL would go into %s, but that is there, and not from an earlier copy: move it away", next)
	}
	return ""
}

// noneBeside is why no folder can be made beside another one, on its file system.
func noneBeside(folder string) string {
	parent := filepath.Dir(folder)
	apart, err := onOther(folder, parent)
	switch {
	case err != nil:
		return err.Error()
	case apart:
		return folder + " is a file system of its own, and no other folder can take its place: copy by hand"
	case unix.Access(parent, unix.W_OK) != nil:
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

func freeBytes(folder string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", folder, err)
	}
	return s.Bavail * uint64(s.Frsize), nil
}

// room measures what there is, and what a copy needs beside its data.
func (p Place) room(ctx context.Context, local *reconcile.LocalData) (err error) {
	if local.Bytes, err = folderSize(p.Data); err != nil {
		return err
	}
	if local.Free, err = freeBytes(p.Data); err != nil {
		return err
	}
	wal := filepath.Join(p.Data, "pg_wal")
	if local.WALApart, err = onOther(p.Data, wal); err != nil {
		return err
	}
	if local.WALFree, err = freeBytes(wal); err != nil {
		return err
	}
	size, err := p.Configured(ctx, "max_wal_size") // in MB
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(size, 10, 32)
	if err != nil {
		return fmt.Errorf("max_wal_size is %q, not a number", size)
	}
	local.WAL = n << 20
	return nil
}

// leftWAL is the WAL folder that goes with what is beside the data, if it is a copy's or the old one.
func (p Place) leftWAL() string {
	beside := Place{Data: p.Beside()}
	left, err := beside.WALFolder()
	now, nowErr := p.WALFolder()
	if err != nil || nowErr != nil || left == "" || now == "" || left != OtherWAL(now) {
		return ""
	}
	return left
}

// Clear removes what is beside the data: what is left of a copy, or, after the swap, the old data. The WAL goes first,
// since only the folder that leads to it shows whose it is.
func (p Place) Clear() error {
	if wal := p.leftWAL(); wal != "" {
		if err := os.RemoveAll(wal); err != nil {
			return err
		}
	}
	for _, folder := range append(p.triedFolders(), p.Beside()) {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	return nil
}

// Left reports whether there is anything that Clear, or the end of an operation, removes.
func (p Place) Left() bool {
	for _, path := range append(p.triedFolders(), p.Beside(), p.opening(), p.Marker(), p.closed()) {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	marks, _ := p.marks()
	return len(marks) > 0
}
