package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v3"

	"github.com/pgrex/pgrex/cmd/manual"
)

// runnable are the commands that a user sees and that do something.
func runnable(cmd *cobra.Command) (all []*cobra.Command) {
	for _, c := range cmd.Commands() {
		all = append(all, runnable(c)...)
	}
	if cmd.IsAvailableCommand() && !cmd.HasSubCommands() {
		all = append(all, cmd)
	}
	return all
}

// TestExamples: the examples of every command's help are calls that the command takes.
func TestExamples(t *testing.T) {
	commands := runnable(rootCommand())
	if len(commands) < 10 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, cmd := range commands {
		found := false
		for _, call := range regexp.MustCompile(`pgrex( [^|&\n]+)`).FindAllStringSubmatch(cmd.Example, -1) {
			of, arguments, err := rootCommand().Find(strings.Fields(call[1]))
			if err == nil {
				err = of.ParseFlags(arguments)
			}
			if err == nil {
				err = of.ValidateArgs(of.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: its example%s: %v", cmd.CommandPath(), call[1], err)
			}
			found = found || of.CommandPath() == cmd.CommandPath()
		}
		if !found {
			t.Errorf("%s: its help has no example of it", cmd.CommandPath())
		}
	}
}

// TestManual: each command has its page with exit statuses and examples, and each setting its place in pgrex.yaml(5).
func TestManual(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", "1785000000")
	root := rootCommand()
	commands := runnable(root) // without those that cobra adds when it runs
	root.SetArgs([]string{"manual", folder})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands {
		page, err := os.ReadFile(filepath.Join(folder, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{`"2026-07-25"`, ".SH EXIT STATUS", "64 wrong usage", ".SH EXAMPLES"} {
			if !bytes.Contains(page, []byte(want)) {
				t.Errorf("the page of %s has no %q:\n%s", cmd.CommandPath(), want, page)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !bytes.Contains(page, []byte(`\-\-`+strings.ReplaceAll(f.Name, "-", `\-`))) {
				t.Errorf("the page of %s does not have --%s", cmd.CommandPath(), f.Name)
			}
		})
	}
	settings, err := os.ReadFile(filepath.Join(folder, "pgrex.yaml.5"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range settingsFlags() {
		if !bytes.Contains(settings, []byte(strings.ReplaceAll(f.Name, "-", `\-`)+`\fP: `)) {
			t.Errorf("pgrex.yaml(5) does not have %s:\n%s", f.Name, settings)
		}
	}
}

// TestManualIncomplete: a command whose help tells no exit statuses gets no page.
func TestManualIncomplete(t *testing.T) {
	root := &cobra.Command{Use: "p"}
	root.AddCommand(&cobra.Command{Use: "c", Example: "p c", Run: func(*cobra.Command, []string) {}}, manual.Manual{}.Command())
	root.SetArgs([]string{"manual", t.TempDir()})
	root.SilenceErrors, root.SilenceUsage = true, true
	if err := root.Execute(); err == nil || !strings.Contains(err.Error(), "p c") {
		t.Errorf("it says %v", err)
	}
}

// TestPackagedSettings: /etc/pgrex/pgrex.yaml as it is packaged says nothing, and with every key taken out of its
// comment, just the defaults.
func TestPackagedSettings(t *testing.T) {
	packaged, err := os.ReadFile("../../hack/packaging/settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^#([a-z-]+:)`)
	for name, text := range map[string][]byte{"as it is": packaged, "with its keys": key.ReplaceAll(packaged, []byte("$1"))} {
		file := filepath.Join(t.TempDir(), "pgrex.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, want := newSettings(), newSettings()
		s.Config, want.Config = file, file
		if err := s.readFile(true); err != nil || !reflect.DeepEqual(s, want) {
			t.Errorf("%s it says %+v, %v, not %+v", name, s, err, want)
		}
	}
	keys := map[string]any{}
	if err := yaml.Unmarshal(key.ReplaceAll(packaged, []byte("$1")), &keys); err != nil {
		t.Fatal(err)
	}
	for _, f := range settingsFlags() {
		if _, ok := keys[f.Name]; !ok {
			t.Errorf("it does not have %s", f.Name)
		}
	}
}
