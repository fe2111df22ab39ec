package testenv

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// makeDir makes a folder with an owner and a mode, whatever the umask.
func makeDir(path, owner, group string, mode os.FileMode) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := chown(path, owner, group); err != nil {
		return err
	}
	perm := mode.Perm()
	if mode&0o2000 != 0 {
		perm |= os.ModeSetgid
	}
	return os.Chmod(path, perm)
}

// writeFile writes a file with an owner and a mode, whatever the umask.
func writeFile(path, text, owner, group string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if err := chown(path, owner, group); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func chown(path, owner, group string) error {
	uid, err := userID(owner)
	if err != nil {
		return err
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	return os.Chown(path, uid, gid)
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return 0, fmt.Errorf("user %s: %w", name, err)
	}
	return uid, nil
}
