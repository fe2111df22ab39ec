package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main()
	os.Exit(m.Run())
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "8kB": 8 << 10, "320MB": 320 << 20, "320 MB": 320 << 20, "2GB": 2 << 30, "1GiB": 1 << 30, "1T": 1 << 40,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1MB", "1.5GB", "12 parsecs", "9999999999GB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d", text, got)
		}
	}
}

// runIn runs rexlab with a folder that holds no lab.
func runIn(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs(append([]string{"--dir", t.TempDir()}, arguments...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestUsage: a wrong call is told from a call that fails.
func TestUsage(t *testing.T) {
	var failed failure
	for _, wrong := range []string{
		"dance", "up pm01", "up --data much", "crash", "crash a b", "exec a", "sql a", "load a --wal x", "copy a --off", "put a b",
		"systems make debian11", "systems b", "up --monitor often",
	} {
		if _, err := runIn(t, strings.Fields(wrong)...); err == nil || errors.As(err, &failed) {
			t.Errorf("rexlab %s: %v is no error of usage", wrong, err)
		}
	}
	for _, fails := range []string{
		"status", "down", "crash a", "exec a -- true", "sql a x", "logs a", "rewind a", "put a b /c", "up --system debian11",
		"up --layout redhat", "up --monitor 10ms",
	} {
		if _, err := runIn(t, strings.Fields(fails)...); !errors.As(err, &failed) {
			t.Errorf("rexlab %s: %v is an error of usage", fails, err)
		}
	}
	if _, err := runIn(t, "up", "--hosts", "a,A"); !errors.As(err, &failed) || strings.Contains(printer.OneLine(err), "\n") {
		t.Errorf("two hosts of one name: %v", err)
	}
}

// TestHelp: every command says what it does, and its example, if it has one, shows a call.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		if cmd.Short == "" || cmd.HasSubCommands() && cmd.Example == "" {
			t.Errorf("%s has no help", cmd.CommandPath())
		}
		if cmd.Example != "" && !strings.Contains(cmd.Example, "rexlab") {
			t.Errorf("the example of %s shows no call", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			if c.GroupID == "" && c.Name() != "help" && !c.Hidden {
				t.Errorf("%s is in no group", c.CommandPath())
			}
			walk(c)
		}
	}
	walk(rootCommand())
	if out, err := runIn(t); err != nil || !strings.Contains(out, "rexlab up") {
		t.Errorf("without arguments: %q, %v", out, err)
	}
}

// TestManual: every command has its page.
func TestManual(t *testing.T) {
	folder := t.TempDir()
	if _, err := runIn(t, "manual", folder); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"rexlab.1", "rexlab-up.1", "rexlab-systems-make.1", "rexlab-crash.1"} {
		text, err := os.ReadFile(filepath.Join(folder, page))
		if err != nil || !strings.Contains(string(text), ".SH EXAMPLES") {
			t.Errorf("%s: %v: %s", page, err, text)
		}
	}
}

// TestPrintable: trap 44. A host's logs and what Pacemaker says there are text from outside.
func TestPrintable(t *testing.T) {
	const nasty = "a\x1b[31m\u009b\u0085\u202e"
	var out strings.Builder
	p := printer.To(&out)
	printLog(p, "journal", "x"+nasty+"\ny\n", true)
	printLog(p, "journal", "x"+nasty+"\n", false)
	if err := printStatus(p, testenv.Status{From: nasty, DC: nasty, Hosts: []testenv.HostStatus{{Role: nasty + "\nforged"}}}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || strings.Count(out.String(), "\n") != 7 {
		t.Errorf("%q", out.String())
	}
}
