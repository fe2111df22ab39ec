package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeWhole replaces a file, so that whoever reads it finds the old text or the new one, also after a power cut.
func writeWhole(path, text string) error {
	temporary := path + ".pgrex-new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// SyncFolder makes sure that what was renamed or removed in a folder is so after a power cut, too.
func SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CopyFiles copies the node's own files, those that are there.
func CopyFiles(from, to string) error {
	for _, name := range NodeLocal {
		text, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = writeWhole(filepath.Join(to, name), string(text))
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}
