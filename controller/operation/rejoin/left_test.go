package rejoin

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// placed is a data folder with the old data beside it, as after a swap.
func placed(t *testing.T) datadir.Place {
	t.Helper()
	p := datadir.Place{Data: filepath.Join(t.TempDir(), "data"), Tmp: t.TempDir()}
	for _, folder := range []string{p.Data, p.Beside()} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// What was before a rejoin that was left is in its plan only. Where that cannot be read, nothing is guessed.
func TestLeftThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for plan, want := range map[string]string{`{"method": "auto"}`: "", `{"later": true}`: "end the operation with the pgrex that began it", `{`: "read the plan"} {
		r := &Rejoin{Left: &operation.Journal{Operation: Name, Plan: []byte(plan)}}
		before, err := r.before()
		if (err == nil) != (want == "") || (before != nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", plan, before, err)
		}
		c := &Case{Place: datadir.Place{Data: t.TempDir(), Tmp: t.TempDir()}}
		if _, err := r.Job(t.Context(), c, MethodStart, "auto"); (err == nil) != (want == "") {
			t.Errorf("%s: the job: %v", plan, err)
		}
	}
}

// A rejoin of restored data was killed when they had recovered: it goes on by any way. One that begins is told that
// there is no backup.
func TestRestoredGoesOn(t *testing.T) {
	t.Parallel()
	left, others := &operation.Journal{Operation: Name}, &operation.Journal{Operation: "stop"}
	recovered, not := new(Case), new(Case)
	not.Return.Local.Backup = new(reconcile.Backup)
	for _, test := range []struct {
		left        *operation.Journal
		c           *Case
		asked, want string
	}{
		{left, recovered, "restored", "auto"}, {left, not, "restored", "restored"}, {nil, recovered, "restored", "restored"},
		{others, recovered, "restored", "restored"}, {left, recovered, "copy", "copy"},
	} {
		if got := (&Rejoin{Left: test.left}).StillAsked(test.c, test.asked); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// The swap was undone by a process that was killed at that. The next one, which has only the plan, does not take
// the old data for the copy.
func TestOldDataStayThroughTwoUndos(t *testing.T) {
	p := placed(t)
	r := new(Rejoin)
	plan := &Plan{Way: MethodCopy}
	first := &Case{Place: p, swapped: &plan.Swapped}
	if err := fakes.Undo(t.Context(), fakes.Step(t, r.copy(first), "swap")); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var kept Plan
	if err := (&operation.Journal{Plan: text}).Read(&kept); err != nil {
		t.Fatal(err)
	}
	next := &Case{Place: p, swapped: &kept.Swapped}
	if err := fakes.Undo(t.Context(), fakes.Step(t, r.copy(next), "copy")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Beside()); err != nil {
		t.Errorf("the old data are gone: %v", err)
	}
	copied := &Case{Place: p}
	if err := fakes.Undo(t.Context(), fakes.Step(t, r.copy(copied), "copy")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Beside()); err == nil {
		t.Error("a copy that was not swapped is still there")
	}
}

// Taking back removes the lock that the rejoin has made. One that the agent has made since, because it has promoted
// this host, keeps data from being started that have parted from the next primary's.
func TestAgentsLockStays(t *testing.T) {
	p := placed(t)
	step := (&Case{Place: p}).makeLock()
	for _, test := range []struct {
		name  string
		since func() error
		stays bool
	}{
		{"its own", func() error { return nil }, false},
		{"the agent's", func() error { return os.WriteFile(p.Lock(), nil, 0o600) }, true},
		{"none", p.RemoveLock, false},
	} {
		if err := p.RemoveLock(); err != nil {
			t.Fatal(err)
		}
		if err := step.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(p.Lock()); err != nil {
			t.Fatalf("%s: there is no lock: %v", test.name, err)
		}
		if err := test.since(); err != nil {
			t.Fatal(err)
		}
		if err := fakes.Undo(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(p.Lock()); (err == nil) != test.stays {
			t.Errorf("%s: the lock stays: %t", test.name, err == nil)
		}
	}
}

// standby is a server that streams through a slot, or does not.
type standby struct {
	controller.Server
	streams *bool
}

// Observe implements the controller's server.
func (s standby) Observe(context.Context) (model.Instance, error) {
	i := model.Instance{State: model.ServerUp, Version: 150000, InRecovery: true}
	if *s.streams {
		i.Receiver = &model.WALReceiver{Status: "streaming", SlotName: "mine"}
	}
	return i, nil
}

// A rejoin was killed when this host streamed already, or soon after, and before that was recorded. An undo finds out,
// and does not stop the host, though it was kept stopped before the rejoin. A host that does not stream, or that
// Pacemaker has been told to stop, is stopped.
func TestUndoOfHostThatStreams(t *testing.T) {
	for name, test := range map[string]struct {
		id            string
		at            fakes.Point
		streams, away bool
		stopped       bool
	}{
		"while it is given back": {"let-back", fakes.Between, true, false, false},
		"once it was given back": {"let-back", fakes.After, true, false, false},
		"while it waits":         {"streams", fakes.Before, true, false, false},
		"it does not stream":     {"streams", fakes.Before, false, false, true},
		"it is to stop":          {"streams", fakes.Before, true, true, true},
		"it streamed before":     {"clear-clone", fakes.After, true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			fakes.Tools(t, "never")
			streams, away := false, false
			observer := fakes.Lone()
			observer.Clusters = fakes.ClusterOf(func() model.Cluster {
				cluster, _ := fakes.Lone().Clusters.Read(t.Context())
				cluster.Clones[0].Roles = fakes.Roles{"pm01": model.RoleUnpromoted}
				cluster.Clones[0].Parameters = map[string]string{"node_list": "pm01 pm02", "pgdata": t.TempDir()}
				cluster.Nodes[0].Standby = away
				return cluster
			})
			observer.Connect = func(controller.Target) controller.Server { return standby{streams: &streams} }
			e, stopped := fakes.Engine(t, observer), false
			job := func() operation.Job {
				steps := (&Rejoin{Observer: observer}).letStart(&Case{Place: placed(t), Slot: "mine", Kept: true})
				fakes.Step(t, steps, "cleanup").Back[0] = operation.Change{Text: "stop it", Make: func() error { stopped = true; return nil }}
				for i := range steps {
					steps[i].Back = steps[i].Back[:min(1, len(steps[i].Back))]
				}
				return fakes.Job(steps)
			}
			fakes.Killed(t, e, job(), test.id, test.at)
			streams, away = test.streams, test.away
			j, err := operation.LoadJournal(e.Folder)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Undo(t.Context(), j, job()); err != nil {
				t.Fatal(err)
			}
			if stopped != test.stopped || !operation.Left(e.Folder).None() {
				t.Errorf("it is stopped: %t; left is %v", stopped, operation.Left(e.Folder))
			}
		})
	}
}

// closed is a server that lets nobody in.
type closed struct{ controller.Server }

// Observe implements the controller's server.
func (closed) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerUnreachable, Problem: "too many clients"}, nil
}

// Where a host cannot be asked whether it streams, and Pacemaker shows it unpromoted, it may stream: an undo says so, and
// does not stop it. Where Pacemaker shows it stopped, it does not stream.
func TestUndoOfHostThatMayStream(t *testing.T) {
	for role, want := range map[model.Role]operation.State{model.RoleUnpromoted: operation.CannotTell, model.RoleStopped: operation.NotDone} {
		observer := fakes.Lone()
		observer.Clusters = fakes.ClusterOf(func() model.Cluster {
			cluster, _ := fakes.Lone().Clusters.Read(t.Context())
			cluster.Clones[0].Roles = fakes.Roles{"pm01": role}
			cluster.Clones[0].Parameters = map[string]string{"node_list": "pm01 pm02", "pgdata": t.TempDir()}
			return cluster
		})
		observer.Connect = func(controller.Target) controller.Server { return closed{} }
		got, err := (&Rejoin{Observer: observer}).AwaitStreams(&Case{Slot: "mine"}).Check(t.Context())
		if got != want || (err != nil) != (want == operation.CannotTell) || err != nil && !strings.Contains(err.Error(), "too many clients") {
			t.Errorf("to Pacemaker %s: %v, %v", role, got, err)
		}
	}
}

// What cannot be removed on a host that streams is said, and the host is not stopped again because of it.
func TestLeftStaysOnHostThatStreams(t *testing.T) {
	p := placed(t)
	for _, folder := range []string{p.Beside() + "/space", p.Data + "/pg_tblspc"} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(p.Beside()+"/space", p.Data+"/pg_tblspc/16400"); err != nil { // it is not to be removed
		t.Fatal(err)
	}
	fakes.Tools(t, "never")
	stopped := false
	steps := new(Rejoin).letStart(&Case{Place: p, Slot: "mine", Kept: true})
	for i := range steps {
		if steps[i].ID != "remove-left" {
			steps[i].Action = operation.Change{Text: steps[i].ID, Make: func() error { return nil }}
		}
		if steps[i].ID == "cleanup" {
			steps[i].Back = []operation.Action{operation.Change{Text: "stop it", Make: func() error {
				stopped = true
				return nil
			}}}
		}
	}
	err := fakes.Do(t.Context(), t, steps)
	if err == nil || !strings.Contains(err.Error(), "the data use "+p.Beside()+"/space") || !strings.Contains(err.Error(), "this host streams, so nothing is undone; to remove what the operation has left, type: sudo pgrex rejoin") || stopped {
		t.Errorf("it ends with %v; stopped: %t", err, stopped)
	}
}
