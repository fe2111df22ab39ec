package datadir

import (
	"os"
	"path/filepath"
)

// Lock is the agent's: while it is there, the agent does not start the server.
func (p Place) Lock() string { return filepath.Join(p.Tmp, "PGSQL.lock") }

// ours is what a lock has in it that pgrex has made. The agent's is empty: it makes one where it promotes.
const ours = "pgrex\n"

// MakeLock keeps the agent from starting the server. The agent's own lock is left as it is.
func (p Place) MakeLock() error {
	if info, err := os.Lstat(p.Lock()); err == nil && info.Mode().IsRegular() {
		return SyncFolder(p.Tmp)
	}
	return writeWhole(p.Lock(), ours)
}

// RemoveOwnLock takes MakeLock back, and leaves a lock that the agent has made since.
func (p Place) RemoveOwnLock() error {
	text, err := readFile(p.Lock())
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil || string(text) != ours:
		return err
	}
	return p.RemoveLock()
}

// RemoveLock lets the agent start the server.
func (p Place) RemoveLock() error { return RemoveFile(p.Lock()) }

// RemoveFile removes a file that may be gone already.
func RemoveFile(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
