package datadir

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// listed is a file of a backup in backup_manifest (PostgreSQL documentation, "Backup Manifest Format").
type listed struct {
	Path    string
	Encoded string `json:"Encoded-Path"` // instead of Path, in hexadecimal digits, if the path is not UTF-8
	Size    int64
}

// walRange is the WAL that a backup needs of one timeline.
type walRange struct {
	Timeline uint32
	Start    model.LSN `json:"Start-LSN"`
	End      model.LSN `json:"End-LSN"`
}

// whole returns an error that names a part of the backup that was not restored, as far as that can be seen before the
// first start. It also fills in the end of the backup, if the manifest has it.
func (p Place) whole(ctx context.Context, b *reconcile.Backup) error {
	spaces, err := p.restoredSpaces()
	if err != nil {
		return err
	}
	f, err := openFile(filepath.Join(p.Data, "backup_manifest"))
	if os.IsNotExist(err) {
		return nil
	}
	var lacks error
	var ranges []walRange
	if err == nil {
		defer func() { _ = f.Close() }() // only read
		ranges, err = readManifest(ctx, f, func(file listed) {
			p.count()
			if lacks == nil {
				lacks = p.lacks(file, spaces)
			}
		})
	}
	if err != nil {
		return fmt.Errorf("read backup_manifest: %w", err)
	}
	end := endOf(ranges, b)
	if end == 0 {
		return nil // the manifest of another backup
	}
	if b.End == 0 {
		b.End = end
	}
	return lacks
}

// readManifest reads a manifest, and calls see for each of its files, of which there may be a million.
func readManifest(ctx context.Context, r io.Reader, see func(listed)) (ranges []walRange, err error) {
	d := json.NewDecoder(r)
	_, err = d.Token() // "{"
	for err == nil && d.More() {
		var name json.Token
		if name, err = d.Token(); err != nil {
			break
		}
		switch name {
		case "Files":
			err = readFiles(ctx, d, see)
		case "WAL-Ranges": // they come after the files
			err = d.Decode(&ranges)
		default:
			err = d.Decode(new(json.RawMessage))
		}
	}
	if err == nil {
		_, err = d.Token() // "}"
	}
	return ranges, err
}

func readFiles(ctx context.Context, d *json.Decoder, see func(listed)) error {
	_, err := d.Token() // "["
	for err == nil && d.More() {
		var file listed
		if err = d.Decode(&file); err == nil {
			see(file)
			err = context.Cause(ctx)
		}
	}
	if err == nil {
		_, err = d.Token() // "]"
	}
	return err
}

// endOf is where a backup ends; 0 if the manifest is that of another backup.
func endOf(ranges []walRange, b *reconcile.Backup) model.LSN {
	var begins bool
	var end model.LSN
	for _, r := range ranges {
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

// lacks returns an error if a file of a manifest is missing here, or has another size.
func (p Place) lacks(file listed, spaces map[uint32]string) error {
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
		return nil
	}
	full := filepath.Join(p.Data, path)
	if space, name, _ := strings.Cut(rest, "/"); folder == tablespaceLinks {
		if oid, err := strconv.ParseUint(space, 10, 32); err == nil && spaces[uint32(oid)] != "" {
			full = filepath.Join(spaces[uint32(oid)], name)
		}
	}
	info, err := os.Stat(full)
	if err == nil && info.Size() != file.Size {
		err = fmt.Errorf("it has %d bytes, not %d", info.Size(), file.Size)
	}
	if err != nil {
		return fmt.Errorf("the restore is not whole: %s, which backup_manifest names: %w", path, err)
	}
	return nil
}

// restoredSpaces returns the folders of a backup's tablespaces, by their numbers, and an error if one of them is missing
// or empty.
func (p Place) restoredSpaces() (map[uint32]string, error) {
	spaces, err := p.Linked()
	if err != nil {
		return nil, err
	}
	for _, oid := range slices.Sorted(maps.Keys(spaces)) {
		folder := spaces[oid]
		_, err := os.ReadDir(folder)
		if err == nil {
			err = unix.Access(folder, unix.W_OK)
		}
		if err == nil && len(versions(folder, p.major())) == 0 {
			err = errors.New("nothing was restored there")
		}
		if err != nil {
			return nil, fmt.Errorf("the restore is not whole: the tablespace %d belongs in %s: %w", oid, folder, err)
		}
	}
	return spaces, nil
}
