package handover

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

// world is pm01, the primary, whose one standby streams through its own slot. Its CIB is in a file.
type world struct {
	*fakes.CIB
	t     *testing.T
	name  string // of the operation
	state string
	down  bool   // the server here
	slot  string // of the standby
	// standbys are what the server here says of those that stream from it.
	standbys []model.Replication
}

// primary is the server here.
type primary struct {
	fakes.Primary
	w *world
}

// Observe implements the controller's server.
func (p primary) Observe(ctx context.Context) (model.Instance, error) {
	if p.w.down {
		return model.Instance{State: model.ServerDown}, nil
	}
	return p.Primary.Observe(ctx)
}

// Replications is what else a release asks.
func (p primary) Replications(context.Context) ([]model.Replication, error) { return p.w.standbys, nil }

// newWorld makes one in which an operation can begin.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := &world{CIB: fakes.NewCIB(t, "../../.."), t: t, name: name, state: t.TempDir() + "/state", slot: "rex_pm02"}
	w.Primary()
	w.program("pg_controldata", "echo 'Database system identifier: 7'; echo \"Latest checkpoint's TimeLineID: 3\"")
	w.must(os.WriteFile(filepath.Join(w.Tmp, "recovery.conf"), []byte("primary_conninfo = 'host=here'\n"), 0o600))
	w.Run(cib.SetMeta("msPostgresql", model.MetaStandbySlots, "none"))
	// The tools leave empty sets behind: they are here before.
	w.Run(cib.SetMeta("pgsql", model.MetaSlotPrefix, "rex"))
	w.begin(name)
	return w
}

// begin makes the slots the agent's, where an operation is to hand them over.
func (w *world) begin(name string) {
	w.t.Helper()
	w.name = name
	if name == Adopt {
		w.Run(cib.DeleteMeta("pgsql", model.MetaSlotPrefix))
		w.Run(cib.SetParameter("pgsql", slotParameter, "rex"))
	}
}

// program is one of PostgreSQL's, which does what a script does.
func (w *world) program(name, script string) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.Bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// handover is one of a new process.
func (w *world) handover() *Handover {
	slots := func() []model.Slot {
		return []model.Slot{{Name: w.slot, Type: model.SlotPhysical, Active: true, ActivePID: 7}}
	}
	return &Handover{Observer: &controller.Observer{Node: "pm01", Clusters: &cib.Client{}, Connect: func(controller.Target) controller.Server {
		return primary{fakes.Primary{Slots: slots}, w}
	}}}
}

func (w *world) engine() *operation.Engine {
	e := fakes.Engine(w.t, w.handover().Observer)
	e.Folder = w.state
	return e
}

func (w *world) plan() (operation.Job, error) {
	if w.name == Adopt {
		return w.handover().Adopt(w.t.Context())
	}
	return w.handover().Release(w.t.Context())
}

func (w *world) job() operation.Job {
	w.t.Helper()
	job, err := w.plan()
	w.must(err)
	if len(job.Steps) == 0 {
		w.t.Fatal("there is nothing to do")
	}
	return job
}

// resume makes the steps once more of what was left.
func (w *world) resume() (*operation.Journal, operation.Job) {
	w.t.Helper()
	j, err := operation.LoadJournal(w.state)
	w.must(err)
	if j == nil {
		w.t.Fatal("no journal is left")
	}
	job, err := w.handover().Resume(w.t.Context(), j)
	w.must(err)
	return j, job
}

func (w *world) finish() error {
	w.t.Helper()
	j, job := w.resume()
	return w.engine().Finish(w.t.Context(), j, job)
}

func (w *world) undo() error {
	w.t.Helper()
	j, job := w.resume()
	return w.engine().Undo(w.t.Context(), j, job)
}

// kept is all that a kill leaves.
func (w *world) kept() (cluster, state map[string][]byte) {
	w.t.Helper()
	return w.Kept(), fakes.Files(w.t, w.state)
}

// part has a part of the test begin where the test has.
func (w *world) part(t *testing.T, cluster map[string][]byte) {
	t.Helper()
	w.t, w.down, w.slot, w.standbys = t, false, "rex_pm02", nil
	w.For(t)
	w.set(cluster, nil)
}

func (w *world) set(cluster, state map[string][]byte) {
	w.t.Helper()
	w.Set(cluster)
	fakes.SetFiles(w.t, w.state, state)
}

// wantEnd wants a configuration, to the letter, and no journal.
func (w *world) wantEnd(how, configuration string) {
	w.t.Helper()
	if diff := cmp.Diff(configuration, w.Configuration()); diff != "" {
		w.t.Errorf("%s, the configuration is (-wanted +there):\n%s", how, diff)
	}
	if left := operation.Left(w.state); !left.None() {
		w.t.Errorf("%s, a journal is there: %+v", how, left)
	}
}

// changing are the steps that change something.
var changing = []string{"prefix", "maintenance", "parameter", "leave", "drop-maintenance"}

// Slots are handed over or back, and nothing else is changed.
func TestHandover(t *testing.T) {
	for name, want := range map[string]struct{ parameter, prefix string }{Adopt: {"", "rex"}, Release: {"rex", ""}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, name)
			before := w.Cluster()
			w.must(w.engine().Do(t.Context(), w.job()))
			after := w.Cluster()
			c := after.Clones[0]
			if c.Parameters[slotParameter] != want.parameter || c.Meta[model.MetaSlotPrefix] != want.prefix {
				t.Errorf("the parameters are %v, the meta attributes %v", c.Parameters, c.Meta)
			}
			const asked = "crm_resource --wait --timeout=25s\ncrm_resource --refresh --resource pgsql\n"
			if w.Asked() != asked || !operation.Left(w.state).None() {
				t.Errorf("Pacemaker was asked for %q, and left is %v", w.Asked(), operation.Left(w.state))
			}
			for _, cluster := range []model.Cluster{before, after} {
				delete(cluster.Clones[0].Parameters, slotParameter)
				delete(cluster.Clones[0].Meta, model.MetaSlotPrefix)
			}
			before.Version = after.Version
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("changed is (-before +after), too:\n%s", diff)
			}
			if job, err := w.plan(); err != nil || len(job.Steps) > 0 {
				t.Errorf("done once more, it has %d steps, %v", len(job.Steps), err)
			}
		})
	}
}

// Killed at any step that changes something, it is finished, or from the same point undone. A release has the same
// steps in another order: the points within one of them are adopt's alone.
func TestHandoverKilled(t *testing.T) {
	for _, name := range []string{Adopt, Release} {
		w := newWorld(t, name)
		cluster, state := w.kept()
		before := w.Configuration()
		w.must(w.engine().Do(t.Context(), w.job()))
		whole := w.Configuration()
		w.set(cluster, state)
		steps := w.job().Steps
		ids := slices.DeleteFunc(slices.Clone(steps), func(s operation.Step) bool { return !slices.Contains(changing, s.ID) })
		if len(ids) != len(changing) {
			t.Fatalf("what changes something are %d steps", len(ids))
		}
		for _, s := range ids {
			for _, at := range map[string][]fakes.Point{Adopt: fakes.Points, Release: {fakes.Between}}[name] {
				t.Run(name+" "+s.ID+" "+string(at), func(t *testing.T) {
					w.part(t, cluster)
					fakes.Killed(t, w.engine(), w.job(), s.ID, at)
					leftCluster, leftState := w.kept()
					w.must(w.finish())
					w.wantEnd("finished", whole)

					w.set(leftCluster, leftState)
					w.must(w.undo())
					want := before
					if s.ID == "drop-maintenance" || s.ID == "leave" && at != fakes.Before {
						want = whole // the point of no return is passed
					}
					w.wantEnd("undone", want)
				})
			}
		}
		w.part(t, cluster)
	}
}

// Where the parameter is set for the clone, too, removing the primitive's changes nothing: all is undone.
func TestParameterElsewhere(t *testing.T) {
	w := newWorld(t, Adopt)
	w.CIBAdmin("--modify", "--scope", "resources", "--xml-text",
		`<clone id="msPostgresql"><instance_attributes id="more"><nvpair id="more-1" name="`+slotParameter+`" value="rex"/></instance_attributes></clone>`)
	before := w.Configuration()
	err := w.engine().Do(t.Context(), w.job())
	if err == nil || !strings.Contains(err.Error(), `it is still "rex", because it is set elsewhere, too`) {
		t.Errorf("it ends with %v", err)
	}
	w.wantEnd("failed", before)
}

// Where Pacemaker cannot be told to look again, the database would be restarted once maintenance-mode is left: it
// stays, with the journal and the token, until a later undo goes through.
func TestUndoWithoutRefresh(t *testing.T) {
	w := newWorld(t, Adopt)
	before := w.Configuration()
	fakes.Killed(t, w.engine(), w.job(), "parameter", fakes.Between)
	for _, option := range []string{"--refresh", "--wait"} {
		w.Fail(option)
		err := w.undo()
		if err == nil || !strings.Contains(err.Error(), "this step could not be undone, and the steps before it stay done") {
			t.Errorf("with %s failing it is undone: %v", option, err)
		}
		c := w.Cluster()
		token, is, err := c.Token("pgsql")
		if !c.Maintenance || !is || err != nil || token.Phase != model.PhaseMaintenance || operation.Left(w.state).None() {
			t.Errorf("maintenance-mode is %t, the token %s, left is %v", c.Maintenance, token, operation.Left(w.state))
		}
	}
	w.Fail("")
	w.must(w.undo())
	w.wantEnd("undone", before)
}

// failed has the standby's last action have failed.
func (w *world) failed() {
	w.t.Helper()
	w.CIBAdmin("--modify", "--xpath", "//node_state[@id='2']//lrm_rsc_op", "--xml-text",
		`<lrm_rsc_op id="pgsql_last_0" rc-code="1" transition-magic="0:1;1:1:0:4fe152cd-0709-489f-be86-f616ea064e34"/>`)
}

// knownRoles is the wait at the end of what takes the parameter back.
func knownRoles(t *testing.T, job operation.Job) operation.Wait {
	t.Helper()
	back := fakes.Step(t, job.Steps, "parameter").Back
	return back[len(back)-1].(operation.Wait)
}

// A database here that has ended with its host has no role any more, and will have none while maintenance-mode is on:
// that is known. Everything else has to be as it was.
func TestRolesKnownAgain(t *testing.T) {
	w := newWorld(t, Adopt)
	cluster, _ := w.kept()
	wait := knownRoles(t, w.job())
	for name, test := range map[string]struct {
		happens func(w *world)
		known   bool
	}{
		"as before":                  {func(*world) {}, true},
		"down, stopped":              {func(w *world) { w.down = true; w.Did("pm01", "stop") }, true},
		"runs, though it is stopped": {func(w *world) { w.Did("pm01", "stop") }, false},
		"down, not yet seen to be":   {func(w *world) { w.down = true; w.Did("pm01", "start") }, false},
		"down, the standby failed":   {func(w *world) { w.down = true; w.Did("pm01", "stop"); w.failed() }, false},
		"another role":               {func(w *world) { w.Did("pm02", "stop") }, false},
		"no sign of a primary, here": {func(w *world) { w.Run(cib.SetAttribute("pm01", "pgsql-status", "HS:alone")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w.part(t, cluster)
			test.happens(w)
			if _, err := wait.Condition(t.Context()); (err == nil) != test.known {
				t.Errorf("known: %t, not %t: %v", err == nil, test.known, err)
			}
		})
	}
}

// After the primary's power cut, what its operation had begun is undone on it, though the database is not there
// yet.
func TestUndoAfterPowerCut(t *testing.T) {
	w := newWorld(t, Adopt)
	before := w.Configuration()
	fakes.Killed(t, w.engine(), w.job(), "refresh", fakes.Between)
	w.down = true
	w.CIBAdmin("--delete", "--xpath", "//node_state[@id='1']/lrm")
	w.Did("pm01", "stop")
	w.Run(cib.SetAttribute("pm01", "pgsql-status", ""))
	w.must(w.undo())
	w.wantEnd("undone", before)
}

// A plan that is damaged, of another pgrex, or of another database is not guessed at.
func TestResumeOfAnother(t *testing.T) {
	w := newWorld(t, Adopt)
	fakes.Killed(t, w.engine(), w.job(), "parameter", fakes.Between)
	cluster, state := w.kept()
	j, _ := w.resume()
	for _, plan := range []string{``, `{`, `{"prefix": 7}`, `{"prefix": "rex", "later": true}`, `[]`} {
		damaged := *j
		damaged.Plan = []byte(plan)
		if _, err := w.handover().Resume(t.Context(), &damaged); err == nil || !strings.Contains(err.Error(), "read the plan in the journal") {
			t.Errorf("the plan %q: %v", plan, err)
		}
	}
	w.program("pg_controldata", "echo 'Database system identifier: 8'")
	for name, end := range map[string]func() error{"finish": w.finish, "undo": w.undo} {
		if err := end(); err == nil || !strings.Contains(err.Error(), "with the system identifier 7, and the one in "+w.Data+" has 8") {
			t.Errorf("%s: %v", name, err)
		}
	}
	nowCluster, nowState := w.kept()
	if diff := cmp.Diff(cluster, nowCluster) + cmp.Diff(state, nowState); diff != "" {
		t.Errorf("something was changed:\n%s", diff)
	}
	w.program("pg_controldata", "exit 1") // damaged data do not say whose they are
	w.must(w.undo())
}

// In a cluster without the operation's token, such as one that was made again, nothing is changed: somebody else may
// have ended it, and begun another one since.
func TestResumeWithoutToken(t *testing.T) {
	w := newWorld(t, Adopt)
	cluster, configuration := w.Kept(), w.Configuration()
	for how, end := range map[string]func(*world) error{"finish": (*world).finish, "undo": (*world).undo} {
		t.Run(how, func(t *testing.T) {
			w.part(t, cluster)
			fakes.Killed(t, w.engine(), w.job(), "maintenance", fakes.After)
			w.Set(cluster)
			if err := end(w); !errors.Is(err, operation.ErrNothingLeft) {
				t.Errorf("it ends with %v", err)
			}
			w.wantEnd("ended", configuration)
		})
	}
}

// What is not as it has to be before a hand-over refuses it, and says what to do.
func TestHandoverRefused(t *testing.T) {
	w := newWorld(t, Release)
	clusters := map[string]map[string][]byte{Release: w.Kept()}
	w.begin(Adopt)
	clusters[Adopt] = w.Kept()
	for name, test := range map[string]struct {
		operation string
		happens   func(w *world)
		says      string
	}{
		"another prefix": {Adopt, func(w *world) {
			w.slot = "other_pm02"
			w.Run(cib.SetMeta("pgsql", model.MetaSlotPrefix, "other"))
		}, "is other and not the agent's rex"},
		"slots on the standbys": {Release, func(w *world) { w.Run(cib.DeleteMeta("msPostgresql", model.MetaStandbySlots)) },
			"set the meta attribute " + model.MetaStandbySlots + "=none first"},
		"not the primary": {Adopt, func(w *world) {
			w.Did("pm01", "start")
			w.Did("pm02", "promote")
			w.Run(cib.SetAttribute("pm01", "pgsql-status", "HS:sync"))
			w.Run(cib.SetAttribute("pm02", "pgsql-status", "PRI"))
			w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "STREAMING|SYNC"))
			w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "LATEST"))
		}, "run it on pm02"},
		"in maintenance": {Release, func(w *world) { w.Run(cib.SetProperty("maintenance-mode", "true")) }, "is in maintenance, where Pacemaker starts and stops nothing"},
		"no quorum":      {Adopt, func(w *world) { w.CIBAdmin("--modify", "--xml-text", `<cib have-quorum="0"/>`) }, "no quorum"},
		"down":           {Adopt, func(w *world) { w.down = true }, "PostgreSQL here is down"},
		"a standby that cannot be asked": {Release, func(w *world) {
			w.standbys = []model.Replication{{Name: "pm02", Address: "192.0.2.256"}}
		}, "pm02 cannot be asked whether its slots are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			w.part(t, clusters[test.operation])
			w.name = test.operation
			test.happens(w)
			if _, err := w.plan(); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// What has changed between the question and the answer ends it before anything is done. So does the same operation,
// begun twice and done once: its own changes stay.
func TestNoLongerAsItWas(t *testing.T) {
	again := func(w *world) { w.must(w.engine().Do(w.t.Context(), w.job())) }
	for operation, changes := range map[string]map[string]func(w *world){
		Adopt: {"an adopt": again},
		Release: {
			"a role":      func(w *world) { w.Did("pm02", "stop") },
			"a parameter": func(w *world) { w.Run(cib.SetParameter("pgsql", "repuser", "other")) },
			"a prefix":    func(w *world) { w.Run(cib.DeleteMeta("pgsql", model.MetaSlotPrefix)) },
			"a failure":   (*world).failed,
			"a release":   again,
		},
	} {
		w := newWorld(t, operation)
		cluster := w.Kept()
		for name, happens := range changes {
			t.Run(operation+" "+name, func(t *testing.T) {
				w.part(t, cluster)
				job := w.job()
				happens(w)
				before := w.Configuration()
				if err := w.engine().Do(t.Context(), job); err == nil || !strings.Contains(err.Error(), "the cluster is no longer as it was") {
					t.Errorf("it ends with %v", err)
				}
				w.wantEnd("refused", before)
			})
		}
		w.part(t, cluster)
	}
}

// An interrupt before the point of no return takes all back; the engine asks for it between two steps.
func TestHandoverInterrupted(t *testing.T) {
	w := newWorld(t, Adopt)
	before := w.Configuration()
	ctx, cancel := context.WithCancel(t.Context())
	e := w.engine()
	e.Report = func(line string) {
		if strings.Contains(line, "--refresh") {
			cancel()
		}
	}
	if err := e.Do(ctx, w.job()); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	w.wantEnd("interrupted", before)
	if n := strings.Count(w.Asked(), "--refresh"); n != 2 {
		t.Errorf("Pacemaker was asked to look %d times:\n%s", n, w.Asked())
	}
}
