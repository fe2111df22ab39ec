package reconcile_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

var update = flag.Bool("update", false, "rewrite the wanted plans of the scenarios")

// TestScenariosAreComplete: there is a scenario named after each rule of the design, and after each trap that a pure
// decision can meet.
func TestScenariosAreComplete(t *testing.T) {
	elsewhere := map[string]string{
		"trap-06": "the precondition in the statement: controller/postgres, TestTrap6PromotedBeforeReload and TestPromotedInBetween",
		"trap-24": "deadlines: controller/postgres, TestTrap24HangingServer",
		"trap-25": "any prefix of a plan: TestInvariants, and controller/postgres, TestTrap25AnswerLost",
		"trap-28": "pgrex enters no maintenance-mode",
		"trap-29": "two releases of Pacemaker judge: cib, TestTrap29SystemsAgree",
	}
	var names []string
	for n := range 8 {
		names = append(names, fmt.Sprintf("rule-%d", n+1))
	}
	for n := range 29 {
		names = append(names, fmt.Sprintf("trap-%02d", n+1))
	}
	names = append(names, "trap-36", "trap-46", "trap-48")
	aliases := map[string]string{"rule-6": "trap-26"} // rule 6 is what trap 26 asks for
	for _, name := range names {
		prefix := cmp.Or(aliases[name], name)
		found, err := filepath.Glob("testdata/" + prefix + "-*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := elsewhere[name]; ok == (len(found) > 0) {
			t.Errorf("%s has %d scenarios; held elsewhere: %q", name, len(found), elsewhere[name])
		}
	}
}

// TestScenarios plans each scenario, compares with the plan a person has read, and holds the result against what must
// be true of every plan.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := parseScenario(t, archive)
			got := planText(in)
			checkWant(t, file, archive, "want", got)
			if slices.ContainsFunc(archive.Files, func(f txtar.File) bool { return f.Name == "forecast" }) {
				checkWant(t, file, archive, "forecast", forecastText(in))
			}
			checkOrder(t, in, got)
			checkSnapshot(t, in, got)
			checkConverges(t, in)
		})
	}
}

func planText(in reconcile.Input) string {
	plan, err := reconcile.Plan(in)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return plan.String()
}

func forecastText(in reconcile.Input) string {
	plan, _ := reconcile.Plan(in) // planText has its error
	var text string
	for _, f := range plan.Forecast {
		text += fmt.Sprintf("%s: %s, because %s\n", f.Host, f.Way, f.Why)
	}
	return text
}

func checkWant(t *testing.T, file string, archive *txtar.Archive, name, got string) {
	t.Helper()
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == name })
	if i < 0 {
		archive.Files = append(archive.Files, txtar.File{Name: name})
		i = len(archive.Files) - 1
	}
	if *update {
		archive.Files[i].Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(string(archive.Files[i].Data), got); diff != "" {
		t.Errorf("the plan differs (-want +got):\n%s", diff)
	}
}

// checkOrder is I8: the order of nodes, slots, senders and clones never matters.
func checkOrder(t *testing.T, in reconcile.Input, want string) {
	t.Helper()
	if in.Cluster != nil {
		c := *in.Cluster
		c.Nodes, c.Clones = reversed(c.Nodes), reversed(c.Clones)
		in.Cluster = &c
	}
	in.Instance.Slots, in.Instance.Senders = reversed(in.Instance.Slots), reversed(in.Instance.Senders)
	if in.Upstream != nil {
		u := *in.Upstream
		u.Slots = reversed(u.Slots)
		in.Upstream = &u
	}
	if diff := gocmp.Diff(want, planText(in)); diff != "" {
		t.Errorf("I8: another order of the input gives another plan (-want +got):\n%s", diff)
	}
}

func reversed[T any](s []T) []T {
	r := slices.Clone(s)
	slices.Reverse(r)
	return r
}

// checkSnapshot: a snapshot gives the same plan, byte for byte, and encodes to the same bytes again.
func checkSnapshot(t *testing.T, in reconcile.Input, want string) {
	t.Helper()
	data, err := reconcile.Snapshot{Input: in}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := reconcile.DecodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, planText(doc.Input)); diff != "" {
		t.Errorf("the snapshot gives another plan (-want +got):\n%s", diff)
	}
	again, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, again) {
		t.Errorf("the snapshot does not encode to the same bytes again:\n%s", gocmp.Diff(string(data), string(again)))
	}
}

// checkConverges is I6 and I7: after any prefix of a plan, planning and applying again ends with nothing to do.
func checkConverges(t *testing.T, in reconcile.Input) {
	t.Helper()
	plan, err := reconcile.Plan(in)
	if err != nil {
		return
	}
	for n := range len(plan.Steps) + 1 {
		now := in
		for _, s := range plan.Steps[:n] {
			now = after(now, s)
		}
		again, err := reconcile.Plan(now)
		if err != nil {
			t.Fatalf("after %d steps: %v", n, err)
		}
		if n == len(plan.Steps) && len(again.Steps) > 0 {
			t.Errorf("I6: the plan is carried out, and there is more to do:\n%s", again)
		}
		for _, s := range again.Steps {
			now = after(now, s)
		}
		if last, err := reconcile.Plan(now); err != nil || len(last.Steps) > 0 {
			t.Errorf("I7: after %d of %d steps, planning again does not get there: %v\n%s", n, len(plan.Steps), err, last)
		}
	}
}

// TestExample keeps the snapshot that the README plans from.
func TestExample(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/rule-1-standby-new.txtar")
	if err != nil {
		t.Fatal(err)
	}
	taken := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	want, err := reconcile.Snapshot{Taken: taken, Input: parseScenario(t, archive)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const file = "../docs/examples/new-standby.json"
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs from the scenario (-want +got):\n%s", file, diff)
	}
}

// TestDatabase tells which clone is meant.
func TestDatabase(t *testing.T) {
	clone := func(id, primitive, agent string) model.Clone {
		return model.Clone{ID: id, Primitive: primitive, Agent: agent}
	}
	a, b := clone("msA", "a", "ocf:heartbeat:pgsql"), clone("msB", "b", "ocf:linuxhajp:pgsql")
	drbd := clone("msD", "d", "ocf:linbit:drbd")
	for _, test := range []struct {
		name, resource, want, err string
		clones                    []model.Clone
	}{
		{"the only one", "", "a", "", []model.Clone{drbd, a}},
		{"picked by clone", "msB", "b", "", []model.Clone{a, b}},
		{"picked by primitive", "b", "b", "", []model.Clone{a, b}},
		{"two", "", "", "the CIB has 2 database resources (a (ocf:heartbeat:pgsql), b (ocf:linuxhajp:pgsql)): pick one with --instance and the id of its primitive, or with --resource", []model.Clone{a, b}},
		{"none", "", "", "the CIB has no promotable clone of ocf:heartbeat:pgsql or ocf:linuxhajp:pgsql; promotable clones: d (ocf:linbit:drbd)", []model.Clone{drbd}},
		{"empty", "", "", "the CIB has no promotable clone of ocf:heartbeat:pgsql or ocf:linuxhajp:pgsql; promotable clones: none", nil},
		{"unknown name", "x", "", "the CIB has no database resource x; promotable clones: a (ocf:heartbeat:pgsql)", []model.Clone{a}},
		{"unknown agent", "d", "", "resource d has the agent ocf:linbit:drbd, which pgrex does not know; it knows ocf:heartbeat:pgsql and ocf:linuxhajp:pgsql", []model.Clone{drbd}},
		{"unknown agent by clone", "msD", "", "resource msD has the agent ocf:linbit:drbd, which pgrex does not know; it knows ocf:heartbeat:pgsql and ocf:linuxhajp:pgsql", []model.Clone{drbd}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := reconcile.Database(model.Cluster{Clones: test.clones}, test.resource)
			if got.Primitive != test.want {
				t.Errorf("got %q, want %q", got.Primitive, test.want)
			}
			if text := errorText(err); text != test.err {
				t.Errorf("error\n got %q\nwant %q", text, test.err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestSnapshotBadInput: what is no snapshot is refused with what to do.
func TestSnapshotBadInput(t *testing.T) {
	whole, err := reconcile.Snapshot{}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ data, err string }{
		"empty":         {"", "not a snapshot, or cut off: unexpected end of JSON input; take a new one with 'pgrex snapshot'"},
		"cut off":       {string(whole[:len(whole)/2]), "not a snapshot, or cut off: unexpected end of JSON input; take a new one with 'pgrex snapshot'"},
		"something":     {"{}", "not a snapshot: it has no pgrex_snapshot; take one with 'pgrex snapshot'"},
		"newer":         {`{"pgrex_snapshot": 2}`, "snapshot format 2, but this pgrex reads 1 only: use the pgrex that wrote it"},
		"unknown field": {`{"pgrex_snapshot": 1, "x": 1}`, `snapshot: json: unknown field "x"; take a new one with 'pgrex snapshot'`},
		"bad position":  {`{"pgrex_snapshot": 1, "input": {"instance": {"redo": "5"}}}`, `snapshot: "5" is not a WAL position such as 0/3000420; take a new one with 'pgrex snapshot'`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := reconcile.DecodeSnapshot([]byte(test.data))
			if text := errorText(err); text != test.err {
				t.Errorf("error\n got %q\nwant %q", text, test.err)
			}
		})
	}
}

// Whatever a snapshot holds, the work is bounded: the hosts of a plan are.
func TestTooManyMembers(t *testing.T) {
	in := busyStandby(3)
	for i := range 300 {
		in.Cluster.Clones[0].Parameters["node_list"] += fmt.Sprint(" more", i)
	}
	plan, err := reconcile.Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Steps) > 0 || len(plan.Findings) != 1 || plan.Findings[0].Code != model.CodeInvalidPolicy {
		t.Errorf("%s", plan)
	}
}

// A standby that is known to the primary by another name waits for somebody, and not for the next second.
func TestTrap36IsNotAskedEverySecond(t *testing.T) {
	for file, want := range map[string]time.Duration{
		"trap-36-application-name": 10 * time.Second, "trap-36-other-name": 10 * time.Second, "trap-46-promoting": time.Second,
	} {
		archive, err := txtar.ParseFile("testdata/" + file + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		if plan, err := reconcile.Plan(parseScenario(t, archive)); err != nil || plan.RecheckAfter != want {
			t.Errorf("%s: again after %s, not %s (%v)", file, plan.RecheckAfter, want, err)
		}
	}
}
