package datadir

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Alone makes sure that no other operation is under way here. The kernel forgets it when this process ends, however it does.
func (p Place) Alone() (*os.File, error) {
	f, err := os.Open(p.Tmp)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another pgrex rejoin is under way here (%s is locked: %w)", p.Tmp, err)
	}
	return f, nil
}

// Lock is the agent's: while it is there, the agent does not start the server.
func (p Place) Lock() string { return filepath.Join(p.Tmp, "PGSQL.lock") }

// MakeLock keeps the agent from starting the server. It says whether the lock was there already.
func (p Place) MakeLock() (was bool, err error) {
	_, err = os.Stat(p.Lock())
	return err == nil, writeWhole(p.Lock(), "")
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
