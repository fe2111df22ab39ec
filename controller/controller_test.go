package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// world is a cluster of pm01 (primary) and pm02 as pgrex on pm01 meets it: fakes for Pacemaker and PostgreSQL, and
// everything that was done and said.
//
// The daemon's goroutine holds mu in each call of a fake, the test's at all times but in pass.
type world struct {
	mu          sync.Mutex
	cluster     model.Cluster
	clusterErr  error
	instance    model.Instance
	upstream    model.Upstream
	fail        map[string]error // by step text
	reads       int
	asked       int
	applied     []string
	log         []string
	status      Status
	alive       int
	fed         []time.Time       // the watchdog
	takes       func(call string) // lets a call take its time; nil for none
	upstreamErr error
	ready       bool
	hints       chan struct{}
	stateDir    string // kept between two lives of the daemon
	left        *model.LocalOperation
	postmaster  *fakePostmaster // the one that is held
	holdErr     error
	waitErr     error // of the next one that is held
}

func newWorld() *world {
	return &world{
		cluster: model.Cluster{
			Quorate: true, DC: "pm01", Version: model.Version{Epoch: 10},
			Nodes: []model.Node{
				{Name: "pm01", Online: true, Transient: map[string]string{"pgsql-status": "PRI", model.ForecastAttribute("pgsql"): "pm02=unknown"}, Permanent: map[string]string{"pgsql-data-status": "LATEST"}},
				{Name: "pm02", Online: true},
			},
			Clones: []model.Clone{{
				ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
				Parameters: map[string]string{"rep_mode": "async", "node_list": "pm01 pm02"},
				Roles:      map[string]model.Role{"pm01": model.RolePromoted, "pm02": model.RoleUnpromoted},
			}},
		},
		instance: model.Instance{State: model.ServerUp, Version: 150000, SystemID: "7", Redo: 0x5000000, RedoTimeline: 1,
			WALSegmentSize: 16 << 20, MaxSlots: 10},
		fail: map[string]error{},
	}
}

// The fakes' side.

func (w *world) take(call string) {
	if w.takes != nil {
		w.takes(call)
	}
}

func (w *world) Read(context.Context) (model.Cluster, error) {
	w.take("Read")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	c := w.cluster
	c.Nodes, c.Clones = slices.Clone(c.Nodes), slices.Clone(c.Clones)
	return c, w.clusterErr
}

func (w *world) Observe(context.Context) (model.Instance, error) {
	w.take("Observe")
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.instance
	i.Slots = slices.Clone(i.Slots)
	return i, nil
}

func (w *world) ObserveUpstream(context.Context, []string) (model.Upstream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.upstream, w.upstreamErr
}

func (w *world) Apply(_ context.Context, step model.Step) error {
	w.take("Apply")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = append(w.applied, step.Kind()+" "+step.Text())
	if err := w.fail[step.Text()]; err != nil {
		return err
	}
	if s, ok := step.(model.CreateSlot); ok {
		w.instance.Slots = append(w.instance.Slots, model.Slot{Name: s.Slot, Type: model.SlotPhysical, RestartLSN: w.instance.Redo, Active: true})
	}
	return nil
}

func (w *world) SetAttribute(_ context.Context, node, name, value string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = append(w.applied, node+" "+name+"="+value)
	if err := w.fail[name]; err != nil {
		return err
	}
	for i, n := range w.cluster.Nodes {
		if n.Name == node {
			n.Transient = maps.Clone(n.Transient)
			n.Transient[name] = value
			w.cluster.Nodes[i] = n
		}
	}
	return nil
}

func (w *world) operation() *model.LocalOperation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left
}

// Postmaster holds the fake server's process.
func (w *world) Postmaster(context.Context, string) (postgres.Postmaster, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holdErr != nil {
		return nil, w.holdErr
	}
	w.postmaster = newFakePostmaster(w)
	w.postmaster.wait = w.waitErr
	return w.postmaster, nil
}

// Asker gives one that nobody answers.
func (w *world) Asker() (postgres.Asker, error) {
	return func(context.Context, string, []string) (model.Upstream, error) {
		return model.Upstream{}, errors.New("nobody answers")
	}, nil
}

func (w *world) Close()        {}
func (w *world) Status(string) {}
func (w *world) Ready()        { w.locked(func() { w.ready = true }) }
func (w *world) Stopping()     { w.locked(func() { w.ready = false }) }
func (w *world) Alive() {
	w.locked(func() {
		w.alive++
		w.fed = append(w.fed, time.Now())
	})
}
func (w *world) publish(s Status) {
	w.locked(func() { w.status = s })
}
func (w *world) write(line string) {
	w.locked(func() { w.log = append(w.log, line) })
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) said(s string) int  { return countContaining(w.log, s) }
func (w *world) tried(s string) int { return countContaining(w.applied, s) }

func countContaining(lines []string, s string) int {
	n := 0
	for _, l := range lines {
		if strings.Contains(l, s) {
			n++
		}
	}
	return n
}

// live runs the daemon in a bubble of its own time while f tells what happens.
func live(t *testing.T, w *world, dryRun bool, f func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.hints = make(chan struct{}, 1) // of the bubble, or its time would stand still
		kept, err := LoadState(w.stateDir)
		if err != nil {
			w.log = append(w.log, err.Error())
		}
		c := New(Options{
			Observer: &Observer{
				Node: "pm01", Clusters: w, Attributes: w, Connect: func(Target) Server { return w }, Kept: kept, Operation: w.operation,
			},
			StateDir: w.stateDir,
			Hints:    w.hints, DryRun: dryRun, LookEvery: time.Second, ReadEvery: 10 * time.Second,
			Publish: w.publish, Notify: w,
			Log: funcr.New(func(_, args string) { w.write(args) }, funcr.Options{}),
		})
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		synctest.Wait()
		w.mu.Lock()
		f()
		w.mu.Unlock()
		cancel()
		<-done
		if w.ready {
			t.Error("the service manager was not told of the end")
		}
	})
}

// pass lets time go by until everything due has been done.
func (w *world) pass(d time.Duration) {
	w.mu.Unlock()
	defer w.mu.Lock()
	time.Sleep(d)
	synctest.Wait()
}

func TestMakesSlotAndThenIsQuiet(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		if want := []string{"CreateSlot slot pgrex_pm02 for pm02"}; !slices.Equal(w.applied, want) {
			t.Fatalf("did %q, not %q", w.applied, want)
		}
		if !w.ready {
			t.Error("not ready after the first pass")
		}
		w.pass(time.Minute)
		if len(w.applied) != 1 || w.status.StepsDone != 1 {
			t.Errorf("I9: an idle minute did %q", w.applied)
		}
		if w.reads < 6 || w.reads > 10 {
			t.Errorf("the CIB was read %d times in a minute, not about every 10 s", w.reads)
		}
		if w.alive < 55 {
			t.Errorf("the watchdog was fed %d times in a minute of passes", w.alive)
		}
		if !w.status.Healthy || w.status.Summary != "primary; all is as it should be" {
			t.Errorf("status: %q", w.status.Summary)
		}
	})
}

func TestActsOnAFreshCIBOnly(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		w.pass(5 * time.Second)
		reads := w.reads
		w.instance.Slots = nil // dropped by hand
		w.cluster.Clones[0].Roles = map[string]model.Role{"pm02": model.RolePromoted}
		w.applied = nil
		w.pass(time.Second)
		if w.reads == reads {
			t.Error("the CIB was not read again before acting")
		}
		if len(w.applied) > 0 {
			t.Errorf("acted on an old CIB: %q", w.applied)
		}
	})
}

func TestSlotDroppedByHandComesBackWithinASecond(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		w.pass(5 * time.Second)
		w.instance.Slots = nil
		w.pass(time.Second)
		if len(w.instance.Slots) != 1 {
			t.Error("the slot is not back")
		}
	})
}

func TestHintReadsAtOnce(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		reads := w.reads
		w.hints <- struct{}{}
		w.pass(0)
		if w.reads != reads+1 {
			t.Errorf("a hint led to %d reads of the CIB", w.reads-reads)
		}
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld()
	live(t, w, true, func() {
		w.pass(time.Minute)
		if len(w.applied) > 0 {
			t.Errorf("the dry run did %q", w.applied)
		}
		if n := w.said("would do"); n != 1 {
			t.Errorf("the step was said %d times, not once", n)
		}
		if w.status.Healthy || len(w.status.Planned) != 1 {
			t.Errorf("status: %+v", w.status)
		}
	})
}

func TestDownIsWaitedForQuietly(t *testing.T) {
	for name, test := range map[string]struct {
		code        model.Code
		begin, end_ func(w *world)
	}{
		"PostgreSQL": {model.CodeServerDown,
			func(w *world) { w.instance.State, w.instance.Problem = model.ServerDown, "nothing listens" },
			func(w *world) { w.instance.State = model.ServerUp }},
		"Pacemaker": {model.CodeClusterUnknown,
			func(w *world) { w.clusterErr = errors.New("Pacemaker does not run") },
			func(w *world) { w.clusterErr = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			live(t, w, false, func() {
				test.begin(w)
				w.pass(5 * time.Minute)
				if n := w.said(string(test.code)); n != 1 {
					t.Errorf("it was said %d times that it is down:\n%s", n, strings.Join(w.log, "\n"))
				}
				test.end_(w)
				w.pass(11 * time.Second)
				if n := w.said(string(test.code)); n != 2 || !w.status.Healthy {
					t.Errorf("its end was not said, or not seen: %q\n%s", w.status.Summary, strings.Join(w.log, "\n"))
				}
			})
		})
	}
}

func failing(class postgres.Class) error { return &postgres.Error{Class: class, Err: errors.New("no")} }

func TestFailures(t *testing.T) {
	const text = "slot pgrex_pm02 for pm02"
	for _, test := range []struct {
		class    postgres.Class
		min, max int // tries in a minute
		failed   bool
	}{
		{postgres.Transient, 20, 400, true},    // within the step's budget, then again ever less often
		{postgres.NoAnswer, 3, 10, true},       // asked once in a pass
		{postgres.Busy, 3, 10, true},           // a condition
		{postgres.Capacity, 3, 10, true},       // a condition
		{postgres.Permission, 3, 10, true},     // a condition
		{postgres.Changed, 50, 130, false},     // planned anew at once
		{postgres.AlreadyDone, 50, 130, false}, // looked at again
		{postgres.Configuration, 3, 10, true},  // a condition
	} {
		t.Run(string(test.class), func(t *testing.T) {
			w := newWorld()
			w.fail[text] = failing(test.class)
			live(t, w, false, func() {
				for range 60 {
					w.pass(time.Second)
					if age := time.Since(w.status.Read); !w.status.Read.IsZero() && age > 22*time.Second { // health checks go by that
						t.Errorf("the cluster was last looked at %s ago", age)
					}
				}
				if n := w.tried(text); n < test.min || n > test.max {
					t.Errorf("tried %d times in a minute, not %d to %d", n, test.min, test.max)
				}
				if got := len(w.status.Failures) == 1; got != test.failed {
					t.Errorf("failures in the status: %+v", w.status.Failures)
				}
				if test.failed && w.said("step failed") != 1 {
					t.Errorf("the failure was said %d times, not once", w.said("step failed"))
				}
				delete(w.fail, text)
				w.pass(longestHoldOff + 15*time.Second)
				if !w.status.Healthy || len(w.status.Failures) > 0 {
					t.Errorf("not healthy once it works: %q", w.status.Summary)
				}
			})
		})
	}
}

func TestOneFailureStopsNoOtherStep(t *testing.T) {
	w := newWorld()
	w.cluster.Clones[0].Parameters["node_list"] = "pm01 pm02 pm03"
	w.cluster.Nodes = append(w.cluster.Nodes, model.Node{Name: "pm03"})
	w.fail["slot pgrex_pm02 for pm02"] = failing(postgres.Permission)
	live(t, w, false, func() {
		if w.tried("pgrex_pm03") != 1 || len(w.instance.Slots) != 1 {
			t.Errorf("did %q", w.applied)
		}
		// The forecast waits for the slot.
		want := []string{"CreateSlot slot pgrex_pm02 for pm02", "PublishAttribute pgrex-forecast-pgsql: 'pm02=unknown' -> 'pm02=unknown,pm03=unknown'"}
		if !slices.Equal(w.status.Planned, want) || w.tried(model.ForecastAttribute("pgsql")) != 0 {
			t.Errorf("still to do: %q, not %q; done: %q", w.status.Planned, want, w.applied)
		}
	})
}

// TestTakenBackFirst: what was foretold counted on a slot that is gone. Another is made only once that is undone.
func TestTakenBackFirst(t *testing.T) {
	w := newWorld()
	w.cluster.Nodes[0].Transient[model.ForecastAttribute("pgsql")] = "pm02=stream"
	w.fail[model.ForecastAttribute("pgsql")] = failing(postgres.Permission)
	live(t, w, false, func() {
		if w.tried(model.ForecastAttribute("pgsql")) == 0 || w.tried("slot pgrex_pm02") != 0 {
			t.Errorf("did %q", w.applied)
		}
		delete(w.fail, model.ForecastAttribute("pgsql"))
		w.pass(longestHoldOff + 15*time.Second)
		if node, _ := w.cluster.Node("pm01"); node.Attribute(model.ForecastAttribute("pgsql")) != "pm02=unknown" || len(w.instance.Slots) != 1 {
			t.Errorf("did %q", w.applied)
		}
	})
}

func TestChangedEndsThePlan(t *testing.T) {
	w := newWorld()
	w.cluster.Clones[0].Parameters["node_list"] = "pm01 pm02 pm03"
	w.cluster.Nodes = append(w.cluster.Nodes, model.Node{Name: "pm03"})
	w.fail["slot pgrex_pm02 for pm02"] = failing(postgres.Changed)
	live(t, w, false, func() {
		if w.tried("pgrex_pm03") != 0 {
			t.Errorf("went on after a change: %q", w.applied)
		}
	})
}

func TestStandbyAsksUpstreamOnlyWhenOneIsConfirmed(t *testing.T) {
	w := newWorld()
	w.instance.InRecovery = true
	w.cluster.Clones[0].Roles = map[string]model.Role{"pm01": model.RoleUnpromoted, "pm02": model.RoleUnpromoted}
	w.cluster.Nodes[0].Transient = nil
	live(t, w, false, func() {
		w.pass(30 * time.Second)
		if w.asked > 0 {
			t.Errorf("asked an upstream %d times while nobody is primary", w.asked)
		}
		if w.reads < 25 {
			t.Errorf("in transition the CIB was read %d times in 30 s, not every second", w.reads)
		}
	})
}

func TestNoPlanIsSaid(t *testing.T) {
	w := newWorld()
	w.cluster.Clones = nil
	live(t, w, false, func() {
		w.pass(time.Minute)
		if w.said("no promotable clone") != 1 || w.status.Healthy {
			t.Errorf("status %q, log:\n%s", w.status.Summary, strings.Join(w.log, "\n"))
		}
	})
}

func TestTarget(t *testing.T) {
	for _, test := range []struct {
		parameters map[string]string
		override   Target
		want       Target
		err        string
	}{
		{map[string]string{"socketdir": "/run/pg", "pgport": "5433", "pgdba": "pg"}, Target{}, Target{"/var/lib/pgsql/data", "/run/pg", 5433, "pg", "postgres"}, ""},
		{map[string]string{"socketdir": "/run/pg", "start_opt": "-c x=y -p 5434"}, Target{}, Target{"/var/lib/pgsql/data", "/run/pg", 5434, "postgres", "postgres"}, ""},
		{map[string]string{"socketdir": "/run/pg", "start_opt": "-p5434"}, Target{Port: 1, User: "u", Database: "d", DataDir: "/d", SocketDir: "/s"}, Target{"/d", "/s", 1, "u", "d"}, ""},
		{map[string]string{"socketdir": "/run/pg", "pgdata": "/data"}, Target{}, Target{"/data", "/run/pg", 5432, "postgres", "postgres"}, ""},
		{map[string]string{"pgport": "many"}, Target{}, Target{}, `the agent's port "many" is no port number: put pgport right, or use --pg-port`},
	} {
		got, err := targetOf(model.Clone{Parameters: test.parameters}, test.override)
		if got != test.want || fmt.Sprint(err) != test.err && (err != nil || test.err != "") {
			t.Errorf("%v: got %+v, %v", test.parameters, got, err)
		}
	}
}

// A condition's figures are those of the look that the rest of the status is of.
func TestOneLookOneSetOfFigures(t *testing.T) {
	w := newWorld()
	w.instance.Slots = []model.Slot{{Name: "pgrex_pm02", Type: model.SlotPhysical, RestartLSN: 0x5000000, WALStatus: "reserved"}}
	live(t, w, false, func() {
		for range 15 {
			w.instance.Current += 64 << 20
			w.pass(time.Second)
			i := slices.IndexFunc(w.status.Conditions, func(c Condition) bool { return c.Code == model.CodeNotAttached })
			if i < 0 {
				t.Fatalf("%v", w.status.Conditions)
			}
			if holds := model.FormatBytes(w.status.Slots[0].Retained); !strings.Contains(w.status.Conditions[i].Text, holds) {
				t.Errorf("the slot holds %s, and the condition says %q", holds, w.status.Conditions[i].Text)
			}
			if since := w.status.Conditions[i].Since; w.status.Looked.Sub(since) > time.Minute || !since.Equal(w.status.Started) {
				t.Errorf("it holds since %s, and the daemon runs since %s", since, w.status.Started)
			}
		}
		if w.said("condition began") != 1 {
			t.Errorf("said %q", w.log)
		}
	})
}
