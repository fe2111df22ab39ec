package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// loaded are the settings of a command line; the file is named pgsql.yaml.
func loaded(t *testing.T, file string, arguments ...string) (*settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgsql.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSettings()
	cmd := &cobra.Command{}
	s.observeFlags(cmd.Flags())
	s.daemonFlags(cmd.Flags())
	if err := cmd.ParseFlags(append(arguments, "--config", path)); err != nil {
		t.Fatal(err)
	}
	return s, s.load(cmd)
}

// An instance shares nothing with another one: resource, socket and state are its own.
func TestInstance(t *testing.T) {
	s, err := loaded(t, "", "--instance", "pgsql-2.b")
	if err != nil || s.Resource != "pgsql-2.b" || s.Socket != "/run/pgrex/pgsql-2.b/pgrex.sock" || s.StateDir != "/var/lib/pgrex/pgsql-2.b" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = loaded(t, "socket: /run/own.sock\n", "--instance", "pgsql", "--state-dir", "/tmp"); err != nil ||
		s.Socket != "/run/own.sock" || s.StateDir != "/tmp" {
		t.Errorf("what is set does not count: %+v, %v", s, err)
	}
	if s, err = loaded(t, "state-dir: /tmp\n"); err != nil || s.Resource != "" || s.Socket != "/run/pgrex/pgrex.sock" || s.StateDir != "/tmp" {
		t.Errorf("without an instance: %+v, %v", s, err)
	}
	if s := newSettings(); s.forInstance(false) != nil || s.Config != "/etc/pgrex/pgrex.yaml" {
		t.Errorf("the default settings are in %s", s.Config)
	}
	if s := (&settings{Instance: "crm"}); s.forInstance(false) != nil || s.Config != "/etc/pgrex/crm.yaml" {
		t.Errorf("the settings of crm are in %s", s.Config)
	}
	for name, wants := range map[string]string{"../etc": "id of the database's primitive", "a/b": "letters, digits", ".": "letters, digits"} {
		if _, err := loaded(t, "", "--instance", name); err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("--instance %s: %v", name, err)
		}
	}
	for _, err := range []error{second(loaded(t, "resource: crm\n", "--instance", "pgsql")), second(loaded(t, "", "--instance", "pgsql", "--resource", "crm"))} {
		if err == nil || !strings.Contains(err.Error(), "resource is crm") {
			t.Errorf("another database's resource: %v", err)
		}
	}
	for _, name := range []string{"pgrex", "pgrex.sock", "state.json"} {
		if _, err := loaded(t, "", "--instance", name); err == nil {
			t.Errorf("an instance %s would share files with the daemon that is none", name)
		}
	}
}

func second(_ *settings, err error) error { return err }
