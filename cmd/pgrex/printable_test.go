package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// nasty is what any text from outside may hold: commands to a terminal, a line break before a forged line, marks that
// turn the direction of writing, and what is no UTF-8.
const nasty = "\x1b[31m\u009b31m\u0085\r\nforged: \t\x7f\u202e\u2066\U000e0041\xff"

// wantPrintable looks at all that was printed.
func wantPrintable(t *testing.T, what, text string) {
	t.Helper()
	bad := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if strings.ContainsFunc(text, bad) || !utf8.ValidString(text) || strings.Contains("\n"+text, "\nforged") {
		t.Errorf("%s: this is printed:\n%q", what, text)
	}
}

// copied is a copy of a value with every string in it changed, names in maps too.
func copied(v reflect.Value, change func(string) string) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	switch v.Kind() {
	case reflect.String:
		c.SetString(change(v.String()))
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			break
		}
		of := copied(v.Elem(), change)
		if v.Kind() == reflect.Interface {
			c.Set(of)
			break
		}
		c.Set(reflect.New(of.Type()))
		c.Elem().Set(of)
	case reflect.Struct:
		for i := range c.NumField() {
			if c.Field(i).CanSet() {
				c.Field(i).Set(copied(v.Field(i), change))
			}
		}
	case reflect.Slice:
		c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			c.Index(i).Set(copied(v.Index(i), change))
		}
	case reflect.Map:
		c.Set(reflect.MakeMap(v.Type()))
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			c.SetMapIndex(copied(key, change), copied(v.MapIndex(key), change))
		}
	default: // it is copied, and holds no string
	}
	return c
}

// full is a value of a type in which nothing is empty.
func full(of reflect.Type) reflect.Value {
	v := reflect.New(of).Elem()
	switch of.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(of.Elem()))
		v.Elem().Set(full(of.Elem()))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				v.Field(i).Set(full(v.Field(i).Type()))
			}
		}
	case reflect.Slice:
		if of == reflect.TypeFor[[]model.Step]() {
			for _, step := range everyStep {
				v.Set(reflect.Append(v, full(reflect.TypeOf(step))))
			}
			break
		}
		v.Set(reflect.Append(v, full(of.Elem())))
	case reflect.Map:
		v.Set(reflect.MakeMap(of))
		v.SetMapIndex(full(of.Key()), full(of.Elem()))
	default:
		panic("no value of " + of.String())
	}
	return v
}

var everyStep = []model.Step{model.CreateSlot{}, model.ReleaseXMin{}, model.TouchSlot{}, model.AdvanceSlot{}, model.ResetSlot{},
	model.DropSlot{}, model.SetPrimarySlotName{}, model.SetWALBudget{}, model.PublishAttribute{}}

// eachNasty does something with copies of a value: with all strings nasty, and with each of them alone.
func eachNasty[V any](t *testing.T, value V, do func(what string, v V)) {
	t.Helper()
	strings := 0
	copied(reflect.ValueOf(value), func(s string) string { strings++; return s })
	if strings < 5 {
		t.Fatalf("%T has %d strings", value, strings)
	}
	for which := range strings + 1 {
		at, what := 0, fmt.Sprintf("%T, all", value)
		v := copied(reflect.ValueOf(value), func(s string) string {
			at++
			switch which {
			case 0:
				return s + nasty
			case at:
				what = fmt.Sprintf("%T, string %d, %q", value, at, s)
				return s + nasty
			}
			return s
		})
		do(what, v.Interface().(V))
	}
}

// pgrex runs the program in this process.
func pgrex(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(t.Context())
	status = exitStatus(printer.To(&errs), cmd, err)
	return out.String(), errs.String(), status
}

// wantPrintableOf runs the program, looks at what it prints, and wants one of some exit statuses.
func wantPrintableOf(t *testing.T, what string, statuses []int, args ...string) {
	t.Helper()
	stdout, stderr, status := pgrex(t, args...)
	what += ": pgrex " + strings.Join(args, " ")
	wantPrintable(t, what, stdout+stderr)
	if !slices.Contains(statuses, status) {
		t.Errorf("%s: exit status %d: %s", what, status, stderr)
	}
	if slices.Contains(args, "json") && stdout != "" && !json.Valid([]byte(stdout)) {
		t.Errorf("%s: no JSON: %s", what, stdout)
	}
}

// TestPrintableSnapshot: trap 44. A snapshot may come from anybody.
func TestPrintableSnapshot(t *testing.T) {
	data, err := os.ReadFile("../../docs/examples/new-standby.json")
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := reconcile.DecodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "s.json")
	for _, in := range []reconcile.Input{snapshot.Input, full(reflect.TypeFor[reconcile.Input]()).Interface().(reconcile.Input)} {
		eachNasty(t, in, func(what string, in reconcile.Input) {
			data, err := snapshotOf(in)
			if err != nil {
				t.Fatal(err)
			}
			wantPrintable(t, what+": a snapshot", string(data))
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, output := range []string{"text", "json"} {
				statuses := []int{0, exitError, exitPending, exitDegraded}
				wantPrintableOf(t, what, statuses, "plan", "--snapshot", file, "-o", output)
			}
		})
	}
	for _, document := range []string{
		`{"pgrex_snapshot": 1, "input": {"a\u001b[31m\u009b\u0085b": 1}}`, `{"pgrex_snapshot": 1, "taken": "\u001b\n\u202e"}`,
		`{"pgrex_snapshot": "` + "\u009b" + `"}`, "\x1b[31m\u009b",
	} {
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		wantPrintableOf(t, document, []int{exitError}, "plan", "--snapshot", file)
	}
	wantPrintableOf(t, "usage", []int{exitUsage}, "plan", "-o", nasty)
	wantPrintableOf(t, "no file", []int{exitError}, "plan", "--snapshot", nasty)
}

// TestPrintablePlan: trap 44.
func TestPrintablePlan(t *testing.T) {
	eachNasty(t, full(reflect.TypeFor[model.Plan]()).Interface().(model.Plan), func(what string, plan model.Plan) {
		wantPrintable(t, what+": String", plan.String())
		for _, output := range []string{"text", "json"} {
			var out strings.Builder
			if err := printPlan(printer.To(&out), plan, output); err != nil {
				t.Fatal(err)
			}
			wantPrintable(t, what+": "+output, out.String())
		}
	})
}

// TestPrintableStatus: trap 44. Whoever may make a socket may answer there.
func TestPrintableStatus(t *testing.T) {
	var answer []byte
	code := http.StatusOK
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write(answer)
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	settings := filepath.Join(t.TempDir(), "pgrex.yaml")
	if err := os.WriteFile(settings, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := []string{"--config", settings, "--socket", socket}

	strange := full(reflect.TypeFor[controller.Status]()).Interface().(controller.Status)
	usual := strange
	usual.Node, usual.Role, usual.Server.State = "pm01", model.Primary, model.ServerUp
	usual.Members = slices.Repeat(usual.Members, 3)
	for i := range usual.Members {
		m := &usual.Members[i]
		m.Host, m.Role, m.Unsettled, m.Problem = fmt.Sprintf("pm0%d", i+1), model.RoleUnpromoted, "", "p"
	}
	usual.Members[0].Role = model.RolePromoted
	usual.Forecast = []model.Forecast{{Candidate: "pm01", Host: "pm02", Way: model.WayStream, Why: "w"}}
	usual.Slots[0].Member = "pm03"
	usual.Conditions = slices.Repeat(usual.Conditions, 3)
	for i, severity := range []model.Severity{model.Critical, model.Warning, model.Info} {
		usual.Conditions[i].Severity = severity
	}
	for _, status := range []controller.Status{strange, usual} {
		eachNasty(t, status, func(what string, status controller.Status) {
			var err error
			if answer, err = json.Marshal(status); err != nil {
				t.Fatal(err)
			}
			for _, output := range []string{"table", "wide", "json"} {
				wantPrintableOf(t, what, []int{0}, append([]string{"status", "-o", output}, at...)...)
			}
			for _, output := range []string{"text", "json"} {
				ask := []string{"what-if", "--down", "pm03", "--for", "3h", "-o", output}
				wantPrintableOf(t, what, []int{0, exitError}, append(ask, at...)...)
			}
			wantPrintableOf(t, what, []int{0}, append([]string{"__complete", "what-if"}, append(at, "--down", "")...)...)
		})
	}
	answer = []byte(`{"version": 1, "\u001b[31m": "\u009b`)
	wantPrintableOf(t, "no JSON", []int{exitError}, append([]string{"status"}, at...)...)
	code = http.StatusServiceUnavailable
	wantPrintableOf(t, "an error", []int{exitError}, append([]string{"status"}, at...)...)
}

// TestPrintableInspect: trap 44. An attribute's value may be anything.
func TestPrintableInspect(t *testing.T) {
	eachNasty(t, full(reflect.TypeFor[inspected]()).Interface().(inspected), func(what string, c inspected) {
		var out strings.Builder
		if err := errors.Join(printCluster(printer.To(&out), c), printer.To(&out).JSON(c)); err != nil {
			t.Fatal(err)
		}
		wantPrintable(t, what, out.String())
	})
	data, err := os.ReadFile("testdata/cluster.xml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cib.xml")
	const nasty = "\u009b31m&#10;forged: &#9;\x7f\u202e" // what XML can hold
	for _, name := range []string{
		`uname="pm02"`, `class="ocf" provider="heartbeat" type="pgsql"`, `node id="1"`, `validate-with="pacemaker-3.9"`,
	} {
		text := strings.ReplaceAll(string(data), name, strings.TrimSuffix(name, `"`)+nasty+`"`)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, output := range []string{"text", "json"} {
			wantPrintableOf(t, name, []int{0, exitError}, "inspect", "--cib", file, "-o", output)
		}
	}
}

// TestPrintableDoctor: trap 44. So are the versions, which another program told.
func TestPrintableDoctor(t *testing.T) {
	eachNasty(t, full(reflect.TypeFor[diagnosis]()).Interface().(diagnosis), func(what string, d diagnosis) {
		for _, output := range []string{"text", "json"} {
			var out strings.Builder
			if err := printDiagnosis(printer.To(&out), d, output); err != nil {
				t.Fatal(err)
			}
			wantPrintable(t, what, out.String())
		}
	})
}

// TestPrintableOperations: trap 44. Files, paths and commands are in what an operation says.
func TestPrintableOperations(t *testing.T) {
	root := rootCommand()
	var out strings.Builder
	root.SetOut(&out)
	act := func(text string, err error) operation.Action {
		return operation.Program{Text: text + nasty, Run: func(context.Context) error { return err }}
	}
	fails := func(id string, err error) operation.Step {
		return operation.Step{ID: id, Action: act("x", err), Back: []operation.Action{act("u", errors.New("e"+nasty))}}
	}
	job := operation.Job{
		Operation: "rejoin", Node: "pm01", Primitive: "pgsql", Token: tokenForTests, Says: []string{"  00000001" + nasty}, Plan: &struct{}{},
		Steps: []operation.Step{fails("one", nil), fails("two", errors.New("f"+nasty))},
	}
	onCIBFile(t)
	engine := &operation.Engine{
		Folder: t.TempDir(), Observer: &controller.Observer{Node: "pm01", Clusters: &cib.Client{}}, Report: printer.Out(root).Report, Who: "w" + nasty,
	}
	root.SetContext(t.Context())
	dry := (&asking{dryRun: true}).perform(root, engine, job, "d"+nasty)
	err := (&asking{yes: true}).perform(root, engine, job, "d"+nasty)
	if status, ok := errors.AsType[statusError](dry); !ok || status != exitPending || err == nil {
		t.Errorf("%v, %v", dry, err)
	}
	// What is left says the same things again, and so does what refuses another one.
	journal, loadErr := operation.LoadJournal(engine.Folder)
	if journal == nil || loadErr != nil {
		t.Fatalf("no journal is left: %v", loadErr)
	}
	left := left{cmd: root, engine: engine, report: engine.Report, journal: journal, job: job, ask: asking{dryRun: true}}
	for _, do := range []func() error{left.show, left.undo} {
		if err := do(); !errors.Is(err, statusError(exitPending)) {
			t.Error(err)
		}
	}
	refused := engine.Ready(t.Context(), nil)
	if refused == nil || !strings.Contains(refused.Error(), "is unfinished on this host") {
		t.Errorf("not refused: %v", refused)
	}
	exitStatus(printer.Out(root), root, refused)
	work := operation.Work{Says: job.Says, Actions: []operation.Action{act("a", nil), act("b", errors.New("g"+nasty))}}
	exitStatus(printer.Out(root), root, (&asking{yes: true}).performWork(root, engine, work))
	printLadder(printer.Out(root).Report, []rejoin.Rung{{Method: rejoin.MethodStart, Why: nasty}})
	exitStatus(printer.Out(root), root, commandError{err})
	exitStatus(printer.Out(root), root, err)
	wantPrintable(t, "an operation", out.String())
	if n := strings.Count(out.String(), "\n"); n != 28 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// tokenForTests is the token of an operation.
var tokenForTests = model.Token{Operation: "rejoin", Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("7", 32)}

// onCIBFile leads Pacemaker's tools to a CIB of the test's own.
func onCIBFile(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile("testdata/cluster.xml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cib.xml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CIB_file", file)
}

// TestPrintableSupport: trap 44. The archive's files are for a terminal, too.
func TestPrintableSupport(t *testing.T) {
	for name, redact := range map[string]func(string) string{"text": redact, "json": redactJSON} {
		document, err := json.Marshal(nasty)
		if err != nil {
			t.Fatal(err)
		}
		text, err := collect(t.Context(), part{command: []string{"printf", "%s", string(document)}, redact: redact})
		if err != nil {
			t.Fatal(err)
		}
		wantPrintable(t, name, text)
		failing := []string{"sh", "-c", "printf '%s' \"$1\" >&2; exit 1", "sh", nasty}
		_, err = collect(t.Context(), part{command: failing, redact: redact})
		wantPrintable(t, name, printer.OneLine(err))
	}
}
