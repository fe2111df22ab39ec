package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestTrap11LostAndBack: a standby is off for longer than max_slot_wal_keep_size lets its slot hold WAL. Nothing is done about
// the lost slot until its owner has come back by way of an archive. Then it is made anew, and does hold WAL.
func TestTrap11LostAndBack(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3, "archive_mode = on", "archive_command = 'mkdir -p ../archive && cp %p ../archive/%f'")
	r.settle()
	primary, away := r.host("pm01"), r.host("pm03")
	r.stop("pm03", "fast")
	r.write(64)
	primary.Configure("max_slot_wal_keep_size = 16MB") // only now, or pm02 may lose its slot as well
	primary.Await("the slot is lost", func() bool {
		primary.pass() // an operator's own value counts: pgrex takes its own out
		primary.SQL("CHECKPOINT")
		return primary.slotFor("pm03").Lost()
	})
	r.settle()
	for _, h := range r.running() {
		before := h.kept()
		plan, _ := h.pass()
		if h == primary && finding(plan, model.CodeRebuildRequired).Subject != "pm03" {
			t.Errorf("the plan of a primary with a lost slot:\n%s", plan)
		}
		if now := h.kept(); now != before {
			t.Errorf("something was done on %s for a host that needs a copy: before\n%s\nnow\n%s", h.name, before, now)
		}
	}
	if held := r.host("pm02").slotFor("pm03"); !held.Reserved() {
		t.Errorf("the standby has let go what the primary lost: %+v", held)
	}

	// Should pgrex on pm03 come late, PostgreSQL up to 17 lets it attach to the lost slot, which holds nothing in 16 and 17 even
	// so. It is made anew as soon as it is free.
	archive := "restore_command=cp " + primary.Dir + "/archive/%f %p"
	away.Start("-c", archive)
	if primary.instance().Version < 180000 {
		primary.Await("the lost slot is in use", func() bool {
			slot := primary.slotFor("pm03")
			return slot.Active && slot.RestartLSN.IsValid()
		})
	}
	away.Stop("fast")
	r.passUntil("the slot is free", func() bool { return !primary.slotFor("pm03").Active })
	r.settle()
	away.Start("-c", archive)
	r.started("pm03")
	r.settle()
	r.wantProtected()

	primary.Configure("max_slot_wal_keep_size = -1")
	r.stop("pm03", "fast")
	r.write(160)
	away.Start() // without the archive
	r.started("pm03")
	r.settle()
	r.wantProtected()
}

// TestTrap22HeldSlotsTimeOut: PostgreSQL 18 invalidates slots that nobody uses. Those of a host that is away are kept as
// long as pgrex looks after them; without it they are lost, and made anew, since no WAL is gone yet.
func TestTrap22HeldSlotsTimeOut(t *testing.T) {
	t.Parallel()
	r := newRex(t, 3)
	if r.host("pm01").SQL("SELECT current_setting('idle_replication_slot_timeout', true) IS NULL") == "t" {
		return // an older PostgreSQL: slots never time out
	}
	r.settle()
	r.stop("pm03", "fast")
	const timeout = 4 // seconds
	idle := func(seconds float64) func() bool {
		return func() bool {
			return r.host("pm01").slotFor("pm03").Idle >= seconds && r.host("pm02").slotFor("pm03").Idle >= seconds
		}
	}
	for _, h := range r.running() {
		h.Configure(fmt.Sprintf("idle_replication_slot_timeout = %ds", timeout))
	}
	for range 3 {
		r.host("pm01").Await("half of the timeout has passed", idle(timeout/2))
		for _, h := range r.running() {
			h.pass()
		}
		r.write(0) // slots are invalidated at checkpoints, and at restartpoints that have a new one to go by
	}
	r.wantProtected()

	r.host("pm01").Await("the timeout has passed, and no pgrex was there", idle(timeout))
	r.write(0)
	for _, h := range r.running() {
		if slot := h.slotFor("pm03"); slot.InvalidationReason != "idle_timeout" {
			t.Errorf("%s: nobody used the slot, and it is not lost: %+v", h.name, slot)
		}
	}
	r.host("pm03").Start()
	r.started("pm03")
	r.settle()
	r.wantProtected()
}

// TestCutInTheMiddle: the connection is ended in the middle of a step. The step is tried again, the others follow, and the
// next plan is empty.
func TestCutInTheMiddle(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2)
	h := r.host("pm01")
	plan := h.planForServer()
	ctx := t.Context()
	locker, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", h.Dir, h.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Close(context.WithoutCancel(ctx)) }()
	run := func(sql string) {
		t.Helper()
		if _, err := locker.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	run("BEGIN; LOCK TABLE pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE") // makes the statement wait
	done := make(chan controller.Result, 1)
	go func() { done <- h.apply(plan.Steps...) }()
	for cut := false; !cut; {
		err := locker.QueryRow(ctx, "SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity "+
			"WHERE application_name = 'pgrex' AND wait_event_type = 'Lock'").Scan(&cut)
		if err != nil {
			t.Fatal(err)
		}
	}
	run("ROLLBACK")
	if result := <-done; len(plan.Steps) != 2 || len(result.Done) != 2 || len(result.Pending) > 0 { // the slot and the budget
		t.Errorf("%s\nwith the connection cut once: %+v", plan, result)
	}
	r.settle()
	r.wantProtected()
}

// TestBudget: every host gets a budget for its slots, once. An operator's own value counts instead, and when it is gone pgrex
// sets one again.
func TestBudget(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2)
	r.budget = "50%"
	r.passUntil("every host has a share of the disk for its slots", func() bool {
		return !slices.ContainsFunc(r.hosts, func(h *host) bool {
			b := h.instance().Budget
			return b.MaxSlotWALKeepSize < b.MaxWALSize || !b.AutoConf
		})
	})
	r.budget = "1GB"
	r.settle()
	for _, h := range r.hosts {
		if b := h.instance().Budget; b.MaxSlotWALKeepSize < b.MaxWALSize || !b.AutoConf {
			t.Errorf("the budget of %s: %+v", h.name, b)
		}
		before := h.kept()
		if plan, _ := h.pass(); len(plan.Steps) > 0 || h.kept() != before {
			t.Errorf("%s is as it should be, and there is this to do:\n%s", h.name, plan)
		}
		h.Configure("max_slot_wal_keep_size = 128MB")
	}
	r.settle()
	for _, h := range r.hosts {
		if b := h.instance().Budget; b.MaxSlotWALKeepSize != 128 || b.AutoConf {
			t.Errorf("the budget of %s, where an operator set one: %+v", h.name, b)
		}
		if f := finding(h.plan(), model.CodeBudgetPinned); f.Severity != model.Info {
			t.Errorf("%s says of that: %+v", h.name, f)
		}
		h.Deconfigure("max_slot_wal_keep_size")
		h.SQL("SELECT pg_reload_conf()")
		h.Await("the server has no limit", func() bool { return h.instance().Budget.MaxSlotWALKeepSize == model.Unlimited })
	}
	r.settle()
	for _, h := range r.hosts {
		if b := h.instance().Budget; b.MaxSlotWALKeepSize <= 128 || !b.AutoConf {
			t.Errorf("the budget of %s, where an operator has taken his out: %+v", h.name, b)
		}
	}
}

// TestXMinAge: the slot of a standby that is off holds vacuum back, until pgrex-xmin-age has it released. Its WAL stays, and
// the standby comes back.
func TestXMinAge(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2)
	r.settle()
	primary := r.host("pm01")
	primary.Await("the standby's feedback is seen", func() bool { return primary.slotFor("pm02").HoldsXMin() })
	r.stop("pm02", "fast")
	primary.Await("the slot is let go", func() bool { return !primary.slotFor("pm02").Active })
	for range 30 {
		primary.SQL("SELECT pg_current_xact_id()")
	}
	r.write(40)
	held := primary.slotFor("pm02")
	if plan, _ := primary.pass(); finding(plan, model.CodeXMinHeld).Subject != "pm02" || len(plan.Steps) > 0 || held.XMinAge < 30 {
		t.Errorf("%+v, and the plan is:\n%s", held, plan)
	}
	r.xminAge = "20"
	r.settle()
	if now := primary.slotFor("pm02"); now.HoldsXMin() || now.RestartLSN != held.RestartLSN {
		t.Errorf("released: %+v, before: %+v", now, held)
	}
	r.host("pm02").Start()
	r.started("pm02")
	r.settle()
	r.wantProtected()
}

// TestCrashAfterCatchUp: PostgreSQL writes a slot's position to disk at checkpoints. Here its owner has caught up
// since,
// and is away again when the primary crashes: what the slot held before, and what came since, are more than the budget,
// so that the checkpoint at the end of recovery gives the slot up. With wal_keep_size, which doctor asks for, the owner
// comes back all the same, and the slot is made anew.
func TestCrashAfterCatchUp(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2, "max_wal_size = 128MB", "wal_keep_size = 128MB", "checkpoint_timeout = 1h", "checkpoint_completion_target = 0")
	r.budget = "144MB"
	r.settle()
	primary, standby := r.host("pm01"), r.host("pm02")
	r.stop("pm02", "fast")
	primary.WriteWAL(96)
	held := primary.slotFor("pm02").RestartLSN
	standby.Start()
	r.started("pm02")
	r.passUntil("pm02 has caught up", func() bool {
		return primary.slotFor("pm02").RestartLSN.BytesTo(primary.instance().End()) < 16*model.MiB
	})
	primary.SQL("SELECT count(pg_logical_emit_message(false, '', repeat('x', 1 << 20))) FROM generate_series(1, 72)") // and no checkpoint
	r.passUntil("pm02 has that, too", func() bool {
		return held.BytesTo(primary.slotFor("pm02").RestartLSN) >= 160*model.MiB
	})
	r.stop("pm02", "fast")
	primary.Stop("immediate")
	primary.Start()
	if s := primary.slotFor("pm02"); !s.Lost() {
		t.Fatalf("the slot is not lost: %+v", s)
	}
	if plan, _ := primary.pass(); finding(plan, model.CodeRebuildRequired).Severity != model.Critical {
		t.Errorf("the loss is not said:\n%s", plan)
	}
	standby.Start()
	r.started("pm02")
	r.settle()
	r.wantProtected()
}

// TestTrap42SynchronizedStandbySlots: logical replication on the primary waits for the operator's own slot, through
// which
// the standby streams (PostgreSQL 17). pgrex leaves the standby there, until that setting names its own slot.
func TestTrap42SynchronizedStandbySlots(t *testing.T) {
	t.Parallel()
	r := newRex(t, 2, "wal_level = logical")
	primary, standby := r.host("pm01"), r.host("pm02")
	if primary.instance().Version < 170000 {
		t.Skip("PostgreSQL before 17 has no synchronized_standby_slots: hack/test tells this story on 18")
	}
	streamsThrough := func(slot string) bool {
		i := standby.instance()
		return i.Receiver.Streaming() && i.Receiver.SlotName == slot
	}
	decoded := func(row string) {
		t.Helper()
		primary.SQL("INSERT INTO rows VALUES ('" + row + "')")
		primary.Await("logical replication sends "+row, func() bool {
			changes, err := primary.Try("SET statement_timeout = '2s'; SELECT data FROM pg_logical_slot_get_changes('sub', NULL, NULL)")
			return err == nil && strings.Contains(changes, row)
		})
	}
	primary.SQL("CREATE TABLE rows (name text)")
	primary.SQL("SELECT pg_create_physical_replication_slot('sb_pm02', true)")
	standby.Configure("primary_slot_name = 'sb_pm02'")
	standby.Await("the standby streams through the operator's slot", func() bool { return streamsThrough("sb_pm02") })
	primary.Configure("synchronized_standby_slots = 'sb_pm02'")
	primary.SQL("SELECT pg_create_logical_replication_slot('sub', 'test_decoding', false, false, true)")
	decoded("before")
	sub := slices.IndexFunc(primary.instance().Slots, func(s model.Slot) bool { return s.Name == "sub" && s.Failover && !s.Synced })
	if sub < 0 {
		t.Errorf("the failover slot is not known as one: %+v", primary.instance().Slots)
	}

	r.passUntil("pgrex says why the standby stays", func() bool {
		plan, _ := standby.pass()
		return finding(plan, model.CodeSlotAwaited).Subject == "sb_pm02"
	})
	if !streamsThrough("sb_pm02") {
		t.Fatal("the standby was taken off the slot that logical replication waits for")
	}
	decoded("beside pgrex")

	primary.Configure("synchronized_standby_slots = '\"pgrex_pm02\"'")
	r.passUntil("the standby goes over to its own slot", func() bool { return streamsThrough("pgrex_pm02") })
	decoded("handed over")
	primary.Await("the operator's slot is let go", func() bool {
		return primary.SQL("SELECT active FROM pg_replication_slots WHERE slot_name = 'sb_pm02'") == "f"
	})
	primary.SQL("SELECT pg_drop_replication_slot('sb_pm02')")
	r.settle()
	r.wantProtected()
}
