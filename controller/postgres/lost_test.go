package postgres_test

import (
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestTrap11LostSlot: a slot that lost its WAL holds nothing. Up to PostgreSQL 17 its standby may attach again all the
// same, once it has the WAL from elsewhere, and then the slot looks alive; no step takes it from its walsender.
func TestTrap11LostSlot(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t, "max_slot_wal_keep_size = 16MB")
	a := adapter(t, primary)
	standby.Stop("fast")
	primary.WriteWAL(64)
	lost := slotOf(t, a, "own")
	if !lost.Lost() || lost.Reserved() || lost.RestartLSN.IsValid() {
		t.Fatalf("the slot is not lost: %+v", lost)
	}
	seen := observe(t, a)

	// The standby starts anew from a copy made now, as a rebuilt one would, with the lost slot's name.
	rebuilt := primary.Standby("primary_slot_name = own")
	if seen.Version >= 180000 {
		// A walreceiver calls itself streaming before it has connected, so that its status proves nothing.
		rebuilt.Await("PostgreSQL 18 refuses the lost slot", func() bool {
			return rebuilt.Logged(`can no longer access replication slot "own"`)
		})
		wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "own", From: lost.RestartLSN, Guard: guard(observe(t, a))}), "")
		rebuilt.Await("the standby streams through the slot made anew", func() bool { return slotOf(t, a, "own").Active })
		return
	}
	rebuilt.Await("the standby has attached to the lost slot", func() bool { return slotOf(t, a, "own").Active })
	rebuilt.Await("the lost slot has a position again", func() bool { return slotOf(t, a, "own").RestartLSN.IsValid() })
	again := slotOf(t, a, "own")
	t.Logf("PostgreSQL %d: a lost slot in use: wal_status %q, invalidation_reason %q, lost: %t", seen.Version, again.WALStatus, again.InvalidationReason, again.Lost())
	for _, from := range []model.LSN{0, again.RestartLSN} {
		wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "own", From: from, Guard: guard(observe(t, a))}), postgres.Changed)
	}
	rebuilt.Stop("fast")
	primary.Await("the slot is let go", func() bool { return !slotOf(t, a, "own").Active })
	idle := slotOf(t, a, "own")
	t.Logf("and out of use: wal_status %q, invalidation_reason %q, lost: %t", idle.WALStatus, idle.InvalidationReason, idle.Lost())
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "own", From: idle.RestartLSN, Guard: guard(observe(t, a))}), "")
	if now := slotOf(t, a, "own"); !now.Reserved() {
		t.Errorf("after the reset: %+v", now)
	}
}

// TestTrap9ReleaseXMin: a slot that nobody uses holds vacuum back until its xmin is released. The WAL it holds stays.
func TestTrap9ReleaseXMin(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	standby.SQL("SELECT pg_create_physical_replication_slot('0_next', true)")
	next := standby.Standby("primary_slot_name = '0_next'")
	for _, held := range []struct {
		server, owner *pgserver.Server
		slot          string
	}{{standby, next, "0_next"}, {primary, standby, "own"}} {
		a := adapter(t, held.server)
		step := model.ReleaseXMin{Slot: held.slot, Guard: guard(observe(t, a))}
		held.server.Await("the feedback's xmin is seen", func() bool { return slotOf(t, a, held.slot).HoldsXMin() })
		step.From = slotOf(t, a, held.slot).RestartLSN
		if class := postgres.ClassOf(a.Apply(t.Context(), step)); class != postgres.Changed {
			t.Errorf("%s: the xmin of a slot in use is released: %s", held.slot, class)
		}
		held.owner.Stop("immediate")
		held.server.Await("the slot is let go", func() bool { return !slotOf(t, a, held.slot).Active })
		primary.WriteWAL(40)
		left := slotOf(t, a, held.slot)
		if !left.HoldsXMin() {
			t.Fatalf("the slot holds no xmin: %+v", left)
		}
		step.From = left.RestartLSN
		for name, guard := range map[string]model.Guard{
			"role":     {SystemID: step.Guard.SystemID, InRecovery: !step.Guard.InRecovery, RedoTimeline: step.Guard.RedoTimeline},
			"system":   {SystemID: "1", InRecovery: step.Guard.InRecovery, RedoTimeline: step.Guard.RedoTimeline},
			"timeline": {SystemID: step.Guard.SystemID, InRecovery: step.Guard.InRecovery, RedoTimeline: 9},
		} {
			other := step
			other.Guard = guard
			if class := postgres.ClassOf(a.Apply(t.Context(), other)); class != postgres.Changed {
				t.Errorf("%s: planned on another %s: %s", held.slot, name, class)
			}
		}
		wantClass(t, a.Apply(t.Context(), step), "")
		if now := slotOf(t, a, held.slot); now.HoldsXMin() || now.RestartLSN != left.RestartLSN || now.Active {
			t.Errorf("released: %+v, before: %+v", now, left)
		}
		wantClass(t, a.Apply(t.Context(), step), "") // there is nothing to release any more
	}
}

// TestTrap22IdleTimeout: PostgreSQL 18 invalidates a slot that nobody uses, and leaves its restart_lsn. The local view says
// that it is lost; READ_REPLICATION_SLOT does not, so that from a standby it looks like a good one.
func TestTrap22IdleTimeout(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	if primary.SQL("SELECT current_setting('idle_replication_slot_timeout', true) IS NULL") == "t" {
		return // an older PostgreSQL: slots never time out
	}
	primary.SQL("SELECT pg_create_physical_replication_slot('held', true)")
	primary.Configure("idle_replication_slot_timeout = 2s")
	a := adapter(t, primary)
	kept := slotOf(t, a, "held")
	step := model.TouchSlot{Slot: "held", From: kept.RestartLSN, Guard: guard(observe(t, a))}
	primary.Await("half of the timeout has passed", func() bool { return slotOf(t, a, "held").Idle >= 1 })
	touched := time.Now()
	wantClass(t, a.Apply(t.Context(), step), "")
	if now := slotOf(t, a, "held"); now.Idle > time.Since(touched).Seconds() || now.RestartLSN != kept.RestartLSN || observe(t, a).IdleSlotTimeout != 2 {
		t.Errorf("the slot was touched: %+v, before: %+v", now, kept)
	}
	primary.Await("the slot times out", func() bool { primary.SQL("CHECKPOINT"); return slotOf(t, a, "held").Lost() })
	held := slotOf(t, a, "held")
	if held.InvalidationReason != "idle_timeout" || held.Reserved() || !held.RestartLSN.IsValid() {
		t.Errorf("the slot timed out: %+v", held)
	}
	u, err := askUpstream(t, adapter(t, standby), "held")
	if s, ok := u.Slot("held"); err != nil || !ok || s.RestartLSN != held.RestartLSN {
		t.Errorf("the upstream tells of it now, so that model.UpstreamSlot can be right: %+v, %v", u, err)
	}
	primary.Configure("idle_replication_slot_timeout = 0")
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "held", From: held.RestartLSN, Guard: guard(observe(t, a))}), "")
	if now := slotOf(t, a, "held"); !now.Reserved() {
		t.Errorf("after the reset: %+v", now)
	}
}
