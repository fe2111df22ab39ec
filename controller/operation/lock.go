package operation

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// alone makes sure that no other operation is under way here. The kernel forgets it when this process ends, however it does.
func (p place) alone() (*os.File, error) {
	f, err := os.Open(p.tmp)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another pgrex rejoin is under way here (%s is locked: %w)", p.tmp, err)
	}
	return f, nil
}

// lock is the agent's: while it is there, the agent does not start the server.
func (p place) lock() string { return filepath.Join(p.tmp, "PGSQL.lock") }

// makeLock keeps the agent from starting the server. It says whether the lock was there already.
func (p place) makeLock() (was bool, err error) {
	_, err = os.Stat(p.lock())
	return err == nil, writeWhole(p.lock(), "")
}

// removeLock lets the agent start the server.
func (p place) removeLock() error { return removeFile(p.lock()) }

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
