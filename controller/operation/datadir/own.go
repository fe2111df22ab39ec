package datadir

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// NodeLocal are the files of a data folder that are always a host's own.
var NodeLocal = []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"}

// ownSettings are the settings that name a file or folder of the host's own. The files of the first three may include
// others.
var ownSettings = []string{
	"config_file", "hba_file", "ident_file", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir",
	"ssl_dh_params_file", "krb_server_keyfile",
}

// ofPostgreSQL are the names in a data folder that belong to PostgreSQL itself. They are never a host's own.
var ofPostgreSQL = []string{
	"PG_VERSION", "base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_multixact", "pg_notify",
	"pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc",
	"pg_twophase", "pg_wal", "pg_xact", "backup_label", "backup_label.old", "backup_manifest", "current_logfiles",
	"postmaster.opts", "postmaster.pid", "recovery.signal", "standby.signal", "tablespace_map",
	"tablespace_map.old",
}

// mainFiles are the settings that name the files of NodeLocal, which may be elsewhere.
var mainFiles = map[string]string{
	"postgresql.conf": "config_file", "pg_hba.conf": "hba_file", "pg_ident.conf": "ident_file",
}

// Own returns the files and folders of the data folder that are this host's own, whatever the primary has by these
// names: those that the settings here name, and the paths in more. The names are relative to the data folder, and
// sorted. A name that does not exist here must not exist afterwards either; but without settings, Own returns only
// names that exist. Once pg_rewind has begun, the names are those that its journal keeps.
func (p Place) Own(ctx context.Context, more ...string) ([]string, error) {
	if p.Rewinding() != NotBegun {
		return p.kept()
	}
	paths := slices.Clone(more)
	for _, name := range NodeLocal {
		paths = append(paths, filepath.Join(p.Data, name))
	}
	paths = append(paths, included(filepath.Join(p.Data, "postgresql.auto.conf"), 0)...)
	if !p.hasSettings() {
		return p.Here(p.within(paths)), nil
	}
	for i, setting := range ownSettings {
		value, err := p.Configured(ctx, setting)
		if err != nil {
			return nil, err
		}
		if value == "" {
			continue
		}
		path := p.absolute(strings.TrimPrefix(value, "FILE:"))
		paths = append(paths, path)
		if i < 3 {
			paths = append(paths, included(path, 0)...)
		}
	}
	return p.within(paths), nil
}

// hasSettings reports whether the main file of settings exists, and a data folder to read it for.
func (p Place) hasSettings() bool {
	gone, err := p.empty()
	return err == nil && gone == "" && isThere(p.config())
}

// Lost returns the files of NodeLocal that a server here would read in the data folder, and that are missing. pg_rewind
// loses none, because its journal keeps them.
func (p Place) Lost(ctx context.Context) (lost []string, err error) {
	if p.Rewinding() != NotBegun {
		return nil, nil
	}
	for _, name := range NodeLocal {
		if _, err := os.Lstat(filepath.Join(p.Data, name)); err == nil {
			continue
		}
		if setting := mainFiles[name]; setting != "" && p.hasSettings() {
			path, err := p.Configured(ctx, setting)
			if err != nil {
				return nil, err
			}
			if p.nameOf(p.absolute(path)) != name {
				continue
			}
		}
		lost = append(lost, name)
	}
	return lost, nil
}

// absolute makes a path absolute as PostgreSQL does, whose working folder is its data folder.
func (p Place) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.Data, path)
}

// within returns the names of those paths that lie in the data folder, and of the targets there of links among them. A
// folder stands for everything in it. The names of ofPostgreSQL are left out.
func (p Place) within(paths []string) (names []string) {
	for _, path := range paths {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			names = append(names, p.nameOf(target))
		}
		names = append(names, p.nameOf(path))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool {
		first, _, _ := strings.Cut(name, "/")
		below := slices.ContainsFunc(names, func(folder string) bool {
			return folder != "" && strings.HasPrefix(name, folder+"/")
		})
		return name == "" || below || slices.Contains(ofPostgreSQL, first) || slices.Contains(notes, first)
	})
}

// nameOf is a path relative to the data folder; "" if it lies elsewhere.
func (p Place) nameOf(path string) string {
	folder := filepath.Dir(path)
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	name, err := filepath.Rel(p.Data, filepath.Join(folder, filepath.Base(path)))
	if err != nil || !filepath.IsLocal(name) || name == "." {
		return ""
	}
	return name
}

// included returns the files and folders that a configuration file includes, and those that they include in turn. A
// folder counts as a whole, because PostgreSQL would also read a new file in it.
func included(path string, depth int) (paths []string) {
	const most = 10 // as in PostgreSQL
	text, err := readFile(path)
	if err != nil || depth > most { // PostgreSQL itself reports this
		return nil
	}
	for line := range strings.Lines(string(text)) {
		key, value := directive(line)
		if !filepath.IsAbs(value) {
			value = filepath.Join(filepath.Dir(path), value)
		}
		switch key {
		case "include", "include_if_exists":
			paths = append(append(paths, value), included(value, depth+1)...)
		case "include_dir":
			paths = append(paths, value)
			files, _ := filepath.Glob(filepath.Join(value, "*.conf"))
			for _, file := range files {
				paths = append(paths, file)
				paths = append(paths, included(file, depth+1)...)
			}
		}
	}
	return paths
}

// directive reads a line of a configuration file: a name in lower case, and its value. postgresql.conf has single
// quotes, pg_hba.conf double ones.
func directive(line string) (key, value string) {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t='\"")
	if end < 0 {
		return "", ""
	}
	key = strings.ToLower(line[:end])
	rest := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line[end:]), "="))
	if body, quoted := strings.CutPrefix(rest, "'"); quoted {
		return key, unquoted(body)
	}
	if body, quoted := strings.CutPrefix(rest, `"`); quoted {
		value, _, _ = strings.Cut(body, `"`)
		return key, value
	}
	if end := strings.IndexAny(rest, " \t#"); end >= 0 {
		rest = rest[:end]
	}
	return key, rest
}

// Here returns those of some names that exist in the data folder.
func (p Place) Here(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, err := os.Lstat(filepath.Join(p.Data, name))
		return err != nil
	})
}

// CopyOwn makes this host's own files in a copy the same as here. For those that are lost, the copy keeps the primary's.
// It removes what a copy inside the primary's data folder has left there, which has come along.
func (p Place) CopyOwn(ctx context.Context, own []string) error {
	lost, err := p.Lost(ctx)
	if err != nil {
		return err
	}
	from := p.Data
	if p.Rewinding() != NotBegun {
		from = p.Marker() // the files in the data may be the primary's by now
	}
	for _, name := range insideFolders {
		if err := p.remove(ctx, filepath.Join(p.Beside(), name)); err != nil {
			return err
		}
	}
	own = slices.DeleteFunc(slices.Clone(own), func(name string) bool { return slices.Contains(lost, name) })
	return CopyFiles(ctx, from, p.Beside(), own)
}

// Others returns the names in the data folder that are neither PostgreSQL's nor pgrex's, nor this host's own.
func (p Place) Others(own []string) (names []string) {
	entries, _ := os.ReadDir(p.Data) // as far as it can be read
	for _, e := range entries {
		holds := func(name string) bool { return name == e.Name() || strings.HasPrefix(name, e.Name()+"/") }
		ours := notData(e.Name()) || strings.HasPrefix(e.Name(), markPrefix)
		if !ours && !slices.Contains(ofPostgreSQL, e.Name()) && !slices.ContainsFunc(own, holds) {
			names = append(names, e.Name())
		}
	}
	return names
}

// CopyFiles makes a host's own files in one folder the same as in another. A file that does not exist there is removed.
func CopyFiles(ctx context.Context, from, to string, own []string) error {
	for _, name := range own {
		err := copyParents(from, to, filepath.Dir(name))
		if err == nil {
			err = copyOwn(ctx, filepath.Join(from, name), filepath.Join(to, name))
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

// copyParents makes the folders above a name.
func copyParents(from, to, folder string) error {
	if folder == "." {
		return nil
	}
	if err := copyParents(from, to, filepath.Dir(folder)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(from, folder)); os.IsNotExist(err) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(to, folder)); !os.IsNotExist(err) {
		return err
	}
	return makeLike(filepath.Join(to, folder), filepath.Join(from, folder))
}

// copyOwn makes a path the same as another one: a file, a folder with everything in it, a link, or nothing.
func copyOwn(ctx context.Context, from, to string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	info, err := os.Lstat(from)
	if os.IsNotExist(err) {
		return Place{}.remove(ctx, to)
	}
	if err != nil {
		return err
	}
	if was, err := os.Lstat(to); err == nil && was.IsDir() != info.IsDir() {
		if err := (Place{}).remove(ctx, to); err != nil {
			return err
		}
	}
	switch {
	case info.IsDir():
		return copyFolder(ctx, from, to)
	case info.Mode()&fs.ModeSymlink != 0:
		return copyLink(from, to)
	}
	f, err := openFile(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	return copyAs(to, Reader(ctx, f), from)
}

func copyFolder(ctx context.Context, from, to string) error {
	if err := makeLike(to, from); err != nil {
		return err
	}
	// What is only in the old folder is removed. A file system may skip names meanwhile: then the folder is read again.
	for removed := true; removed; {
		removed = false
		err := EachIn(to, func(e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if _, err := os.Lstat(filepath.Join(from, e.Name())); !os.IsNotExist(err) {
				return err
			}
			removed = true
			return Place{}.remove(ctx, filepath.Join(to, e.Name()))
		})
		if err != nil {
			return err
		}
	}
	return EachIn(from, func(e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return copyOwn(ctx, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	})
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	temporary := to + temporarySuffix
	if err := RemoveFile(temporary); err != nil {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	label(temporary, from)
	if err := os.Rename(temporary, to); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(to))
}
