package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
)

// fakePostmaster is held until the test ends it, or the daemon lets it go.
type fakePostmaster struct {
	w     *world
	pid   int32
	ended chan struct{}
	let   chan struct{}
	once  sync.Once
	end   model.PostmasterEnd
	looks int
	slow  time.Duration // how long a look at its end takes
	torn  bool          // the first look finds a control file that is being written
	wait  error         // what Wait returns at once
}

func newFakePostmaster(w *world) *fakePostmaster {
	return &fakePostmaster{w: w, pid: 4711, ended: make(chan struct{}), let: make(chan struct{})}
}

func (p *fakePostmaster) PID() int32 { return p.pid }
func (p *fakePostmaster) Close()     { p.once.Do(func() { close(p.let) }) }
func (p *fakePostmaster) Wait() error {
	if p.wait != nil {
		return p.wait
	}
	select {
	case <-p.ended:
		return nil
	case <-p.let:
		return errors.New("let go")
	}
}

func (p *fakePostmaster) End() model.PostmasterEnd {
	p.w.mu.Lock()
	slow := p.slow
	p.looks++
	end := p.end
	if p.torn && p.looks == 1 {
		end.Problem = "its checksum is wrong"
	}
	p.w.mu.Unlock()
	time.Sleep(slow)
	return end
}

// hinted is a world in which a crash of the primary here is told: pm02 may take over.
func hinted() *world {
	w := newWorld()
	w.cluster.DC = "pm02"
	w.cluster.Clones[0].Meta = map[string]string{model.MetaCrashHint: "true"}
	w.cluster.Nodes[1].Transient = map[string]string{"master-pgsql": "100", "pgsql-status": "HS:sync"}
	return w
}

// crash ends the postmaster, and lets the daemon see it.
func (w *world) crash() {
	w.postmaster.end = model.PostmasterEnd{PID: 4711, State: model.InProduction}
	w.instance = model.Instance{State: model.ServerDown, Problem: "nothing listens"}
	close(w.postmaster.ended)
	w.pass(0)
}

const hintLine = "pm01 master-pgsql=-INFINITY"

// TestCrashHint: a crash of the primary is told at once, and once; it is logged, counted and on the status.
func TestCrashHint(t *testing.T) {
	w := hinted()
	live(t, w, false, func() {
		w.pass(2 * time.Second)
		if s := w.status.CrashHint; !s.Enabled || !s.Would || s.Postmaster != 4711 || s.Last != nil {
			t.Errorf("before: %+v", s)
		}
		w.crash()
		if w.tried(hintLine) != 1 || w.said(`"crash hint given"`) != 1 {
			t.Fatalf("did %q\n%s", w.applied, strings.Join(w.log, "\n"))
		}
		w.pass(time.Minute)
		s := w.status.CrashHint
		if w.tried(hintLine) != 1 || s.Given != 1 || s.Last == nil || !s.Last.Given || s.Last.PID != 4711 || s.Postmaster != 0 {
			t.Errorf("a minute later: %q, %+v", w.applied, s)
		}
		if w.said(`"condition began" "code"="CrashHint"`) != 1 {
			t.Errorf("no condition:\n%s", strings.Join(w.log, "\n"))
		}
		w.instance = newWorld().instance // it is back, and promoted again, but its score is not
		w.pass(15 * time.Second)
		if w.said(`"condition ended" "code"="CrashHint"`) != 0 || !slices.ContainsFunc(w.status.Conditions, func(c Condition) bool {
			return c.Code == model.CodeCrashHint && strings.Contains(c.Text, "type: crm_resource --refresh --resource ms --node pm01")
		}) {
			t.Errorf("while the score is -INFINITY: %v", w.status.Conditions)
		}
		w.cluster.Nodes[0].Transient = maps.Clone(w.cluster.Nodes[0].Transient)
		w.cluster.Nodes[0].Transient["master-pgsql"] = "1000"
		w.pass(15 * time.Second)
		if s := w.status.CrashHint; s.Postmaster != 4711 || s.Given != 1 || w.said(`"condition ended" "code"="CrashHint"`) != 1 {
			t.Errorf("once PostgreSQL is back: %+v\n%s", s, strings.Join(w.log, "\n"))
		}
	})
}

// TestWithoutServer: a host that was demoted after a crash is unpromoted to Pacemaker until its next monitor there, but has
// no server: it is shown so, foretells nothing, and is not asked.
func TestWithoutServer(t *testing.T) {
	for agent, without := range map[string]bool{"STOP": true, "HS:async": false} {
		w := newWorld()
		w.cluster.Nodes[1].Transient = map[string]string{"pgsql-status": agent, model.ForecastAttribute("pgsql"): "pm01=stream"}
		live(t, w, false, func() {
			w.pass(2 * time.Second)
			for _, m := range w.status.Members {
				if m.WithoutServer != (without && m.Host == "pm02") || m.WithoutServer && m.Asked != nil {
					t.Errorf("%s: %+v", agent, m)
				}
			}
			for _, f := range w.status.Forecast {
				if want := map[bool]model.Way{true: model.WayUnknown, false: model.WayStream}[without]; f.Candidate == "pm02" && f.Way != want {
					t.Errorf("%s: %+v", agent, f)
				}
			}
			if len(w.status.Members) != 2 || len(w.status.Forecast) != 2 {
				t.Errorf("%+v", w.status)
			}
		})
	}
}

// TestNoCrashHint: each of these ends of a postmaster is told to nobody, and the status says why.
func TestNoCrashHint(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world)
		why   string
	}{
		"a stop":        {func(w *world) { w.postmaster.end.State = "shut down" }, `the control file says "shut down"`},
		"told to stop":  {func(w *world) { w.postmaster.end.Told = true }, "told to stop"},
		"started again": {func(w *world) { w.postmaster.end.Replaced = true }, "another postmaster"},
		"unknown":       {func(w *world) { w.postmaster.end.Problem = "no such file" }, "no such file"},
		"demoting": {func(w *world) {
			w.cluster.Clones[0].Unsettled = map[string]model.Unsettled{"pm01": model.UnsettledDemoting}
		}, "do not agree"},
		"a slow disk":    {func(w *world) { w.postmaster.slow = 3 * time.Second }, "the file system does not answer"},
		"a slow cluster": {func(w *world) { w.takes = func(string) { time.Sleep(1100 * time.Millisecond) } }, "the look took 1.1s"},
		"no cluster":     {func(w *world) { w.clusterErr = errors.New("Pacemaker does not run") }, "Pacemaker does not run"},
		"no heir":        {func(w *world) { w.cluster.Nodes[1].Transient["master-pgsql"] = "-INFINITY" }, "promotion score -INFINITY"},
	} {
		t.Run(name, func(t *testing.T) {
			w := hinted()
			live(t, w, false, func() {
				w.pass(2 * time.Second)
				w.postmaster.end = model.PostmasterEnd{PID: 4711, State: model.InProduction}
				w.cluster.Nodes[1].Transient = maps.Clone(w.cluster.Nodes[1].Transient)
				c.spoil(w)
				w.instance = model.Instance{State: model.ServerDown, Problem: "nothing listens"}
				close(w.postmaster.ended)
				w.pass(time.Minute)
				s := w.status.CrashHint
				if w.tried("master-pgsql") != 0 || s.Given != 0 || s.Last == nil || s.Last.Given || !strings.Contains(s.Last.Why, c.why) {
					t.Errorf("did %q, says %+v", w.applied, s.Last)
				}
				if w.said(`"code"="CrashHint"`) != 0 || w.said(`"the postmaster has ended: no crash hint"`) != 1 {
					t.Errorf("%s", strings.Join(w.log, "\n"))
				}
			})
		})
	}
}

// TestCrashHintLooksAgain: one look that takes too long is no reason not to give a hint if the next one does not.
func TestCrashHintLooksAgain(t *testing.T) {
	w := hinted()
	live(t, w, false, func() {
		w.pass(2 * time.Second)
		var once sync.Once
		w.takes = func(string) { once.Do(func() { time.Sleep(1100 * time.Millisecond) }) }
		w.crash()
		w.pass(2 * time.Second)
		if w.tried(hintLine) != 1 || w.postmaster.looks != 2 {
			t.Errorf("did %q after %d looks", w.applied, w.postmaster.looks)
		}
	})
}

// TestCrashHintLooksAgainAfterAnError: neither a control file that is read while it is written, nor a CIB that cannot be read
// for a moment, is a reason not to look again.
func TestCrashHintLooksAgainAfterAnError(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"a torn control file": func(w *world) { w.postmaster.torn = true },
		"a CIB that cannot be read": func(w *world) {
			w.clusterErr = errors.New("Pacemaker is busy")
			time.AfterFunc(150*time.Millisecond, func() { w.locked(func() { w.clusterErr = nil }) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := hinted()
			live(t, w, false, func() {
				w.pass(2 * time.Second)
				spoil(w)
				w.crash()
				w.pass(time.Second)
				if w.tried(hintLine) != 1 {
					t.Errorf("did %q, says %+v", w.applied, w.status.CrashHint.Last)
				}
			})
		})
	}
}

// TestGlanceKeepsTheName: a CIB that cannot be read for a moment does not make this host's name doubtful.
func TestGlanceKeepsTheName(t *testing.T) {
	w := hinted()
	o := &Observer{Node: "pm01", Clusters: w, name: model.LocalName{Name: "pm01"}}
	w.clusterErr = errors.New("Pacemaker is busy")
	if _, err := o.Glance(t.Context()); err == nil || o.name.Name != "pm01" {
		t.Errorf("%v, %+v", err, o.name)
	}
}

// TestWaitFails: a wait for the postmaster that fails is tried again at the next look, not at once.
func TestWaitFails(t *testing.T) {
	w := hinted()
	w.waitErr = errors.New("no poll")
	live(t, w, false, func() {
		w.pass(10 * time.Second)
		if n := w.said("no poll"); n < 2 || n > 12 {
			t.Errorf("%d waits failed", n)
		}
	})
}

// TestHeldInEveryStateButDown: a server that does not answer is watched, too.
func TestHeldInEveryStateButDown(t *testing.T) {
	for state, held := range map[model.ServerState]bool{model.ServerStarting: true, model.ServerUnreachable: true, model.ServerDown: false} {
		w := hinted()
		w.instance = model.Instance{State: state, Problem: "it does not answer"}
		live(t, w, false, func() {
			w.pass(2 * time.Second)
			if (w.postmaster != nil) != held {
				t.Errorf("%s: held: %t", state, !held)
			}
		})
	}
}

// TestCrashHintDryRun: a dry run says that it would, and does nothing.
func TestCrashHintDryRun(t *testing.T) {
	w := hinted()
	live(t, w, true, func() {
		w.pass(2 * time.Second)
		if s := w.status.CrashHint; s.Would || s.Why != "this is a dry run" {
			t.Errorf("before: %+v", s)
		}
		w.crash()
		w.pass(time.Minute)
		s := w.status.CrashHint
		if len(w.applied) != 0 || s.Given != 0 || s.Last == nil || s.Last.Given || w.said(`"would do" "step"="crash hint"`) != 1 {
			t.Errorf("did %q, says %+v\n%s", w.applied, s.Last, strings.Join(w.log, "\n"))
		}
	})
}

// TestCrashHintFails: Pacemaker does not take the attribute. That is said, and the monitor has to see the crash.
func TestCrashHintFails(t *testing.T) {
	w := hinted()
	live(t, w, false, func() {
		w.pass(2 * time.Second)
		w.fail["master-pgsql"] = errors.New("no answer from attrd")
		w.crash()
		w.pass(time.Minute)
		s := w.status.CrashHint
		if w.tried(hintLine) != 1 || s.Given != 0 || s.Last == nil || !s.Last.Failed || w.said(`"condition began" "code"="CrashHint"`) != 1 {
			t.Errorf("did %q, says %+v\n%s", w.applied, s.Last, strings.Join(w.log, "\n"))
		}
	})
}

// TestCrashHintUnanswered: Pacemaker may still take a hint that it has not answered.
func TestCrashHintUnanswered(t *testing.T) {
	w := hinted()
	live(t, w, false, func() {
		w.pass(2 * time.Second)
		w.fail["master-pgsql"] = fmt.Errorf("attrd_updater: %w", cib.ErrTimeout)
		w.crash()
		w.pass(time.Minute)
		s := w.status.CrashHint
		if s.Last == nil || s.Last.Failed || !s.Last.Unanswered || w.said("Pacemaker has not answered; it may still take the hint") == 0 {
			t.Errorf("says %+v\n%s", s.Last, strings.Join(w.log, "\n"))
		}
	})
}

// TestCrashHintOff: nothing is held where nobody wants a hint, nor any more once it is switched off; and a postmaster that
// cannot be held is said, once.
func TestCrashHintOff(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		w.pass(30 * time.Second)
		if w.postmaster != nil || w.status.CrashHint.Enabled {
			t.Fatalf("held: %+v", w.status.CrashHint)
		}
		w.holdErr = errors.New("no pidfd_open")
		w.cluster.Clones[0].Meta = map[string]string{model.MetaCrashHint: "true"}
		w.pass(30 * time.Second)
		if s := w.status.CrashHint; s.Would || s.Problem != "no pidfd_open" || w.said("the postmaster is not watched") != 1 || w.said(`"condition began" "code"="CrashUnwatched"`) != 1 {
			t.Errorf("%+v\n%s", s, strings.Join(w.log, "\n"))
		}
		w.holdErr = nil
		w.pass(2 * time.Second)
		held := w.postmaster
		if held == nil || w.status.CrashHint.Problem != "" {
			t.Fatalf("not held: %+v", w.status.CrashHint)
		}
		w.cluster.Clones[0].Meta = nil
		w.pass(11 * time.Second)
		select {
		case <-held.let:
		default:
			t.Error("it is still held")
		}
	})
}
