package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/controller/postgres"
)

// Tablespace is one of the primary's tablespaces, and the folder that a copy makes for it here.
type Tablespace struct {
	postgres.Tablespace
	Folder string
}

// Mapping is the argument of pg_basebackup for a tablespace. An unescaped "=" would end the first folder's name.
func (t Tablespace) Mapping() string {
	escape := func(folder string) string { return strings.ReplaceAll(folder, "=", `\=`) }
	return "--tablespace-mapping=" + escape(t.Location) + "=" + escape(t.Folder)
}

// tablespaceLinks is the folder of the links to the tablespaces.
const tablespaceLinks = "pg_tblspc"

// Linked returns the folders of this host's own tablespaces, whether these exist or not, by their numbers. They are
// those that are linked to, and, of a restored backup, those that PostgreSQL will link to.
func (p Place) Linked() (map[uint32]string, error) {
	folder := filepath.Join(p.Data, tablespaceLinks)
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("look at the tablespaces here: %w", err)
	}
	spaces := map[uint32]string{}
	for _, e := range entries {
		oid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil || e.Type()&fs.ModeSymlink == 0 {
			continue // a tablespace in the data folder itself (allow_in_place_tablespaces)
		}
		if spaces[uint32(oid)], err = leadsTo(filepath.Join(folder, e.Name())); err != nil {
			return nil, fmt.Errorf("look at the tablespaces here: %w", err)
		}
	}
	return spaces, p.mapped(spaces)
}

// mapLine is a line of tablespace_map: a tablespace, and its folder, in which line breaks and backslashes are escaped
// (xlogrecovery.c, read_tablespace_map).
var mapLine = regexp.MustCompile(`(?m)^([0-9]+) ((?:[^\\\n]|\\[\s\S])+)$`)

var escaped = regexp.MustCompile(`\\([\s\S])`)

// mapped adds the folders that tablespace_map names. PostgreSQL ignores that file where there is no backup_label.
func (p Place) mapped(spaces map[uint32]string) error {
	if !p.HasBackupLabel() {
		return nil
	}
	text, err := readFile(filepath.Join(p.Data, "tablespace_map"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, m := range mapLine.FindAllSubmatch(text, -1) {
		oid, err := strconv.ParseUint(string(m[1]), 10, 32)
		if err != nil {
			return fmt.Errorf("read tablespace_map: %w", err)
		}
		spaces[uint32(oid)] = resolved(string(escaped.ReplaceAll(m[2], []byte("$1"))))
	}
	return nil
}

// leadsTo returns the folder that a symbolic link leads to, whether that exists or not; "" if there is no link.
func leadsTo(link string) (string, error) {
	info, err := os.Lstat(link)
	switch {
	case os.IsNotExist(err):
		return "", nil
	case err != nil || info.Mode()&fs.ModeSymlink == 0:
		return "", err
	}
	folder, err := filepath.EvalSymlinks(link)
	if !os.IsNotExist(err) {
		return folder, err
	}
	target, err := os.Readlink(link)
	if err == nil && !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(link), target)
	}
	return resolved(target), err
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if parent := filepath.Dir(path); err != nil && parent != path {
		return filepath.Join(resolved(parent), filepath.Base(path))
	}
	return cmp.Or(real, path)
}

// Lacks returns the folders to make here for tablespaces that the primary has and this host lacks, or why they cannot
// be made. They have to exist before the WAL is replayed in which the tablespaces were made.
func (p Place) Lacks(spaces []postgres.Tablespace) (folders []string, why string, err error) {
	here, err := p.Linked()
	for _, s := range spaces {
		if _, is := here[s.OID]; is || err != nil {
			continue
		}
		parent := existing(s.Location)
		if !writable(parent) {
			return nil, fmt.Sprintf("the primary has the tablespace %s in %s, which on this host is not there, or not this user's: type: %s",
				s.Name, s.Location, install(s.Location)), nil
		}
		first := len(folders)
		for folder := s.Location; folder != parent; folder = filepath.Dir(folder) {
			if !slices.Contains(folders, folder) {
				folders = slices.Insert(folders, first, folder)
			}
		}
	}
	return folders, "", err
}

// Taken explains why pg_rewind cannot make a tablespace here that the primary has and this host lacks; "" if it can.
func (p Place) Taken(spaces []postgres.Tablespace) (why string, err error) {
	here, err := p.Linked()
	for _, s := range spaces {
		if _, is := here[s.OID]; !is && err == nil && len(versions(s.Location, p.major())) > 0 {
			return fmt.Sprintf("pg_rewind would make the tablespace %s in %s, but there are files of an earlier one: move them away",
				s.Name, s.Location), nil
		}
	}
	return "", err
}

// MakeFolders makes folders, each after the one that it is in.
func MakeFolders(folders []string) error {
	for _, folder := range folders {
		if err := os.Mkdir(folder, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// RemoveFolders undoes MakeFolders, but leaves what is in use.
func RemoveFolders(folders []string) error {
	for _, folder := range slices.Backward(folders) {
		if err := removeEmpty(folder); err != nil {
			return err
		}
	}
	return nil
}

// removeEmpty removes a folder unless it is in use, or root has made it for this user.
func removeEmpty(folder string) error {
	err := os.Remove(folder)
	for _, fine := range []error{fs.ErrNotExist, unix.ENOTEMPTY, unix.EBUSY, unix.EACCES, unix.EPERM, unix.EROFS} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// Fresh finds an empty folder for a copy of each tablespace, or says why there is none. The folder is on the file
// system of the one in use: beside that one, or in it if nothing can be made beside it. A folder that an earlier
// attempt has left counts as empty.
func (p Place) Fresh(spaces []postgres.Tablespace) (fresh []Tablespace, why string, err error) {
	here, err := p.Linked()
	var taken []string
	for _, s := range spaces {
		if err != nil {
			return nil, "", err
		}
		base := here[s.OID]
		if base == "" {
			base = resolved(s.Location) // as Linked has it, once it is in use
		}
		next := Other(base)
		if noneBeside(base) != "" {
			next = filepath.Join(base, "pgrex")
		}
		i := slices.IndexFunc([]string{base, next}, func(f string) bool { return !slices.Contains(taken, f) && p.vacant(f) })
		if i < 0 {
			return nil, noFresh(s.Name, base, next), nil
		}
		folder := []string{base, next}[i]
		if lies, err := liesIn(folder, p.Data); lies || err != nil {
			return nil, fmt.Sprintf("the tablespace %s is in %s, in the data folder, with which it would be moved away: "+
				"move the tablespace out of the data folder", s.Name, base), err
		}
		fresh, taken = append(fresh, Tablespace{s, folder}), append(taken, folder)
	}
	return fresh, "", err
}

// noFresh says what to do if a copy of a tablespace can have neither of two folders.
func noFresh(name, base, next string) string {
	if parent := existing(base); parent != base && !writable(parent) {
		return fmt.Sprintf("the tablespace %s would go into %s, which this user cannot make: type: %s", name, base, install(base))
	}
	return fmt.Sprintf("the copy of the tablespace %s would go into %s: let this user write in %s, or move away what is there",
		name, next, filepath.Dir(next))
}

// vacant reports whether a folder is empty, or can be made, once Clear has removed what is left.
func (p Place) vacant(folder string) bool {
	left, err := p.leftSpaces()
	if err == nil && slices.ContainsFunc(left, func(l string) bool { return resolved(l) == folder }) {
		return true
	}
	entries, err := os.ReadDir(folder)
	if os.IsNotExist(err) {
		return writable(existing(folder))
	}
	return err == nil && len(entries) == 0 && writable(folder)
}

// leftSpaces returns the folders of the tablespaces of what is beside the data: those that it links to, and those that
// a copy was to make. Folders that the data use are not among them.
func (p Place) leftSpaces() (folders []string, err error) {
	beside, besideErr := Place{Data: p.Beside()}.Linked()
	here, err := p.Linked()
	if err = errors.Join(besideErr, err); err != nil {
		return nil, err
	}
	for _, folder := range slices.AppendSeq(slices.Clone(p.FreshFolders), maps.Values(beside)) {
		used := false
		for _, now := range here {
			same, err := sameFolder(folder, now)
			if err != nil {
				return nil, err
			}
			used = used || same
		}
		if !used {
			folders = append(folders, folder)
		}
	}
	return folders, nil
}

// sameFolder reports whether two paths lead to one folder. A folder has as many names as there are links and mounts that
// lead to it, so that the paths themselves do not tell.
func sameFolder(a, b string) (bool, error) {
	first, err := os.Stat(a)
	if err == nil {
		var second fs.FileInfo
		if second, err = os.Stat(b); err == nil {
			return os.SameFile(first, second), nil
		}
	}
	if os.IsNotExist(err) {
		return resolved(a) == resolved(b), nil
	}
	return false, fmt.Errorf("find out whether %s and %s are one folder: %w", a, b, err)
}

// liesIn reports whether a path leads to a folder or to something in it.
func liesIn(path, folder string) (bool, error) {
	for path = resolved(path); ; path = filepath.Dir(path) {
		if same, err := sameFolder(path, folder); same || err != nil || path == filepath.Dir(path) {
			return same, err
		}
	}
}

// discard removes a file or folder of an earlier copy or of the old data, with everything in it. It refuses if that
// holds what the data use.
func (p Place) discard(ctx context.Context, path string) error {
	spaces, err := p.Linked()
	wal, walErr := p.WALFolder()
	if err = errors.Join(err, walErr); err != nil {
		return err
	}
	used := append(slices.Collect(maps.Values(spaces)), p.Data)
	if wal != "" {
		used = append(used, wal)
	}
	for _, folder := range used {
		switch lies, err := liesIn(folder, path); {
		case err != nil:
			return err
		case lies:
			return fmt.Errorf("remove %s: the data use %s, which is in it; nothing in it was removed", path, folder)
		}
	}
	err = p.remove(ctx, path)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("remove what nobody needs any more: %w; type: %s", err, sudo("rm", "-r", path))
	}
	return err
}

// clearSpaces removes leftSpaces. Another version's tablespace in the same folder stays.
func (p Place) clearSpaces(ctx context.Context) error {
	left, err := p.leftSpaces()
	if err != nil {
		return err
	}
	for _, folder := range left {
		for _, version := range versions(folder, p.major()) {
			if err := p.discard(ctx, version); err != nil {
				return err
			}
		}
		if err := removeEmpty(folder); err != nil {
			return err
		}
	}
	return nil
}

var versionFolder = regexp.MustCompile(`^PG_([0-9]+)_[0-9]+$`)

// versions returns the folders in a tablespace's folder that belong to a major version; to any version if major is "".
// Those of another version belong to another database: pg_upgrade leaves them.
func versions(folder, major string) (found []string) {
	entries, _ := os.ReadDir(folder) // a missing folder has none
	for _, e := range entries {
		if m := versionFolder.FindStringSubmatch(e.Name()); m != nil && (major == "" || major == m[1]) {
			found = append(found, filepath.Join(folder, e.Name()))
		}
	}
	return found
}

// major is the major version of the data, or else of what is beside them; "" if it is not known.
func (p Place) major() string {
	for _, folder := range []string{p.Data, p.Beside()} {
		if text, err := readFile(filepath.Join(folder, "PG_VERSION")); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}
