package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// The agent's defaults (ocf:heartbeat:pgsql), and where PostgreSQL puts its socket when nobody says otherwise: the
// distributions' place, then PostgreSQL's own.
const (
	defaultPort = 5432
	defaultUser = "postgres"
	// A kept connection to template1 would make CREATE DATABASE fail.
	defaultDatabase = "postgres"
)

var defaultSocketDirs = []string{"/run/postgresql", "/tmp"}

// targetOf finds the local server from the agent's parameters. What override sets wins.
func targetOf(clone model.Clone, override Target) (Target, error) {
	t := override
	if err := ambiguous(clone, override); err != nil {
		return Target{}, err
	}
	if t.SocketDir == "" {
		t.SocketDir = clone.Parameters["socketdir"]
	}
	if t.Port == 0 {
		port, err := portOf(clone)
		if err != nil {
			return Target{}, err
		}
		t.Port = port
	}
	if t.SocketDir == "" {
		t.SocketDir = findSocketDir(t.Port)
	}
	if t.DataDir == "" {
		t.DataDir = clone.DataFolder()
	}
	if t.User == "" {
		t.User = defaultUser
		if u := clone.Parameters["pgdba"]; u != "" {
			t.User = u
		}
	}
	if t.Database == "" {
		t.Database = defaultDatabase
	}
	return t, nil
}

// ambiguous returns an error if a rule sets a parameter that says where the server is, and nothing overrides it.
func ambiguous(clone model.Clone, override Target) error {
	for _, p := range []struct {
		name, flag string
		overridden bool
	}{
		{"pgdata", "pg-data", override.DataDir != ""},
		{"socketdir", "pg-socket-dir", override.SocketDir != ""},
		{"pgport", "pg-port", override.Port != 0},
		{"start_opt", "pg-port", override.Port != 0 || clone.Parameters["pgport"] != ""},
		{"pgdba", "pg-user", override.User != ""},
	} {
		if !p.overridden && slices.Contains(clone.Conditional, p.name) {
			return fmt.Errorf("%s is set by a rule, which pgrex does not evaluate: set it without a rule, or use --%s, which is a key of "+
				"the settings file, too", p.name, p.flag)
		}
	}
	return nil
}

// portOf reads pgport, or a -p in start_opt, which the agent hands to the server as it is.
func portOf(clone model.Clone) (uint16, error) {
	text := clone.Parameters["pgport"]
	if text == "" {
		words := strings.Fields(clone.Parameters["start_opt"])
		for i, w := range words {
			switch {
			case w == "-p" && i+1 < len(words):
				text = words[i+1]
			case strings.HasPrefix(w, "-p") && len(w) > 2:
				text = w[2:]
			}
		}
	}
	if text == "" {
		return defaultPort, nil
	}
	port, err := strconv.ParseUint(strings.Trim(text, `'"`), 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("the agent's port %q is no port number: put pgport right, or use --pg-port", text)
	}
	return uint16(port), nil
}

// findSocketDir is the first default folder with a socket of that port, or else the first.
func findSocketDir(port uint16) string {
	for _, dir := range defaultSocketDirs {
		if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port))); err == nil {
			return dir
		}
	}
	return defaultSocketDirs[0]
}
