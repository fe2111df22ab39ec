package postgres_test

import (
	"fmt"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// PostgreSQL writes a slot's new position to disk at the next checkpoint only. After a crash the slot stands further
// back, and holds more again. These tests say what that costs, on each version.

// write writes megabytes of WAL, and makes no checkpoint.
func write(s *pgserver.Server, megabytes int) {
	s.SQL(fmt.Sprintf("SELECT count(pg_logical_emit_message(false, '', repeat('x', 1 << 20))) FROM generate_series(1, %d)", megabytes))
	s.SQL("SELECT pg_switch_wal()")
}

// TestCrashKeepsWAL: a slot is advanced while a checkpoint is under way, which has written the slot down already. When
// the checkpoint ends, it keeps the WAL that the slot on disk needs: after a crash nothing is missing.
func TestCrashKeepsWAL(t *testing.T) {
	t.Parallel()
	s := pgserver.New(t, "checkpoint_timeout = 1h", "checkpoint_completion_target = 0.9", "max_wal_size = 4GB", "min_wal_size = 32MB", "wal_keep_size = 0")
	a := adapter(t, s)
	s.SQL("SELECT pg_create_physical_replication_slot('own', true)")
	from := slotOf(t, a, "own").RestartLSN
	s.SQL("CREATE TABLE t AS SELECT g AS i, repeat('x', 500) AS f FROM generate_series(1, 20000) g")
	write(s, 96)
	end := restartpoint(t, s)
	s.SQL("SELECT pg_replication_slot_advance('own', pg_current_wal_lsn())")
	if to := slotOf(t, a, "own").RestartLSN; from.BytesTo(to) < 96*model.MiB {
		t.Fatalf("the slot has gone from %s to %s only", from, to)
	}
	s.Configure("checkpoint_completion_target = 0") // the checkpoint goes on at full speed
	s.Await("the checkpoint is complete", func() bool { return s.Logged("checkpoint complete") })
	end()
	s.Stop("immediate")
	s.Start()
	after := slotOf(t, a, "own")
	t.Logf("PostgreSQL %s: the slot is back at %s, of %s, with wal_status %q", s.SQL("SHOW server_version"), after.RestartLSN, from, after.WALStatus)
	oldest := s.SQL("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
	if first := s.SQL(fmt.Sprintf("SELECT pg_walfile_name('%s')", after.RestartLSN)); oldest > first {
		t.Errorf("the slot stands in %s, and the oldest WAL is %s", first, oldest)
	}
}

// TestCrashLosesSlot: what a slot holds on disk and what came since the last checkpoint are more than the budget.
// Before
// anybody can connect, the checkpoint at the end of recovery gives the slot up.
func TestCrashLosesSlot(t *testing.T) {
	t.Parallel()
	s := pgserver.New(t, "checkpoint_timeout = 1h", "max_wal_size = 4GB", "wal_keep_size = 0", "max_slot_wal_keep_size = 96MB")
	a := adapter(t, s)
	s.SQL("SELECT pg_create_physical_replication_slot('own', true)")
	write(s, 64)
	s.SQL("CHECKPOINT")
	s.SQL("SELECT pg_replication_slot_advance('own', pg_current_wal_lsn())")
	write(s, 64)
	before := slotOf(t, a, "own")
	s.Stop("immediate")
	s.Start()
	after := slotOf(t, a, "own")
	t.Logf("PostgreSQL %s: wal_status %q, invalidation_reason %q", s.SQL("SHOW server_version"), after.WALStatus, after.InvalidationReason)
	if before.Lost() || !after.Lost() {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
