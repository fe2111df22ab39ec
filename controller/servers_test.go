package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// The stories of this file are of clusters in good order; every one ends with all hosts protected.

// TestFromNothing: pgrex comes to a cluster without slots. Once it is done it changes nothing more (I6, I9).
func TestFromNothing(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d hosts", servers), func(t *testing.T) {
			t.Parallel()
			r := newRex(t, servers)
			r.settle()
			r.wantProtected()
			before := map[string]string{}
			for _, h := range r.hosts {
				before[h.name] = h.kept()
			}
			for _, h := range r.hosts {
				plan, result := h.pass()
				if len(plan.Steps) > 0 || len(plan.Findings) > 0 || len(result.Done) > 0 {
					t.Errorf("there is more:\n%s", plan)
				}
			}
			for _, h := range r.hosts {
				if now := h.kept(); now != before[h.name] {
					t.Errorf("a pass without a step changed %s from\n%s\nto\n%s", h.name, before[h.name], now)
				}
			}
		})
	}
}

// TestSlotsFollow: a standby's slots go on with the WAL that is not needed any more, and never further (I5).
func TestSlotsFollow(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3)
	r.settle()
	before := map[string]model.LSN{}
	for _, s := range r.standbys() {
		for _, slot := range s.instance().Slots {
			before[s.name+slot.Name] = slot.RestartLSN
		}
	}
	r.write(64)
	r.passUntil("every slot has gone on", func() bool {
		all := true
		for _, s := range r.standbys() {
			i := s.instance()
			for _, slot := range i.Slots {
				need := i.Redo
				if slot.Name != "pgrex_pm01" {
					need = min(need, r.host("pm01").slotFor(strings.TrimPrefix(slot.Name, "pgrex_")).RestartLSN)
				}
				if slot.RestartLSN > need {
					t.Errorf("%s: %s is at %s, but WAL is needed from %s on", s.name, slot.Name, slot.RestartLSN, need)
				}
				segment := slot.RestartLSN.Segment(i.WALSegmentSize)
				all = all && segment == need.Segment(i.WALSegmentSize) && segment > before[s.name+slot.Name].Segment(i.WALSegmentSize)
			}
		}
		return all
	})
	r.wantProtected()
}

// TestAwayAcrossFailover: a host is off, much is written, and the primary dies. The host comes back to the new primary and
// finds the WAL it needs.
func TestAwayAcrossFailover(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3)
	r.settle()
	r.stop("pm03", "fast")
	held := r.host("pm02").slotFor("pm03").RestartLSN
	r.write(160) // more than max_wal_size: what no slot holds is gone
	r.settle()
	if now := r.host("pm02").slotFor("pm03"); now.RestartLSN != held || now.Lost() {
		t.Errorf("pm02 does not hold WAL for pm03 any more: %+v, before: %s", now, held)
	}
	if now := r.host("pm02").slotFor("pm01"); now.RestartLSN <= held {
		t.Errorf("pm02 holds more than pm01 would need: %+v", now)
	}
	r.stop("pm01", "immediate")
	r.promote("pm02")
	r.write(64)
	r.host("pm03").Follow(r.host("pm02").Server)
	r.started("pm03")
	r.host("pm02").CatchUp(r.host("pm03").Server)
	r.settle()
	r.wantProtected()
}

// TestSwitchover: the primary is stopped, another one promoted, and everyone comes back without a copy. What the old
// primary's slots held vacuum back with is released.
func TestSwitchover(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3)
	r.settle()
	old := r.host("pm01")
	old.Await("the standbys' feedback is seen", func() bool {
		return old.slotFor("pm02").HoldsXMin() && old.slotFor("pm03").HoldsXMin()
	})
	r.stop("pm01", "fast")
	r.promote("pm02")
	r.settle()
	old.Follow(r.host("pm02").Server)
	r.started("pm01")
	if !old.slotFor("pm02").HoldsXMin() || !old.slotFor("pm03").HoldsXMin() {
		t.Errorf("nothing is left to release: %+v", old.instance().Slots)
	}
	xmin := r.host("pm01").slotFor("pm02").XMin
	r.settle()
	r.write(32) // a restartpoint on the new timeline
	r.settle()
	r.wantProtected()
	for _, h := range r.standbys() {
		for _, slot := range h.instance().Slots {
			if slot.HoldsXMin() {
				t.Errorf("%s: %s still holds vacuum back: %+v", h.name, slot.Name, slot)
			}
		}
	}
	next := r.host("pm02")
	next.Await("vacuum gets on", func() bool {
		next.SQL("SELECT pg_current_xact_id()")
		return next.slotFor("pm01").XMin > xmin
	})
}

// TestPromotedInBetween: a host is promoted between its plan and the first step. No step is done.
func TestPromotedInBetween(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2)
	r.addAbsent("pm03")
	r.addAbsent("pm04")
	r.orphans = "drop"
	r.settle()
	h := r.host("pm02")
	h.SQL("SELECT pg_create_physical_replication_slot('pgrex_gone', true), pg_drop_replication_slot('pgrex_pm03')")
	h.SQL("SELECT pg_drop_replication_slot('pgrex_pm04')")
	h.SQL("SELECT pg_create_physical_replication_slot('pgrex_pm04')")
	h.SQL("ALTER SYSTEM SET primary_slot_name = ''")
	h.SQL("SELECT pg_reload_conf()")
	h.Await("the setting counts", func() bool { return h.instance().PrimarySlotName == "" })
	r.write(64)
	plan := h.planForServer()
	kinds := []string{}
	for _, step := range plan.Steps {
		kinds = append(kinds, step.Kind())
	}
	if want := []string{"CreateSlot", "AdvanceSlot", "ResetSlot", "DropSlot", "SetPrimarySlotName"}; !slices.Equal(kinds, want) {
		t.Fatalf("the plan has the steps %v, not %v", kinds, want)
	}
	before := h.kept()

	r.stop("pm01", "fast")
	h.Promote()
	for _, steps := range append([][]model.Step{plan.Steps}, split(plan.Steps)...) {
		if result := h.apply(steps...); !result.Changed || len(result.Done) > 0 || len(result.Failures) > 0 || len(result.Pending) != len(steps) {
			t.Errorf("%s on a host that was promoted since: %+v", steps[0].Kind(), result)
		}
	}
	if now := h.kept(); now != before {
		t.Errorf("something was done: before\n%s\nnow\n%s", before, now)
	}

	r.primary = "pm02"
	r.settle()
	r.wantProtected()
}

// split gives each step alone.
func split(steps []model.Step) [][]model.Step {
	return slices.Collect(slices.Chunk(steps, 1))
}

// TestTakenInBetween: a host that is no member any more comes back between the plan that drops its slot and the drop. The
// slot stays until it is free (I2).
func TestTakenInBetween(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3)
	r.settle()
	r.stop("pm03", "fast")
	r.members, r.orphans = []string{"pm01", "pm02"}, "drop"
	h := r.host("pm01")
	h.Await("the slot is let go", func() bool { return !h.slotFor("pm03").Active })
	plan := h.planForServer()
	if len(plan.Steps) != 1 || plan.Steps[0].Kind() != "DropSlot" {
		t.Fatalf("not the one drop:\n%s", plan)
	}
	r.host("pm03").Start()
	h.Await("the slot is taken", func() bool { return h.slotFor("pm03").Active })
	taken := h.slotFor("pm03")
	if result := h.apply(plan.Steps...); !result.Changed || len(result.Done) > 0 {
		t.Errorf("the drop: %+v", result)
	}
	if plan := h.planForServer(); len(plan.Steps) > 0 || finding(plan, model.CodeSlotBusy).Subject != "pgrex_pm03" {
		t.Errorf("the next plan:\n%s", plan)
	}
	if now := h.slotFor("pm03"); !now.Active || now.ActivePID != taken.ActivePID {
		t.Errorf("the slot was taken from its walsender: %+v", now)
	}
	r.host("pm03").Stop("fast")
	h.Await("the slot is let go again", func() bool { return !h.slotFor("pm03").Active })
	r.settle()
	r.wantProtected() // and no slot for pm03
}

// TestFull: max_replication_slots has no room for all slots. What fits is done, and the rest once there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3, "max_replication_slots = 3")
	h := r.host("pm01")
	h.SQL("SELECT pg_create_physical_replication_slot('barman', true), pg_create_physical_replication_slot('copy', true)")
	var plan model.Plan
	r.passUntil("the full primary can do no more", func() bool {
		plan = h.plan()
		return h.slotFor("pm02").Active && len(plan.Steps) == 0
	})
	if finding(plan, model.CodeCapacityShort).Severity != model.Critical {
		t.Errorf("the plan of a full primary:\n%s", plan)
	}
	h.SQL("SELECT pg_drop_replication_slot('copy')")
	r.settle()
	r.wantProtected()
	if got := h.SQL("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'barman'"); got != "1" {
		t.Error("a slot that is not ours was dropped")
	}
}

// TestFullInBetween: the last room is taken between plan and apply. The steps that need none are done all the same.
func TestFullInBetween(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2, "max_replication_slots = 2")
	r.addAbsent("pm03")
	h := r.host("pm01")
	h.SQL("ALTER SYSTEM SET primary_slot_name = 'pgrex_pm02'") // as a copy of pm02 would have it
	h.SQL("SELECT pg_reload_conf()")
	h.Await("the setting counts", func() bool { return h.instance().PrimarySlotName == "pgrex_pm02" })
	plan := h.planForServer()
	h.SQL("SELECT pg_create_physical_replication_slot('barman', true)")
	result := h.apply(plan.Steps...)
	if len(plan.Steps) != 4 || len(result.Done) != 3 || len(result.Failures) != 1 || result.Failures[0].Class != postgres.Capacity {
		t.Errorf("%s\nin a server that is full: %+v", plan, result)
	}
	h.Await("the step after the one that failed is done", func() bool { return h.instance().PrimarySlotName == "" })
	h.SQL("SELECT pg_drop_replication_slot('barman')")
	r.settle()
	r.wantProtected()
}
