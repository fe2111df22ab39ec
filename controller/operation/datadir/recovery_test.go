package datadir

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// scripted is a place whose postgres is a script. It prints a setting for -C, by the cases of a shell's case.
func scripted(t *testing.T, cases string) Place {
	t.Helper()
	p := Place{Data: t.TempDir(), Tmp: t.TempDir(), Bin: t.TempDir()}
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -C ] && name=$2; shift; done\ncase $name in\n" + cases +
		"\nrecovery_target_timeline) echo latest;;\nesac\n"
	must(t, os.WriteFile(filepath.Join(p.Bin, "postgres"), []byte(script), 0o700))
	must(t, os.WriteFile(filepath.Join(p.Bin, "pg_controldata"), []byte("#!/bin/sh\necho 'max_connections setting:              100'\n"), 0o700))
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
		"enough":           {cases: "max_connections) echo 100;;"},
		"too low":          {cases: "max_connections) echo 20;;", says: []string{"(max_connections = 20, but 100 is needed): raise", "to lower them, first start PostgreSQL once as a primary"}},
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

// Settings that are too low for the data here keep these from being started, and can be read nevertheless: data that come
// from the primary need what the primary has. In half rewound data, the files may be the primary's, and nothing is known.
func TestTooLow(t *testing.T) {
	t.Parallel()
	p := scripted(t, "max_connections) echo 20;;\nmax_wal_size) echo 64;;\ndata_directory) pwd;;\nmax_*) echo 10;;")
	shows := func(connections string) func(context.Context, string) (string, error) {
		return func(_ context.Context, name string) (string, error) {
			return map[string]string{"max_connections": connections}[name], nil
		}
	}
	var local reconcile.LocalData
	must(t, p.configured(t.Context(), Control{"max_connections setting": "100"}, &local))
	if local.Unconfigured != "" || local.WAL != 64<<20 || !strings.Contains(local.TooLow, "lower than those recorded in its data (max_connections = 20, but 100 is needed)") {
		t.Errorf("too low for its data: %+v", local)
	}
	for needed, want := range map[string]string{"20": "", "21": "lower than the primary's (max_connections = 20, but 21 is needed)"} {
		if got, err := p.TooLow(t.Context(), shows(needed)); err != nil || (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("the primary has %s: %q, %v", needed, got, err)
		}
	}
	must(t, unix.Mkfifo(filepath.Join(p.Data, markPrefix+"aa"), 0o600))
	if got, err := p.TooLow(t.Context(), shows("21")); err != nil || got != "" || p.Rewinding() == NotBegun {
		t.Errorf("half rewound: %q, %v", got, err)
	}
}

// A target that postgresql.auto.conf alone has set is removed. One in another file is overridden. Nothing else is set: it
// would override the target of a later restore.
func TestFollowResets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ auto, other, want string }{
		"none":         {auto: "work_mem = '8MB'\n", want: "work_mem = '8MB'\n"},
		"by a restore": {auto: "recovery_target_time = '2020'\nwork_mem = '8MB'\n", want: "work_mem = '8MB'\n"},
		"by hand":      {auto: "work_mem = '8MB'\n", other: "2020", want: "work_mem = '8MB'\nrecovery_target_time = ''\n"},
		"by both":      {auto: "recovery_target_time = '2021'\nwork_mem = '8MB'\n", other: "2020", want: "work_mem = '8MB'\nrecovery_target_time = ''\n"},
		"reset before": {auto: "recovery_target_time = ''\n", other: "2020", want: "recovery_target_time = ''\n"},
	} {
		p := scripted(t, `recovery_target_time) { echo "recovery_target_time = '`+test.other+`'"; cat postgresql.auto.conf; } |
			sed -n "s/^$name = '\(.*\)'$/\1/p" | tail -n 1;;`)
		must(t, os.WriteFile(filepath.Join(p.Data, autoConf), []byte(test.auto), 0o600))
		for range 2 { // as after a kill
			must(t, p.Follow(t.Context(), false))
		}
		if text, err := os.ReadFile(filepath.Join(p.Data, autoConf)); err != nil || string(text) != test.want {
			t.Errorf("%s: %q, %v", name, text, err)
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
// only the data's owner may list. Root can paste it, whatever the names are. Once it is done, nothing speaks against the
// backup, and this host's own files are still there.
func TestRestoredOver(t *testing.T) {
	t.Parallel()
	for _, with := range []string{"mark", "journal", "both"} {
		base := filepath.Join(t.TempDir(), "it's; touch x")
		p := Place{Data: filepath.Join(base, "data")}
		must(t, os.MkdirAll(p.Data, 0o700))
		own := p.Marker() + "/postgresql.conf"
		if with != "journal" {
			for _, mark := range []string{markPrefix + "aa", markPrefix + "x; touch PWNED", markPrefix + "$(touch PWNED)"} {
				must(t, unix.Mkfifo(filepath.Join(p.Data, mark), 0o600))
			}
		}
		if with != "mark" {
			p.make(t, own)
		}
		if err := p.RestoredOver(); err != nil {
			t.Errorf("%s, without a backup: %v", with, err)
		}
		must(t, os.WriteFile(filepath.Join(p.Data, backupLabel), []byte("BACKUP METHOD: streamed\n"), 0o600))
		err := p.RestoredOver()
		if err == nil {
			t.Fatalf("%s: nothing is said", with)
		}
		typed := typedIn(err.Error())
		if want := map[string]int{"mark": 1, "journal": 1, "both": 2}[with]; len(typed) != want {
			t.Errorf("%s: %q is to be typed, by %v", with, typed, err)
		}
		for _, command := range typed {
			shell := exec.CommandContext(t.Context(), "sh", "-ec", "sudo() { \"$@\"; }; "+command)
			shell.Dir = p.Data
			if out, err := shell.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
		if err := p.RestoredOver(); err != nil || p.Rewinding() != NotBegun {
			t.Errorf("%s, once it is done: %v", with, err)
		}
		if names := entries(t, p.Data); !slices.Equal(names, []string{backupLabel}) {
			t.Errorf("%s: there is %q", with, names)
		}
		if kept := there(p.Marker() + ".old/postgresql.conf"); with != "mark" && len(kept) == 0 {
			t.Errorf("%s: this host's own files are gone", with)
		}
	}
}

// typedIn are the commands of a text that says what to type.
func typedIn(text string) (commands []string) {
	for _, part := range strings.Split(text, "type sudo ")[1:] {
		command, _, _ := strings.Cut(part, "; type ")
		command, _, _ = strings.Cut(command, ", and keep")
		commands = append(commands, "sudo "+strings.TrimSuffix(command, "; "))
	}
	return commands
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

// Any commit may be the last: most change no catalog, and then nothing follows their time.
func TestLastCommit(t *testing.T) {
	server := pgserver.New(t)
	server.SQL("CREATE TABLE t (i int)")
	first := lsnOf(t, server.SQL("SELECT pg_current_wal_flush_lsn()"))
	server.SQL("INSERT INTO t VALUES (1)")
	last := lsnOf(t, server.SQL("SELECT pg_current_wal_flush_lsn()"))
	server.Stop("immediate")
	p := placeOf(t, server)
	c, err := p.Control(t.Context())
	must(t, err)
	local, err := p.WAL(t.Context(), c)
	must(t, err)
	created, inserted := p.LastCommit(t.Context(), local, first), p.LastCommit(t.Context(), local, last)
	if created == "" || inserted <= created {
		t.Errorf("the table was made at %q, the row at %q", created, inserted)
	}
	for text, want := range map[string]string{
		"desc: COMMIT 2026-11-30 16:23:10.124060 UTC\n":                       "2026-11-30 16:23:10.124060 UTC",
		"desc: COMMIT 2026-11-30 16:23:10.124060 UTC; inval msgs: catcache 1": "2026-11-30 16:23:10.124060 UTC",
		"desc: COMMIT_PREPARED 731: 2026-11-30 16:23:10.124060 CET\n":         "2026-11-30 16:23:10.124060 CET",
		"desc: PREPARE gid x: 2026-11-30 16:23:10.124060 CET\n":               "",
	} {
		if got := append(commitRecord.FindStringSubmatch(text), "", "")[1]; got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
