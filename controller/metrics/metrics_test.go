package metrics

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

var update = flag.Bool("update", false, "rewrite docs/metrics.md and the golden file")

func of[T any](value T) *T { return &value }

// full is a status of a primary that knows everything, with whatever Prometheus does not like.
func full() *controller.Status {
	at := time.Unix(1700000000, 0)
	host := func(c controller.Condition) controller.Condition { c.Since = at; return c }
	return &controller.Status{
		Version: "v1.2.3", Node: "pm01", Primitive: "pgsql", Started: at, Looked: at, Role: model.Primary,
		Members: []controller.Member{
			{Host: "pm01", Online: true, Role: model.RolePromoted},
			{Host: "pm02", Online: true, Role: model.RoleUnpromoted, LagBytes: of(uint64(1024)), LagSeconds: of(0.25), Streaming: of(true)},
			{Host: "pm03", LagBytes: of(uint64(300 << 20)), Streaming: of(false)},
		},
		Forecast: []model.Forecast{{Candidate: "pm01", Host: "pm02", Way: model.WayStream}, {Candidate: "pm02", Host: "pm01", Way: model.WayRewind}},
		Slots: []controller.SlotStatus{
			{Name: "pgrex_pm02", Member: "pm02", Active: true, Retained: 1024, WALStatus: "reserved", BudgetUsed: of(0.01)},
			{Name: "pgrex_pm03", Member: "pm03", Retained: 300 << 20, WALStatus: "extended", BudgetUsed: of(0.75), TimeLeft: of(100.0), XMinAge: of(uint32(7))},
			{Name: "pg_basebackup_4711", Temporary: true, Active: true, WALStatus: "reserved"},
		},
		WAL: controller.WALStatus{Budget: of(int64(400 << 20)), RateUsual: of(1048576.0), RatePeak: of(2097152.0),
			Size: of(uint64(2000 << 20)), Free: of(uint64(600 << 20)), WAL: of(uint64(364 << 20)), DiskTimeLeft: of(600.0)},
		AutoRejoin: &controller.AutoRejoinStatus{AutoRejoin: model.AutoRejoin{Tries: 2, Returns: []time.Time{at.Add(-time.Hour), at}}},
		Conditions: []controller.Condition{
			host(controller.Condition{Finding: model.Finding{Code: model.CodeNotAttached, Severity: model.Warning, Subject: "pm03"}}),
			host(controller.Condition{Finding: model.Finding{Code: model.CodeBudgetNearlySpent, Severity: model.Warning, Subject: "pm03"}}),
			host(controller.Condition{Finding: model.Finding{Code: model.CodeForeignSlot, Severity: model.Info, Subject: "pg_1_sync_1_1"}}),
			host(controller.Condition{Finding: model.Finding{Code: model.CodeForeignSlot, Severity: model.Info, Subject: "pg_1_sync_2_1"}}),
			host(controller.Condition{Finding: model.Finding{Code: model.CodeUnknownMember, Severity: model.Warning, Subject: "a \"b\"\\\n\xff"}}),
			host(controller.Condition{Finding: model.Finding{Code: model.CodeOperationUnfinished, Severity: model.Critical, Subject: "pm02"}}),
		},
		Planned: []string{"CreateSlot slot x for y"},
		Looks: []controller.LookStatus{{Source: controller.SourceCIB, Last: &at, Errors: 1, Count: 3, Seconds: 0.5,
			Buckets: []controller.Bucket{{AtMost: 0.1, Count: 1}, {AtMost: 0.5, Count: 3}}}, {Source: controller.SourcePrimary}},
		Steps:     []controller.StepCount{{Kind: "CreateSlot", Done: 4, Failed: 1}, {Kind: "DropSlot"}},
		CrashHint: controller.CrashHintStatus{Given: 2},
	}
}

// TestDocument holds docs/metrics.md against the table of the metrics.
func TestDocument(t *testing.T) { golden(t, "../../docs/metrics.md", []byte(Document())) }

// TestText holds all the metrics of a full status.
func TestText(t *testing.T) {
	text, err := Text(full(), "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/full.prom", text)
	for _, f := range append(families, up) {
		if !strings.Contains(string(text), "\n# TYPE "+f.name+" ") && !strings.HasPrefix(string(text), "# TYPE "+f.name+" ") {
			t.Errorf("%s has no sample in a full status", f.name)
		}
	}
	for _, other := range []string{"pg_basebackup_4711", "pg_1_sync"} {
		if strings.Contains(string(text), other) {
			t.Errorf("%s, which never comes again, is a label", other)
		}
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (rewrite it with -update):\n%s", path, diff)
	}
}

// TestLint: names, units and help are as Prometheus' conventions have them.
func TestLint(t *testing.T) {
	for _, database := range []string{"", "crm"} {
		problems, err := testutil.GatherAndLint(gatherer(full(), database))
		if err != nil || len(problems) > 0 {
			t.Errorf("%v: %v", problems, err)
		}
	}
}

// TestUnknown: what is not known has no sample, and without a daemon there is but one.
func TestUnknown(t *testing.T) {
	text, err := Text(nil, "")
	if err != nil || string(text) != "# HELP pgrex_up Whether the daemon on this host has answered.\n# TYPE pgrex_up gauge\npgrex_up 0\n" {
		t.Errorf("without a daemon: %v\n%s", err, text)
	}
	status := &controller.Status{Role: model.InTransition, DryRun: true, Slots: []controller.SlotStatus{{Name: "s"}}, Members: []controller.Member{{Host: "pm01"}}}
	text, err = Text(status, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pgrex_up 1\n", `pgrex_role{role="in_transition"} 1`, `pgrex_role{role="primary"} 0`, `pgrex_mode{mode="dry_run"} 1`,
		`pgrex_slot_wal_status{member="",slot="s",status="lost"} 0`, `pgrex_member_online{member="pm01"} 0`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	for _, unknown := range []string{"pgrex_wal_", "_lag_", "streaming", "time_left", "used_ratio", "xmin", "auto_rejoin", "last_look", "condition_start"} {
		if strings.Contains(string(text), unknown) {
			t.Errorf("%s is not known, but is in\n%s", unknown, text)
		}
	}
}

// TestModes: a dry run is one, paused or not; no limit is infinite.
func TestModes(t *testing.T) {
	paused := []controller.Condition{{Finding: model.Finding{Code: model.CodePaused, Severity: model.Info}}}
	for want, s := range map[string]controller.Status{
		`pgrex_mode{mode="active"} 1`:  {},
		`pgrex_mode{mode="paused"} 1`:  {Conditions: paused},
		`pgrex_mode{mode="dry_run"} 1`: {Conditions: paused, DryRun: true},
		"pgrex_wal_budget_bytes +Inf":  {WAL: controller.WALStatus{Budget: of(int64(model.Unlimited))}},
		"pgrex_wal_budget_bytes 0":     {WAL: controller.WALStatus{Budget: of(int64(0))}},
	} {
		text, err := Text(&s, "")
		if err != nil || !strings.Contains(string(text), want+"\n") {
			t.Errorf("there is no %s in\n%s%v", want, text, err)
		}
	}
}

// TestDatabase: where a host has several databases, all that is said of one has its name.
func TestDatabase(t *testing.T) {
	for _, status := range []*controller.Status{nil, full()} {
		text, err := Text(status, "crm")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") && !strings.Contains(line, `database="crm"`) {
				t.Errorf("without its database: %s", line)
			}
		}
	}
}

// TestWriteFile: the file is replaced in one step, and for everybody to read.
func TestWriteFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pgrex.prom")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	if err := WriteFile(path, full(), "crm"); err != nil {
		t.Fatal(err)
	}
	want, err := Text(full(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
		t.Errorf("the file has %q, %v", got, err)
	}
	if was, err := io.ReadAll(old); err != nil || string(was) != "old" {
		t.Errorf("who has the old file open reads %q, %v: it was written over", was, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	missing := filepath.Join(folder, "missing", "pgrex.prom")
	if err := WriteFile(missing, nil, ""); err == nil || !strings.Contains(err.Error(), missing) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// BenchmarkText: a scrape takes at most 5 ms.
func BenchmarkText(b *testing.B) {
	status := full()
	for i := range 9 {
		for j := range 9 {
			status.Forecast = append(status.Forecast, model.Forecast{Candidate: fmt.Sprint(i), Host: fmt.Sprint(j), Way: model.WayCopy})
		}
	}
	for b.Loop() {
		if _, err := Text(status, ""); err != nil {
			b.Fatal(err)
		}
	}
}
