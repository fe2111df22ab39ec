package controller

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestLooksAreCounted: each look is counted with its source, its time and whether it had an answer.
func TestLooksAreCounted(t *testing.T) {
	w := newWorld()
	w.takes = func(call string) {
		if call == "Read" {
			time.Sleep(200 * time.Millisecond)
		}
	}
	of := func(source Source) LookStatus {
		return w.status.Looks[slices.IndexFunc(w.status.Looks, func(l LookStatus) bool { return l.Source == source })]
	}
	live(t, w, false, func() {
		w.pass(time.Minute)
		cib, server, primary := of(SourceCIB), of(SourcePostgreSQL), of(SourcePrimary)
		if cib.Count == 0 || cib.Count > uint64(w.reads) || cib.Errors != 0 || cib.Last == nil || w.status.Looked.Sub(*cib.Last) > 10*time.Second {
			t.Errorf("of %d reads of the CIB the status has %+v", w.reads, cib)
		}
		if each := cib.Seconds / float64(cib.Count); each < 0.199 || each > 0.201 {
			t.Errorf("each read took %v s, not 0.2 s", each)
		}
		for _, b := range cib.Buckets {
			if want := cib.Count; b.AtMost >= 0.5 && b.Count != want || b.AtMost <= 0.1 && b.Count != 0 {
				t.Errorf("%d of %d reads took at most %v s", b.Count, want, b.AtMost)
			}
		}
		if server.Count < 50 || server.Errors != 0 || primary.Count != 0 || primary.Last != nil {
			t.Errorf("the server: %+v; the primary, on itself: %+v", server, primary)
		}
		last := *cib.Last
		w.clusterErr, w.instance.State = errors.New("Pacemaker does not run"), model.ServerUnreachable
		w.pass(time.Minute)
		now := of(SourceCIB)
		if now.Errors == 0 || now.Errors != now.Count-cib.Count || !now.Last.Equal(last) {
			t.Errorf("without an answer for a minute: %+v, after %+v", now, cib)
		}
	})
}

// TestServerWithoutAnAnswer: a server that is down has been looked at, one that does not answer has not.
func TestServerWithoutAnAnswer(t *testing.T) {
	for state, errs := range map[model.ServerState]bool{model.ServerDown: false, model.ServerUnreachable: true} {
		w := newWorld()
		w.instance.State = state
		live(t, w, false, func() {
			w.pass(10 * time.Second)
			if l := w.status.Looks[1]; l.Source != SourcePostgreSQL || l.Count == 0 || (l.Errors > 0) != errs || (l.Last == nil) != errs {
				t.Errorf("%s: %+v", state, l)
			}
		})
	}
}

// TestStepsAreCounted: each try of a step is counted, by its kind.
func TestStepsAreCounted(t *testing.T) {
	w := newWorld()
	w.fail["slot pgrex_pm02 for pm02"] = &postgres.Error{Class: postgres.Permission, Err: errors.New("not allowed")}
	live(t, w, false, func() {
		w.pass(time.Minute)
		want := StepCount{Kind: "CreateSlot", Failed: uint64(len(w.applied))}
		if !slices.Contains(w.status.Steps, want) || len(w.applied) < 2 {
			t.Errorf("%+v does not have %+v", w.status.Steps, want)
		}
		delete(w.fail, "slot pgrex_pm02 for pm02")
		w.pass(time.Minute)
		want.Done = 1
		if !slices.Contains(w.status.Steps, want) {
			t.Errorf("%+v does not have %+v", w.status.Steps, want)
		}
	})
}

// TestEveryKindIsCounted: a kind of step is in the status before the first one is carried out.
func TestEveryKindIsCounted(t *testing.T) {
	files, err := filepath.Glob("../model/*.go")
	if err != nil {
		t.Fatal(err)
	}
	counts, kinds := newStepCounts(), 0
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok || f.Name.Name != "Kind" || f.Recv == nil {
				return true
			}
			kinds++
			kind, err := strconv.Unquote(f.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit).Value)
			if err != nil || !slices.Contains(counts, StepCount{Kind: kind}) {
				t.Errorf("%s is not among the counts %+v: %v", kind, counts, err)
			}
			return true
		})
	}
	if kinds != len(counts) || kinds == 0 {
		t.Errorf("%d kinds of steps, and %d counts", kinds, len(counts))
	}
}

// TestStreaming: the primary knows it of every standby, a standby of itself, and nobody in transition.
func TestStreaming(t *testing.T) {
	w := newWorld()
	w.cluster.Clones[0].Parameters["node_list"] = "pm01 pm02 pm03 pm04"
	w.cluster.Clones[0].Roles["pm03"], w.cluster.Clones[0].Roles["pm04"] = model.RoleUnpromoted, model.RoleUnpromoted
	in := reconcile.Input{Node: "pm01", Cluster: &w.cluster, Instance: w.instance}
	in.Instance.Senders = []model.WALSender{{ApplicationName: "pm02", State: "catchup"}, {ApplicationName: "pm03", State: "backup"},
		{ApplicationName: "walreceiver", PID: 4, State: "streaming"}}
	in.Instance.Slots = []model.Slot{{Name: "pgrex_pm04", Type: model.SlotPhysical, Active: true, ActivePID: 4}}
	in.Instance.Receiver = &model.WALReceiver{Status: "streaming"}
	for _, test := range []struct {
		node       string
		inRecovery bool
		want       map[string]string
	}{
		{"pm01", false, map[string]string{"pm02": "true", "pm03": "false", "pm04": "true"}},
		{"pm02", true, map[string]string{"pm02": "true"}},
		{"pm02", false, map[string]string{}},
	} {
		in := in
		in.Node, in.Instance.InRecovery = test.node, test.inRecovery
		who, got := resolved(t, in), map[string]string{}
		for _, m := range statusOf(who, model.Plan{Standing: who.Standing}, nil, nil, nil, false).Members {
			if m.Streaming != nil {
				got[m.Host] = strconv.FormatBool(*m.Streaming)
			}
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("%s, %s: %v, not %v", test.node, who.Standing, got, test.want)
		}
	}
}

// TestSlotXMinAge: how old an xmin is, is there only where there is one.
func TestSlotXMinAge(t *testing.T) {
	w := newWorld()
	in := reconcile.Input{Node: "pm01", Cluster: &w.cluster, Instance: w.instance}
	in.Instance.Slots = []model.Slot{
		{Name: "pgrex_pm02", Type: model.SlotPhysical, RestartLSN: 0x5000000, XMin: 700, XMinAge: 50},
		{Name: "pg_basebackup_1", Type: model.SlotPhysical, RestartLSN: 0x5000000, Temporary: true},
	}
	slots := statusOf(resolved(t, in), model.Plan{Standing: model.Primary}, nil, nil, nil, false).Slots
	if len(slots) != 2 || slots[0].XMinAge == nil || *slots[0].XMinAge != 50 || slots[0].Temporary || slots[1].XMinAge != nil || !slots[1].Temporary {
		t.Errorf("the slots are %+v", slots)
	}
}
