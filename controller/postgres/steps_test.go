package postgres_test

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "max_replication_slots = 1")
	a := adapter(t, server)
	seen := observe(t, a)
	step := model.CreateSlot{Slot: "mine", Guard: guard(seen)}

	for name, wrong := range map[string]model.Guard{
		"another system":   {SystemID: "1", RedoTimeline: seen.RedoTimeline},
		"another role":     {SystemID: seen.SystemID, InRecovery: true, RedoTimeline: seen.RedoTimeline},
		"another timeline": {SystemID: seen.SystemID, RedoTimeline: 9},
	} {
		t.Run(name, func(t *testing.T) {
			wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "mine", Guard: wrong}), postgres.Changed)
			if slotOf(t, a, "mine").Name != "" {
				t.Error("the slot was made all the same")
			}
		})
	}
	wantClass(t, a.Apply(t.Context(), step), "")
	if s := slotOf(t, a, "mine"); !s.Reserved() || s.Type != model.SlotPhysical || s.Temporary {
		t.Errorf("made %+v", s)
	}
	wantClass(t, a.Apply(t.Context(), step), postgres.AlreadyDone)
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "more", Guard: guard(seen)}), postgres.Capacity) // trap 13
}

// TestTrap14LongName: PostgreSQL would cut the name, and find another slot.
func TestTrap14LongName(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	g := guard(observe(t, a))
	longest := strings.Repeat("x", 63)
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: longest, Guard: g}), "")
	at := slotOf(t, a, longest).RestartLSN
	for _, name := range []string{longest + "y", "", "Upper", "it's", "a-b"} {
		for _, step := range []model.Step{
			model.CreateSlot{Slot: name, Guard: g},
			model.AdvanceSlot{Slot: name, From: at, To: at, Guard: g},
			model.ResetSlot{Slot: name, From: at, Guard: g},
			model.DropSlot{Slot: name, From: at, Guard: g},
		} {
			wantClass(t, a.Apply(t.Context(), step), postgres.Configuration)
		}
	}
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{To: longest + "y", Guard: g}), postgres.Configuration)
	if now := observe(t, a); len(now.Slots) != 1 || now.Slots[0].RestartLSN != at || now.PrimarySlotName != "" {
		t.Errorf("something was done: %+v", now)
	}
}

func TestDropAndReset(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "wal_level = logical", "max_slot_wal_keep_size = 16MB")
	a := adapter(t, server)
	seen := observe(t, a)
	server.SQL("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')")
	server.SQL("SELECT pg_create_physical_replication_slot('unreserved'), pg_create_physical_replication_slot('reserved', true)")
	at := slotOf(t, a, "reserved").RestartLSN

	for name, step := range map[string]model.Step{
		"drop, moved":       model.DropSlot{Slot: "reserved", From: at + 1, Guard: guard(seen)},
		"drop, reserved":    model.DropSlot{Slot: "reserved", Guard: guard(seen)},
		"drop, unreserved":  model.DropSlot{Slot: "unreserved", From: at, Guard: guard(seen)},
		"drop, logical":     model.DropSlot{Slot: "logical", From: slotOf(t, a, "logical").RestartLSN, Guard: guard(seen)},
		"drop, not there":   model.DropSlot{Slot: "nothing", Guard: guard(seen)},
		"reset, moved":      model.ResetSlot{Slot: "reserved", From: at + 1, Guard: guard(seen)},
		"reset, logical":    model.ResetSlot{Slot: "logical", From: slotOf(t, a, "logical").RestartLSN, Guard: guard(seen)},
		"reset, not there":  model.ResetSlot{Slot: "nothing", Guard: guard(seen)},
		"reset, other role": model.ResetSlot{Slot: "unreserved", Guard: model.Guard{SystemID: seen.SystemID, InRecovery: true, RedoTimeline: 1}},
	} {
		t.Run(name, func(t *testing.T) { wantClass(t, a.Apply(t.Context(), step), postgres.Changed) })
	}
	if got := server.SQL("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"); got != "logical reserved unreserved" {
		t.Fatalf("slots after steps that must do nothing: %s", got)
	}

	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "unreserved", Guard: guard(seen)}), "")
	if s := slotOf(t, a, "unreserved"); !s.Reserved() {
		t.Errorf("after the reset: %+v", s)
	}
	if lone := slotOf(t, a, "unreserved"); lone.XMin != 0 || lone.RestartLSN > observe(t, a).Redo {
		t.Errorf("after the reset it is not as new: %+v", lone)
	}
	server.WriteWAL(64)
	lost := slotOf(t, a, "reserved")
	if !lost.Lost() {
		t.Fatalf("the slot is not lost: %+v", lost)
	}
	wantClass(t, a.Apply(t.Context(), model.ResetSlot{Slot: "reserved", From: lost.RestartLSN, Guard: guard(observe(t, a))}), "")
	whole := slotOf(t, a, "reserved")
	if !whole.Reserved() {
		t.Errorf("after the reset: %+v", whole)
	}
	wantClass(t, a.Apply(t.Context(), model.DropSlot{Slot: "reserved", From: whole.RestartLSN, Guard: guard(observe(t, a))}), "")
	if s := slotOf(t, a, "reserved"); s.Name != "" {
		t.Errorf("after the drop: %+v", s)
	}
}

// TestTrap10ResetLetsGoOfNothing: a slot that holds WAL is made anew only where that takes it back.
func TestTrap10ResetLetsGoOfNothing(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	server.SQL("SELECT pg_create_physical_replication_slot('held', true)")
	server.WriteWAL(1)
	at := slotOf(t, a, "held").RestartLSN
	step := model.ResetSlot{Slot: "held", From: at, Guard: guard(observe(t, a))}
	wantClass(t, a.Apply(t.Context(), step), postgres.Changed)
	if now := slotOf(t, a, "held").RestartLSN; now != at {
		t.Fatalf("the slot held WAL from %s on, and now from %s on", at, now)
	}

	server.SQL("SELECT pg_logical_emit_message(false, 'test', 'since the checkpoint')")
	server.SQL("SELECT pg_replication_slot_advance('held', pg_current_wal_flush_lsn())")
	seen := observe(t, a)
	step.From = slotOf(t, a, "held").RestartLSN
	if step.From <= seen.Redo {
		t.Fatalf("the slot is at %s, not beyond the redo %s", step.From, seen.Redo)
	}
	wantClass(t, a.Apply(t.Context(), step), "")
	if now := slotOf(t, a, "held").RestartLSN; now != seen.Redo {
		t.Errorf("the slot is at %s, not at the redo %s", now, seen.Redo)
	}
}

// TestTrap21SquattedName: between looking and acting, somebody made a logical slot of our name.
func TestTrap21SquattedName(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "wal_level = logical")
	a := adapter(t, server)
	seen := observe(t, a)
	server.SQL("SELECT pg_create_logical_replication_slot('mine', 'test_decoding')")
	at := slotOf(t, a, "mine").RestartLSN
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "mine", Guard: guard(seen)}), postgres.AlreadyDone)
	for _, step := range []model.Step{
		model.AdvanceSlot{Slot: "mine", From: at, To: at, Guard: guard(seen)},
		model.TouchSlot{Slot: "mine", From: at, Guard: guard(seen)},
		model.ReleaseXMin{Slot: "mine", From: at, Guard: guard(seen)},
		model.ResetSlot{Slot: "mine", From: at, Guard: guard(seen)},
		model.DropSlot{Slot: "mine", From: at, Guard: guard(seen)},
	} {
		wantClass(t, a.Apply(t.Context(), step), postgres.Changed)
	}
	if now := slotOf(t, a, "mine"); now.Type != model.SlotLogical || now.RestartLSN != at {
		t.Errorf("it was touched: %+v", now)
	}
}

// TestTrap8AttachedInBetween: a slot that has become active since it was seen is left alone, and so is its walsender.
func TestTrap8AttachedInBetween(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, primary)
	standby.Stop("fast")
	primary.Await("the slot is let go", func() bool { return !slotOf(t, a, "own").Active })
	seen, at := observe(t, a), slotOf(t, a, "own").RestartLSN
	standby.Start()
	primary.Await("the slot is taken", func() bool { return slotOf(t, a, "own").Active })
	pid := slotOf(t, a, "own").ActivePID
	for _, from := range []model.LSN{at, slotOf(t, a, "own").RestartLSN} { // it may have moved, or not
		for _, step := range []model.Step{
			model.TouchSlot{Slot: "own", From: from, Guard: guard(seen)},
			model.DropSlot{Slot: "own", From: from, Guard: guard(seen)},
			model.ResetSlot{Slot: "own", From: from, Guard: guard(seen)},
			model.AdvanceSlot{Slot: "own", From: from, To: from, Guard: guard(seen)},
		} {
			wantClass(t, a.Apply(t.Context(), step), postgres.Changed)
		}
	}
	if now := slotOf(t, a, "own"); !now.Active || now.ActivePID != pid {
		t.Errorf("the slot was taken from its walsender: %+v", now)
	}
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, standby)
	seen := observe(t, a)
	if err := a.Apply(t.Context(), model.CreateSlot{Slot: "held", Guard: guard(seen)}); err != nil {
		t.Fatal(err)
	}
	from := slotOf(t, a, "held").RestartLSN
	primary.WriteWAL(64)
	primary.CatchUp(standby)
	seen = observe(t, a)
	for name, step := range map[string]model.AdvanceSlot{
		"past the redo":  {Slot: "held", From: from, To: seen.Redo + 1, Guard: guard(seen)},
		"moved since":    {Slot: "held", From: from + 1, To: seen.Redo, Guard: guard(seen)},
		"other timeline": {Slot: "held", From: from, To: seen.Redo, Guard: model.Guard{SystemID: seen.SystemID, InRecovery: true, RedoTimeline: 2}},
		"not there":      {Slot: "nothing", From: from, To: seen.Redo, Guard: guard(seen)},
	} {
		t.Run(name, func(t *testing.T) { wantClass(t, a.Apply(t.Context(), step), postgres.Changed) })
	}
	if now := slotOf(t, a, "held").RestartLSN; now != from {
		t.Fatalf("moved from %s to %s all the same", from, now)
	}
	wantClass(t, a.Apply(t.Context(), model.AdvanceSlot{Slot: "held", From: from, To: from - 1, Guard: guard(seen)}), postgres.Configuration)
	wantClass(t, a.Apply(t.Context(), model.AdvanceSlot{Slot: "held", To: from, Guard: guard(seen)}), postgres.Configuration)
	step := model.AdvanceSlot{Slot: "held", From: from, To: seen.Redo, Guard: guard(seen)}
	wantClass(t, a.Apply(t.Context(), step), "")
	wantClass(t, a.Apply(t.Context(), step), postgres.Changed) // somebody has moved it
	step.From = step.To
	wantClass(t, a.Apply(t.Context(), step), "") // to where it is: PostgreSQL 18's idle timeout begins anew
	if now := slotOf(t, a, "held").RestartLSN; now != seen.Redo {
		t.Errorf("the slot is at %s, not %s", now, seen.Redo)
	}
}

// TestPromotedInBetween: the role changes between looking and acting; nothing is done.
func TestPromotedInBetween(t *testing.T) {
	t.Parallel()
	_, standby := pair(t)
	a := adapter(t, standby)
	seen := observe(t, a)
	if err := a.Apply(t.Context(), model.CreateSlot{Slot: "held", Guard: guard(seen)}); err != nil {
		t.Fatal(err)
	}
	held := slotOf(t, a, "held")
	standby.Promote()
	for _, step := range []model.Step{
		model.CreateSlot{Slot: "new", Guard: guard(seen)},
		model.TouchSlot{Slot: "held", From: held.RestartLSN, Guard: guard(seen)},
		model.ReleaseXMin{Slot: "held", From: held.RestartLSN, Guard: guard(seen)},
		model.AdvanceSlot{Slot: "held", From: held.RestartLSN, To: seen.Redo, Guard: guard(seen)},
		model.ResetSlot{Slot: "held", From: held.RestartLSN, Guard: guard(seen)},
		model.DropSlot{Slot: "held", From: held.RestartLSN, Guard: guard(seen)},
		model.SetPrimarySlotName{From: "own", To: "other", Guard: guard(seen)},
	} {
		t.Run(step.Kind(), func(t *testing.T) { wantClass(t, a.Apply(t.Context(), step), postgres.Changed) })
	}
	now := observe(t, a)
	if len(now.Slots) != 1 || now.Slots[0].RestartLSN != held.RestartLSN || now.PrimarySlotName != "own" {
		t.Errorf("something was done: %+v", now)
	}
}
