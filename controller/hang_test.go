package controller

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// ofUnit is a time that the unit sets.
func ofUnit(t *testing.T, name string) time.Duration {
	t.Helper()
	unit, err := os.ReadFile("../hack/systemd/pgrex.service")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + `=(\d+)$`).FindSubmatch(unit)
	if found == nil {
		t.Fatalf("the unit sets no %s in seconds", name)
	}
	seconds, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds) * time.Second
}

// TestDeadlines: all that a pass asks before its first step may come at its deadline, one after the other, and the
// watchdog
// has time left, even if it were not fed. So has it for each step with its tries, of which there may be any number.
// The end
// of the daemon has time left, too.
func TestDeadlines(t *testing.T) {
	const (
		cluster = 2 * cib.DefaultTimeout
		look    = postgres.ObserveTakes
		full    = cluster + nameTimeout + versionsTimeout + postgres.ObserveTakes + postgres.UpstreamTakes
		step    = stepBudget + max(postgres.ApplyTakes, cib.AttributeTimeout)
	)
	watchdog, stop := ofUnit(t, "WatchdogSec"), ofUnit(t, "TimeoutStopSec")
	if look+full >= watchdog || step >= watchdog {
		t.Errorf("a look may take %s, a step %s, and the watchdog waits for %s", look+full, step, watchdog)
	}
	if step >= stop {
		t.Errorf("a step that has begun may take %s, and the end is to come within %s", step, stop)
	}
}

// TestCallsFeedTheWatchdog: a pass may take longer than the watchdog waits. Each call that ends says that the loop
// lives.
func TestCallsFeedTheWatchdog(t *testing.T) {
	w := newWorld()
	members := "pm01 pm02"
	for n := 3; n <= 9; n++ {
		name := fmt.Sprintf("pm%02d", n)
		members += " " + name
		w.cluster.Nodes = append(w.cluster.Nodes, model.Node{Name: name})
	}
	w.cluster.Clones[0].Parameters["node_list"] = members
	const each = 9 * time.Second
	w.takes = func(string) { time.Sleep(each) }
	live(t, w, false, func() {
		last := time.Now()
		w.pass(11 * each)
		if len(w.instance.Slots) != 8 {
			t.Fatalf("did %q", w.applied)
		}
		for _, at := range w.fed {
			if at.Sub(last) > each+time.Second {
				t.Errorf("the watchdog was not fed for %s", at.Sub(last))
			}
			last = at
		}
		if time.Since(last) > each+time.Second {
			t.Errorf("the watchdog was last fed %s ago", time.Since(last))
		}
	})
}

// TestTrap37NoAnswerEndsThePass: after a step without an answer no other is tried, and what is to do says why.
func TestTrap37NoAnswerEndsThePass(t *testing.T) {
	w := newWorld()
	w.cluster.Clones[0].Parameters["node_list"] = "pm01 pm02 pm03"
	w.cluster.Nodes = append(w.cluster.Nodes, model.Node{Name: "pm03"})
	w.fail["slot pgrex_pm02 for pm02"] = failing(postgres.NoAnswer)
	live(t, w, false, func() {
		w.pass(5 * time.Second)
		if w.tried("pgrex_pm03") != 0 || len(w.status.Planned) != 3 || len(w.status.Failures) != 1 {
			t.Errorf("did %q, still to do: %q, failures: %+v", w.applied, w.status.Planned, w.status.Failures)
		}
		w.fail = map[string]error{}
		w.pass(longestHoldOff + 15*time.Second)
		if !w.status.Healthy {
			t.Errorf("status: %q", w.status.Summary)
		}
	})
}

// TestTrap37UnreachableServer: nobody else is asked in a pass in which the server does not answer.
func TestTrap37UnreachableServer(t *testing.T) {
	w := newWorld()
	live(t, w, false, func() {
		w.pass(5500 * time.Millisecond)
		reads := w.reads
		w.instance.State, w.instance.Problem = model.ServerUnreachable, "has not answered"
		w.pass(time.Second)
		if w.reads != reads || w.said("has not answered") != 1 || w.status.Server.State != model.ServerUnreachable {
			t.Errorf("the CIB was read %d times, the server is %q; log: %q", w.reads-reads, w.status.Server.State, w.log)
		}
		w.instance.State = model.ServerUp
		w.pass(2 * time.Second)
		if !w.status.Healthy {
			t.Errorf("status: %q", w.status.Summary)
		}
	})
}

// TestTrap37UpstreamHangs: the pass in which a primary does not answer ends with that. In the next ones it is told at
// once,
// and what has to be done in doubt is done.
func TestTrap37UpstreamHangs(t *testing.T) {
	w := newWorld()
	w.instance.InRecovery = true
	w.instance.Receiver = &model.WALReceiver{Status: "streaming", SlotName: "pgrex_pm01", Timeline: 1}
	w.instance.PrimarySlotName = "pgrex_pm01"
	w.instance.Budget = &model.Budget{MaxSlotWALKeepSize: 1 << 30, MaxWALSize: 1024}
	w.instance.WALSpace = &model.WALSpace{Size: 8 << 30, Free: 4 << 30}
	w.cluster.Clones[0].Roles = map[string]model.Role{"pm01": model.RoleUnpromoted, "pm02": model.RolePromoted}
	w.cluster.Nodes[0].Transient = nil
	w.cluster.Nodes[0].Permanent = nil
	w.cluster.Nodes[1].Transient = map[string]string{"pgsql-status": "PRI"}
	w.cluster.Nodes[1].Permanent = map[string]string{"pgsql-data-status": "LATEST"}
	w.upstreamErr = &postgres.Error{Class: postgres.NoAnswer, Doing: "ask", Err: fmt.Errorf("the upstream has not answered since noon")}
	live(t, w, false, func() {
		if len(w.applied) != 0 || len(w.status.Planned) == 0 {
			t.Errorf("after a call without an answer, of %q in the same pass was done %q", w.status.Planned, w.applied)
		}
		w.pass(2 * time.Second)
		if w.tried("max_slot_wal_keep_size") == 0 {
			t.Errorf("what the disk needs was not done: %q", w.status.Planned)
		}
	})
}
