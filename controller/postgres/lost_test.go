package postgres_test

import (
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
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
		if rebuilt.SQL("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") != "0" {
			t.Error("PostgreSQL 18 lets a walreceiver use a lost slot")
		}
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

// TestTrap9ResetForgetsXMin: an old primary's leftover slot holds vacuum back until it is made anew (trap 9).
func TestTrap9ResetForgetsXMin(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, primary)
	primary.Await("the feedback's xmin is seen", func() bool { return slotOf(t, a, "own").HoldsXMin() })
	standby.Stop("immediate")
	primary.Await("the slot is let go", func() bool { return !slotOf(t, a, "own").Active })
	left := slotOf(t, a, "own")
	if !left.HoldsXMin() {
		t.Fatalf("the slot holds no xmin: %+v", left)
	}
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "own", From: left.RestartLSN, Guard: guard(observe(t, a))}), "")
	if now := slotOf(t, a, "own"); now.HoldsXMin() || !now.Reserved() {
		t.Errorf("after the reset: %+v", now)
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
	primary.Configure("idle_replication_slot_timeout = 1s")
	a := adapter(t, primary)
	primary.Await("the slot times out", func() bool { primary.SQL("CHECKPOINT"); return slotOf(t, a, "held").Lost() })
	held := slotOf(t, a, "held")
	if held.InvalidationReason != "idle_timeout" || held.Reserved() || !held.RestartLSN.IsValid() {
		t.Errorf("the slot timed out: %+v", held)
	}
	u, err := adapter(t, standby).ObserveUpstream(t.Context(), []string{"held"})
	if s, ok := u.Slot("held"); err != nil || !ok || s.RestartLSN != held.RestartLSN {
		t.Errorf("the upstream tells of it now, so that model.UpstreamSlot can be right: %+v, %v", u, err)
	}
	primary.Configure("idle_replication_slot_timeout = 0")
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "held", From: held.RestartLSN, Guard: guard(observe(t, a))}), "")
	if now := slotOf(t, a, "held"); !now.Reserved() {
		t.Errorf("after the reset: %+v", now)
	}
}
