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

// TestCutInTheMiddle: the connection is ended while a statement runs.
func TestCutInTheMiddle(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	seen := observe(t, a)
	// An exclusive lock on a catalog that the statement reads makes it wait.
	ctx := t.Context()
	locker, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", server.Dir, server.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Close(context.WithoutCancel(ctx)) }()
	if _, err := locker.Exec(ctx, "BEGIN; LOCK TABLE pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Apply(ctx, model.CreateSlot{Slot: "cut", Guard: guard(seen)}) }()
	var cut bool
	for !cut {
		select {
		case err := <-done:
			t.Fatalf("the statement did not wait: %v", err)
		default:
		}
		err := locker.QueryRow(ctx, "SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity "+
			"WHERE application_name = 'pgrex' AND wait_event_type = 'Lock'").Scan(&cut)
		if err != nil {
			t.Fatal(err)
		}
	}
	wantClass(t, <-done, postgres.Transient)
	if _, err := locker.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	wantClass(t, a.Apply(ctx, model.CreateSlot{Slot: "cut", Guard: guard(seen)}), "")
}

// TestTrap25AnswerLost: the work is done, but the answer is lost. A step tried again does no harm, and the next look
// shows what is so.
func TestTrap25AnswerLost(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	direct := adapter(t, server)
	seen := observe(t, direct)
	server.SQL("SELECT pg_create_physical_replication_slot('unreserved'), pg_create_physical_replication_slot('reserved', true)")
	at := slotOf(t, direct, "reserved").RestartLSN
	for _, c := range []struct {
		step  model.Step
		after postgres.Class // of the same step tried again
		done  func() bool
	}{
		{model.CreateSlot{Slot: "new", Guard: guard(seen)}, postgres.AlreadyDone,
			func() bool { return slotOf(t, direct, "new").Reserved() }},
		{model.ResetSlot{Slot: "unreserved", Guard: guard(seen)}, postgres.Changed,
			func() bool { return slotOf(t, direct, "unreserved").Reserved() }},
		{model.DropSlot{Slot: "reserved", From: at, Guard: guard(seen)}, postgres.Changed,
			func() bool { return slotOf(t, direct, "reserved").Name == "" }},
	} {
		t.Run(c.step.Kind(), func(t *testing.T) {
			p := &proxy{before: []byte("physical"), swallow: true}
			if c.step.Kind() == "DropSlot" {
				p.before = []byte("pg_drop_replication_slot")
			}
			a := p.through(t, server)
			wantState(t, a, model.ServerUp, "")
			wantClass(t, a.Apply(t.Context(), c.step), postgres.Transient)
			if !c.done() {
				t.Fatal("the server answered, but nothing is done")
			}
			wantClass(t, a.Apply(t.Context(), c.step), c.after)
			if !c.done() {
				t.Error("trying again did harm")
			}
		})
	}
}
