package datadir

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// manifest is the content of backup_manifest, in which pg_basebackup lists the files of a backup (PostgreSQL
// documentation, "Backup Manifest Format").
type manifest struct {
	Files []struct {
		Path    string
		Encoded string `json:"Encoded-Path"` // instead of Path, in hexadecimal digits, if the path is not UTF-8
		Size    int64
	}
	Ranges []struct {
		Timeline uint32
		Start    model.LSN `json:"Start-LSN"`
		End      model.LSN `json:"End-LSN"`
	} `json:"WAL-Ranges"`
}

// whole returns an error that names a part of the backup that was not restored, as far as that can be seen before the
// first start. It also fills in the end of the backup, if the manifest has it.
func (p Place) whole(b *reconcile.Backup) error {
	spaces, err := p.tablespaces()
	if err != nil {
		return err
	}
	text, err := readFile(filepath.Join(p.Data, "backup_manifest"))
	if os.IsNotExist(err) {
		return nil
	}
	var m manifest
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return fmt.Errorf("read backup_manifest: %w", err)
	}
	end := m.end(b)
	if end == 0 {
		return nil // the manifest of another backup
	}
	if b.End == 0 {
		b.End = end
	}
	return p.lacks(m, spaces)
}

// end is where a backup ends; 0 if the manifest is that of another backup.
func (m manifest) end(b *reconcile.Backup) model.LSN {
	var begins bool
	var end model.LSN
	for _, r := range m.Ranges { // one range for each timeline
		begins = begins || r.Timeline == b.Timeline && r.Start == b.Start
		end = max(end, r.End)
	}
	if !begins {
		return 0
	}
	return end
}

// stable are the folders with files that no server changes before it has WAL. So an earlier attempt to start the server
// has left them as they were.
var stable = []string{"base", "global", "pg_multixact", "pg_tblspc", "pg_xact"}

// lacks returns an error that names the first file of a manifest that is missing here, or has another size.
func (p Place) lacks(m manifest, spaces map[string]string) error {
	for _, file := range m.Files {
		path := file.Path
		if file.Encoded != "" {
			name, err := hex.DecodeString(file.Encoded)
			if err != nil {
				return fmt.Errorf("read backup_manifest: %w", err)
			}
			path = string(name)
		}
		folder, rest, _ := strings.Cut(path, "/")
		if !slices.Contains(stable, folder) {
			continue
		}
		full := filepath.Join(p.Data, path)
		if space, name, _ := strings.Cut(rest, "/"); folder == tablespaceLinks {
			full = filepath.Join(spaces[space], name)
		}
		info, err := os.Stat(full)
		if err == nil && info.Size() != file.Size {
			err = fmt.Errorf("it has %d bytes, not %d", info.Size(), file.Size)
		}
		if err != nil {
			return fmt.Errorf("the restore is not whole: %s, which backup_manifest names: %w", path, err)
		}
	}
	return nil
}

// tablespaceLinks is the folder of the links to the tablespaces.
const tablespaceLinks = "pg_tblspc"

// mapLine is a line of tablespace_map: a tablespace, and its folder, in which line breaks and backslashes are escaped
// (xlogrecovery.c, read_tablespace_map).
var mapLine = regexp.MustCompile(`(?m)^([0-9]+) ((?:[^\\\n]|\\[\s\S])+)$`)

var escaped = regexp.MustCompile(`\\([\s\S])`)

// tablespaces returns the folders of a backup's tablespaces, by their numbers: those that are linked to already, and
// those that PostgreSQL will link to. It returns an error if one of them is missing or empty.
func (p Place) tablespaces() (map[string]string, error) {
	spaces := map[string]string{}
	links, err := os.ReadDir(filepath.Join(p.Data, tablespaceLinks))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, link := range links {
		if link.Type()&fs.ModeSymlink == 0 {
			continue
		}
		if spaces[link.Name()], err = os.Readlink(filepath.Join(p.Data, tablespaceLinks, link.Name())); err != nil {
			return nil, err
		}
	}
	text, err := readFile(filepath.Join(p.Data, "tablespace_map"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, m := range mapLine.FindAllSubmatch(text, -1) {
		spaces[string(m[1])] = string(escaped.ReplaceAll(m[2], []byte("$1")))
	}
	for _, space := range slices.Sorted(maps.Keys(spaces)) {
		folder := spaces[space]
		entries, err := os.ReadDir(folder)
		if err == nil {
			err = unix.Access(folder, unix.W_OK)
		}
		versioned := func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "PG_") }
		if err == nil && !slices.ContainsFunc(entries, versioned) {
			err = errors.New("nothing was restored there")
		}
		if err != nil {
			return nil, fmt.Errorf("the restore is not whole: the tablespace %s belongs in %s: %w", space, folder, err)
		}
	}
	return spaces, nil
}
