package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scripted is a place whose postgres is a script. It prints a setting for -C, by the cases of a shell's case.
func scripted(t *testing.T, cases string) Place {
	t.Helper()
	p := Place{Data: t.TempDir(), Tmp: t.TempDir(), Bin: t.TempDir()}
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -C ] && name=$2; shift; done\ncase $name in\n" + cases +
		"\nrecovery_target_timeline) echo latest;;\nesac\n"
	must(t, os.WriteFile(filepath.Join(p.Bin, "postgres"), []byte(script), 0o700))
	return p
}

// Trap 40: what a restore has left is said with what to type.
func TestTrap40Follows(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cases string
		files []string
		says  []string
		not   string
	}{
		"nothing":          {files: []string{standbySignal}},
		"a signal":         {files: []string{recoverySignal}, says: []string{"(recovery.signal): type sudo rm "}, not: "ALTER SYSTEM"},
		"a target":         {cases: "recovery_target_time) echo 2020;;", says: []string{"(recovery_target_time = '2020')", "ALTER SYSTEM RESET"}, not: "sudo rm"},
		"another timeline": {cases: "recovery_target_timeline) echo current;;", says: []string{"recovery_target_timeline = 'current'"}},
		"both":             {cases: "recovery_target) echo immediate;;", files: []string{recoverySignal}, says: []string{"type sudo rm ", "; take those settings out"}},
	} {
		p := scripted(t, test.cases)
		for _, f := range test.files {
			must(t, os.WriteFile(filepath.Join(p.Data, f), nil, 0o600))
		}
		err := p.Follows(t.Context())
		if (err != nil) != (len(test.says) > 0) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range test.says {
			if !strings.Contains(err.Error(), want) || test.not != "" && strings.Contains(err.Error(), test.not) {
				t.Errorf("%s: it says %v", name, err)
			}
		}
	}
}
