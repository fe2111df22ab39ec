package testenv

import (
	"cmp"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigIsChecked(t *testing.T) {
	long := strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		config Config
		says   string // "" for a good one
	}{
		"defaults":            {Config{}, ""},
		"odd names":           {Config{Hosts: []string{"DB-1.rex", "db-1", "db.1", long}}, ""},
		"slots":               {Config{Slots: "rex_1", RepMode: "async"}, ""},
		"one host":            {Config{Hosts: []string{"a"}}, "2 to 16 hosts"},
		"same but for case":   {Config{Hosts: []string{"a", "A"}}, "two hosts"},
		"65 characters":       {Config{Hosts: []string{"a", long + "x"}}, "no host name"},
		"a path":              {Config{Hosts: []string{"a", "../b"}}, "no host name"},
		"blank":               {Config{Hosts: []string{"a", "b c"}}, "no host name"},
		"slots in capitals":   {Config{Slots: "Rex"}, "replication_slot_name"},
		"WAL elsewhere":       {Config{WALBytes: 512 << 20}, ""},
		"no room for WAL":     {Config{WALBytes: 1 << 20}, "file system for WAL"},
		"another system":      {Config{System: "debian12", Layout: LayoutDebian}, ""},
		"no such system":      {Config{System: "debian11"}, "the lab knows debian13, debian12, sid"},
		"no such layout":      {Config{Layout: "redhat"}, "layout"},
		"a monitor too often": {Config{Monitor: 500 * time.Millisecond}, "whole seconds"},
		"rep_mode":            {Config{RepMode: "slave"}, "rep_mode"},
		"a setting's name":    {Config{PostgreSQL: map[string]string{"a b": "1"}}, "setting"},
		"two settings in one": {Config{PostgreSQL: map[string]string{"port": "1'\ninclude 'x"}}, "setting"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.config.complete()
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("error %v, want one with %q", err, c.says)
			}
		})
	}
}

// TestCIBIsValid has each release's Pacemaker judge the configuration of labs of all kinds. Debian sid's judges it only
// where a story is told: its root is there in --long only.
func TestCIBIsValid(t *testing.T) {
	tools := map[string]string{
		"debian12": "/usr/sbin/crm_verify",
		"debian13": filepath.Join(cmp.Or(os.Getenv("PGREX_PACEMAKER_TOOLS"), "/var/cache/pgrex-test/debian13-tools"), "crm_verify"),
	}
	for name, c := range map[string]Config{
		"three hosts":     {},
		"debian12":        {System: "debian12"},
		"debian's layout": {Layout: LayoutDebian, Monitor: 3 * time.Second},
		"two hosts":       {Hosts: []string{"a", "b"}},
		"agent's slots":   {Slots: "rex", RepMode: "async"},
		"without fencing": {NoFencing: true, Properties: map[string]string{"no-quorum-policy": "ignore", "note": `"<&>"`}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := c.complete()
			if err != nil {
				t.Fatal(err)
			}
			text := c.cib()
			path := filepath.Join(t.TempDir(), "cib.xml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), tools[c.System], "--verbose", "--xml-file", path).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if has := strings.Contains(text, "replication_slot_name"); has != (c.Slots != "") {
				t.Errorf("replication_slot_name is set: %v", has)
			}
			if has := strings.Contains(text, "fence_rexlab"); has == c.NoFencing {
				t.Errorf("there is a fence device: %v", has)
			}
		})
	}
}

// TestSettings: what is asked for wins, and a quote stays within its value.
func TestSettings(t *testing.T) {
	conf := Config{PostgreSQL: map[string]string{"wal_keep_size": "64MB", "application_name": "it's"}}.postgresqlConf()
	for _, want := range []string{"wal_keep_size = '64MB'\n", "application_name = 'it''s'\n", "restart_after_crash = 'off'\n"} {
		if strings.Count(conf, want) != 1 {
			t.Errorf("not once %q in\n%s", want, conf)
		}
	}
}

// TestCRMAttributeWrapper: -v VALUE becomes --update=VALUE, and nothing else changes.
func TestCRMAttributeWrapper(t *testing.T) {
	dir := t.TempDir()
	echo, wrapper := filepath.Join(dir, "echo"), filepath.Join(dir, "crm_attribute")
	_, script, _ := strings.Cut(rootScript, "<<-'END'\n")
	script, _, found := strings.Cut(script, "\n\tEND\n")
	if !found || !strings.Contains(script, "crm_attribute.real") {
		t.Fatalf("root.sh has no wrapper: %s", script)
	}
	script = strings.Replace(strings.ReplaceAll("\n"+script, "\n\t\t", "\n")[1:], "/usr/sbin/crm_attribute.real", echo, 1)
	for path, text := range map[string]string{echo: "#!/bin/sh\nfor w; do echo \"[$w]\"; done\n", wrapper: script} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ in, want []string }{
		{[]string{"-p", "-v", "-INFINITY"}, []string{"-p", "--update=-INFINITY"}},
		{[]string{"-l", "forever", "-N", "a b", "-n", "x", "-v", "STREAMING|SYNC"}, []string{"-l", "forever", "-N", "a b", "-n", "x", "--update=STREAMING|SYNC"}},
		{[]string{"-n", "x", "-G", "-q"}, []string{"-n", "x", "-G", "-q"}},
		{[]string{"-v", "", "-D"}, []string{"--update=", "-D"}},
		{nil, nil},
	} {
		out, err := exec.CommandContext(t.Context(), wrapper, c.in...).Output()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(out)) {
			got = append(got, strings.Trim(line, "[]\n"))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
	}
}

// TestFenceAgentAlone: the actions that need no lab, and the error where there is none.
func TestFenceAgentAlone(t *testing.T) {
	var out strings.Builder
	if status := fenceMain(strings.NewReader("action=metadata\n"), &out, io.Discard); status != 0 {
		t.Fatalf("metadata: status %d", status)
	}
	var agent struct {
		Actions []struct {
			Name string `xml:"name,attr"`
		} `xml:"actions>action"`
	}
	if err := xml.Unmarshal([]byte(out.String()), &agent); err != nil || len(agent.Actions) != 8 {
		t.Errorf("metadata: %v, %v", agent, err)
	}
	var errs strings.Builder
	if status := fenceMain(strings.NewReader("action=off\nnodename=a\n"), io.Discard, &errs); status != 1 || !strings.Contains(errs.String(), "off a") {
		t.Errorf("off without a lab: status %d, %q", status, errs.String())
	}
	if status := fenceMain(strings.NewReader("action=dance\n"), io.Discard, io.Discard); status != 1 {
		t.Errorf("an unknown action: status %d", status)
	}
}
