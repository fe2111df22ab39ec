package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// fileLogs are the logs that a host's programs write to files, by the names that Log takes.
var fileLogs = map[string]string{
	"postgresql": "/var/log/postgresql/postgresql.log",
	"pacemaker":  "/var/log/pacemaker/pacemaker.log",
	"corosync":   "/var/log/corosync/corosync.log",
}

// LogNames are the names of a host's logs in files. Everything else is in the journal.
var LogNames = []string{"console", "corosync", "pacemaker", "postgresql"}

// LogPath is where one of a host's logs in files lies on the machine: console (what was said before systemd ran),
// corosync, pacemaker or postgresql.
func (l *Lab) LogPath(host, name string) (string, error) {
	index, err := l.config.index(host)
	if err != nil {
		return "", err
	}
	dir := hostDir(l.dir, index)
	if name == "console" {
		return filepath.Join(dir, consoleName), nil
	}
	path, ok := fileLogs[name]
	if !ok {
		return "", fmt.Errorf("%q has no log file: units log to the journal", name)
	}
	return filepath.Join(dir, upperName, path), nil
}

// Log is what one of a host's logs in files holds.
func (l *Lab) Log(host, name string) (string, error) {
	path, err := l.LogPath(host, name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.@_-]*$`)

// Journal is what a unit of a host has said since a moment; "" is every unit, the zero time the beginning. It can be
// read without power, too. Options are journalctl's.
func (l *Lab) Journal(ctx context.Context, host, unit string, since time.Time, options ...string) (string, error) {
	index, err := l.config.index(host)
	if err != nil {
		return "", err
	}
	argv := append([]string{"journalctl", "--no-pager", "--quiet"}, options...)
	if unit != "" {
		if !unitName.MatchString(unit) {
			return "", fmt.Errorf("%q is not a unit name", unit)
		}
		argv = append(argv, "--unit", unit)
	}
	if !since.IsZero() {
		argv = append(argv, "--since", fmt.Sprintf("@%d.%06d", since.Unix(), since.Nanosecond()/1000))
	}
	state, err := l.state(ctx, host)
	if err != nil {
		return "", err
	}
	if state.Ready {
		return l.Exec(ctx, host, argv...)
	}
	dir := filepath.Join(hostDir(l.dir, index), upperName, "var/log/journal")
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return runGroup(ctx, nil, baseEnv, append(argv, "--directory", dir))
}
