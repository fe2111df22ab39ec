package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// scripted is a place whose postgres is a script. It prints a setting for -C, by the cases of a shell's case.
func scripted(t *testing.T, cases string) Place {
	t.Helper()
	p := Place{Data: t.TempDir(), Tmp: t.TempDir(), Bin: t.TempDir()}
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -C ] && name=$2; shift; done\ncase $name in\n" + cases +
		"\nrecovery_target_timeline) echo latest;;\nesac\n"
	must(t, os.WriteFile(filepath.Join(p.Bin, "postgres"), []byte(script), 0o700))
	must(t, os.WriteFile(p.config(), nil, 0o600)) // without it, no setting can be read
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

// Trap 40: nothing that a restore has left may go before the recovery has ended.
func TestTrap40Recovered(t *testing.T) {
	t.Parallel()
	const target, timeline = "recovery_target_time) echo 2020;;", "recovery_target_timeline) echo current;;"
	for name, test := range map[string]struct {
		cases, state string
		signal, ok   bool
	}{
		"nothing":                     {state: "shut down in recovery", ok: true},
		"a signal":                    {state: "in archive recovery", signal: true},
		"a signal, not begun":         {state: "shut down", signal: true},
		"paused at its target":        {cases: target, state: "shut down in recovery", signal: true},
		"paused at its target before": {cases: target, state: "shut down in recovery"},
		"ended":                       {cases: target, state: "shut down", ok: true},
		"ended, and crashed":          {cases: target, state: "in production", ok: true},
		"stays on its timeline":       {cases: timeline, state: "shut down in recovery", ok: true},
	} {
		p := scripted(t, test.cases)
		if test.signal {
			must(t, os.WriteFile(filepath.Join(p.Data, recoverySignal), nil, 0o600))
		}
		err := p.Recovered(t.Context(), Control{"Database cluster state": test.state})
		switch {
		case (err == nil) != test.ok:
			t.Errorf("%s: %v", name, err)
		case err != nil && (!strings.Contains(err.Error(), "pg_ctl stop -m fast") || strings.Contains(err.Error(), "rm ") ||
			strings.Contains(err.Error(), "ALTER SYSTEM")):
			t.Errorf("%s: it says %v", name, err)
		}
	}
}

// A backup that was restored over half rewound data: what has to go is named whole, the marks in the data, too, which
// only the data's owner may list. Once it is gone, nothing speaks against the backup.
func TestRestoredOver(t *testing.T) {
	t.Parallel()
	for _, with := range []string{"mark", "journal", "both"} {
		base := t.TempDir()
		p := Place{Data: filepath.Join(base, "data")}
		must(t, os.Mkdir(p.Data, 0o700))
		var left []string
		if with != "journal" {
			left = append(left, filepath.Join(p.Data, markPrefix+"aa"), filepath.Join(p.Data, markPrefix+"bb"))
			for _, mark := range left {
				must(t, unix.Mkfifo(mark, 0o600))
			}
		}
		if with != "mark" {
			left = append(left, p.Marker())
			must(t, os.Mkdir(p.Marker(), 0o700))
		}
		if err := p.RestoredOver(); err != nil {
			t.Errorf("%s, without a backup: %v", with, err)
		}
		must(t, os.WriteFile(filepath.Join(p.Data, backupLabel), []byte("BACKUP METHOD: streamed\n"), 0o600))
		err := p.RestoredOver()
		if err == nil || !strings.HasSuffix(err.Error(), "type sudo rm -r "+strings.Join(left, " ")) {
			t.Errorf("%s: %v", with, err)
		}
		for _, path := range left {
			must(t, os.RemoveAll(path))
		}
		if err := p.RestoredOver(); err != nil || p.Rewinding() != NotBegun {
			t.Errorf("%s, once it is gone: %v", with, err)
		}
	}
}

// A pg_waldump that hangs is not waited for long, and what it has printed by then is not taken for the last commit.
func TestLastCommitInTime(t *testing.T) {
	t.Parallel()
	p := scripted(t, "")
	local := reconcile.LocalData{Timelines: []model.Timeline{{ID: 1}}, Segment: 16 << 20}
	for script, want := range map[string]string{
		"":              "2026-01-02 03:04:05.6 UTC",
		"exec sleep 60": "",
	} {
		text := "#!/bin/sh\necho 'desc: COMMIT 2026-01-02 03:04:05.6 UTC; '\n" + script + "\n"
		must(t, os.WriteFile(filepath.Join(p.Bin, "pg_waldump"), []byte(text), 0o700))
		begin := time.Now()
		if got := p.LastCommit(t.Context(), local, 0x5000100); got != want || time.Since(begin) > 3*commitPatience {
			t.Errorf("%q: %q after %s", script, got, time.Since(begin))
		}
	}
}
