package postgres_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestRestartpointUnderWay: as soon as a restartpoint has begun PostgreSQL reserves from its redo on, while the
// control file shows the one before. What a slot holds then is never let go of, and what it cannot hold is known.
func TestRestartpointUnderWay(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	standby := primary.Standby("checkpoint_timeout = 1h", "checkpoint_completion_target = 0.9", "max_wal_size = 4GB")
	a := adapter(t, standby)
	caughtUp := func() {
		t.Helper()
		end := primary.SQL("SELECT pg_current_wal_flush_lsn()")
		standby.Await("the standby has replayed all", func() bool {
			return standby.SQL(fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s'", end)) == "t"
		})
	}
	at := func(name string) model.LSN { t.Helper(); return slotOf(t, a, name).RestartLSN }
	standby.SQL("SELECT pg_create_physical_replication_slot('between', true), pg_create_physical_replication_slot('beyond', true)")
	primary.SQL("CREATE TABLE t AS SELECT g AS i, repeat('x', 500) AS f FROM generate_series(1, 20000) g")
	caughtUp()
	standby.SQL("SELECT pg_replication_slot_advance('between', pg_last_wal_replay_lsn())")
	primary.SQL("UPDATE t SET i = i + 1")
	primary.SQL("CHECKPOINT")
	primary.SQL("UPDATE t SET i = i + 1")
	caughtUp()
	standby.SQL("SELECT pg_replication_slot_advance('beyond', pg_last_wal_replay_lsn())")
	between, beyond := at("between"), at("beyond")

	endRestartpoint := restartpoint(t, standby)
	seen := observe(t, a)
	if between <= seen.Redo || seen.Reserves.IsValid() {
		t.Fatalf("'between' is at %s, and the last restartpoint at %s, %s", between, seen.Redo, seen.Reserves)
	}
	g := guard(seen)

	// One that is made anew would let go of WAL: it stays.
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "between", From: between, Guard: g}), postgres.Changed)
	if now := at("between"); now != between {
		t.Fatalf("'between' held WAL from %s on, and now from %s on", between, now)
	}
	seen = observe(t, a)
	began := seen.Reserves
	if began <= between || began >= beyond {
		t.Fatalf("the restartpoint began at %s; 'between' is at %s, 'beyond' at %s", began, between, beyond)
	}
	// One that goes back by it is made anew, as far as is known by now.
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "beyond", From: beyond, Guard: g}), "")
	if now := at("beyond"); now != began {
		t.Errorf("'beyond' is at %s, not %s", now, began)
	}
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "new", Guard: g}), "")
	if slots := standby.SQL("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"); slots != "between beyond new" {
		t.Errorf("the slots are %s", slots)
	}

	// To somebody who does not know of the restartpoint yet, a slot is made further on than was planned.
	b := adapter(t, standby)
	observe(t, b)
	wantClass(t, b.Apply(t.Context(), model.CreateSlot{Slot: "further", Guard: g}), postgres.Changed)
	if now := observe(t, b); now.Reserves != began || at("further") != began {
		t.Errorf("it is at %s, and is said to be at %s, not %s", at("further"), now.Reserves, began)
	}

	endRestartpoint()
	standby.SQL("CHECKPOINT")
	if now := observe(t, a); now.Redo != began || now.Reserves.IsValid() {
		t.Errorf("after the restartpoint the redo is %s, not %s, and slots are said to begin at %s", now.Redo, began, now.Reserves)
	}
}

// restartpoint begins one that takes its time, and returns when it is under way.
func restartpoint(t *testing.T, standby *pgserver.Server) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := pgx.Connect(ctx, standby.Conninfo()+" dbname=postgres")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = conn.Exec(ctx, "SELECT pg_backup_start('test', false)") // ends with the test
	}()
	end = func() { cancel(); <-done; _ = conn.Close(context.WithoutCancel(ctx)) }
	t.Cleanup(end)
	standby.Await("a restartpoint is under way", func() bool {
		return standby.SQL("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'checkpointer'") == "CheckpointWriteDelay"
	})
	return end
}
