package datadir

import (
	"os"
	"path/filepath"
)

// Lock is the agent's: while it is there, the agent does not start the server.
func (p Place) Lock() string { return filepath.Join(p.Tmp, "PGSQL.lock") }

// MakeLock keeps the agent from starting the server.
func (p Place) MakeLock() error { return writeWhole(p.Lock(), "") }

// RemoveLock lets the agent start the server.
func (p Place) RemoveLock() error { return RemoveFile(p.Lock()) }

// RemoveFile removes a file that may be gone already.
func RemoveFile(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
