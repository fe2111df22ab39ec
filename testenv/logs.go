package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ServiceLog is what a service has written so far on a host; "" when nothing.
func (l *Lab) ServiceLog(host, name string) string {
	text, err := l.Log(host, name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return text
}

// Log is the content of one of a host's logs: postgresql, pacemaker, corosync, console (its PID 1), or a service's name.
func (l *Lab) Log(host, name string) (string, error) {
	path, err := l.LogPath(host, name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// LogPath is where a log of a host lies on the machine.
func (l *Lab) LogPath(host, name string) (string, error) {
	index, err := l.config.index(host)
	if err != nil {
		return "", err
	}
	dir := hostDir(l.dir, index)
	switch name {
	case "postgresql", "pacemaker", "corosync":
		return filepath.Join(dir, "log", name, name+".log"), nil
	case "console":
		return filepath.Join(dir, "console.log"), nil
	}
	if !serviceName.MatchString(name) {
		return "", fmt.Errorf("no log %q", name)
	}
	return filepath.Join(dir, strings.Replace(logPath(name), "/var/log", "log", 1)), nil
}

// Logs are the names of a host's logs that exist, the host's own first.
func (l *Lab) Logs(host string) ([]string, error) {
	var names []string
	for _, name := range reservedNames {
		path, err := l.LogPath(host, name)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err == nil {
			names = append(names, name)
		}
	}
	services, err := filepath.Glob(filepath.Join(l.HostDir(host), "log", "rexlab", "*.log"))
	for _, path := range services {
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".log"))
	}
	return names, err
}
