package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// adapter is the package's view of a server.
func adapter(t *testing.T, s *pgserver.Server) *postgres.Server {
	t.Helper()
	a := postgres.NewServer(postgres.Config{SocketDir: s.Dir, Port: s.Port, User: "postgres", Database: "postgres"})
	t.Cleanup(a.Close)
	return a
}

func observe(t *testing.T, a *postgres.Server) model.Instance {
	t.Helper()
	i, err := a.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func guard(i model.Instance) model.Guard {
	return model.Guard{SystemID: i.SystemID, InRecovery: i.InRecovery, RedoTimeline: i.RedoTimeline}
}

func slotOf(t *testing.T, a *postgres.Server, name string) model.Slot {
	t.Helper()
	for _, s := range observe(t, a).Slots {
		if s.Name == name {
			return s
		}
	}
	return model.Slot{}
}

func wantClass(t *testing.T, err error, want postgres.Class) {
	t.Helper()
	if got := postgres.ClassOf(err); got != want {
		t.Errorf("the error is of class %q, not %q: %v", got, want, err)
	}
}

// pair is a primary and a standby that streams through the slot "own".
func pair(t *testing.T, settings ...string) (primary, standby *pgserver.Server) {
	t.Helper()
	primary = pgserver.New(t, settings...)
	primary.SQL("SELECT pg_create_physical_replication_slot('own', true)")
	standby = primary.Standby("primary_slot_name = own")
	standby.Await("the standby streams", func() bool {
		return primary.SQL("SELECT active FROM pg_replication_slots WHERE slot_name = 'own'") == "t"
	})
	return primary, standby
}

func TestObserve(t *testing.T) {
	primary, standby := pair(t, "max_replication_slots = 7")
	p, s := observe(t, adapter(t, primary)), observe(t, adapter(t, standby))
	switch {
	case p.State != model.ServerUp || p.InRecovery || !s.InRecovery || s.State != model.ServerUp:
		t.Errorf("roles: %+v %+v", p, s)
	case p.SystemID == "" || p.SystemID != s.SystemID:
		t.Errorf("system identifiers %q, %q", p.SystemID, s.SystemID)
	case p.Version < 130000 || p.MaxSlots != 7 || p.WALSegmentSize != 16<<20:
		t.Errorf("settings: %+v", p)
	case !p.Redo.IsValid() || !p.Current.IsValid() || !s.Redo.IsValid() || !s.Current.IsValid() || p.RedoTimeline != 1:
		t.Errorf("positions: %+v %+v", p, s)
	case len(p.Slots) != 1 || !p.Slots[0].Active || p.Slots[0].ActivePID == 0 || !p.Slots[0].Reserved():
		t.Errorf("slots: %+v", p.Slots)
	case s.PrimarySlotName != "own" || !s.Receiver.Streaming() || s.Receiver.SlotName != "own" || s.Receiver.Timeline != 1:
		t.Errorf("standby: %+v", s)
	case len(p.Senders) != 1 || p.Senders[0].State != "streaming" || p.Senders[0].PID != p.Slots[0].ActivePID:
		t.Errorf("senders: %+v", p.Senders)
	case p.Receiver != nil || len(s.Slots) != 0:
		t.Errorf("receiver of a primary, or slots of a new standby: %+v %+v", p.Receiver, s.Slots)
	}
	primary.Await("the feedback's xmin is seen", func() bool { return slotOf(t, adapter(t, primary), "own").HoldsXMin() })
}

// TestStates: what keeps a server from answering is a state, with a line that says what.
func TestStates(t *testing.T) {
	server := pgserver.New(t)
	a := adapter(t, server)
	check := func(want model.ServerState, text string) {
		t.Helper()
		i := observe(t, a)
		if i.State != want || !strings.Contains(i.Problem, text) {
			t.Errorf("the server is %s (%s), not %s (…%s…)", i.State, i.Problem, want, text)
		}
	}
	check(model.ServerUp, "")

	server.Signal(syscall.SIGSTOP)
	nobody := postgres.NewServer(postgres.Config{SocketDir: server.Dir, Port: server.Port, User: "postgres", Database: "postgres"})
	if i, err := nobody.Observe(t.Context()); err != nil || i.State != model.ServerUnreachable || !strings.Contains(i.Problem, "does not answer") {
		t.Errorf("a stopped postmaster: %+v, %v", i, err)
	}
	nobody.Close()
	server.Signal(syscall.SIGCONT)
	check(model.ServerUp, "")

	server.Stop("fast")
	check(model.ServerDown, "nothing listens at "+server.Dir)
	server.Start()
	check(model.ServerUp, "") // over a new connection: the kept one is dead
	server.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgrex'")
	check(model.ServerUp, "")

	stranger := postgres.NewServer(postgres.Config{SocketDir: server.Dir, Port: server.Port, User: "nobody", Database: "postgres"})
	defer stranger.Close()
	if i, err := stranger.Observe(t.Context()); err != nil || i.State != model.ServerUnreachable || !strings.Contains(i.Problem, "user nobody") {
		t.Errorf("a role that is not there: %+v, %v", i, err)
	}
}

// TestStarting: a standby that cannot reach a consistent state is starting, not down.
func TestStarting(t *testing.T) {
	primary := pgserver.New(t)
	standby := primary.Standby()
	standby.Configure("hot_standby = off")
	standby.Stop("fast")
	standby.Launch()
	a := adapter(t, standby)
	standby.Await("the server says that it starts", func() bool { return observe(t, a).State == model.ServerStarting })
}

func TestCreate(t *testing.T) {
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
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "more", Guard: guard(seen)}), postgres.Capacity)
}

func TestDropAndReset(t *testing.T) {
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

// TestBusy: a slot that has become active since it was seen is left alone, and so is its walsender.
func TestBusy(t *testing.T) {
	primary, _ := pair(t)
	a := adapter(t, primary)
	seen := observe(t, a)
	for _, step := range []model.Step{
		model.DropSlot{Slot: "own", From: seen.Slots[0].RestartLSN, Guard: guard(seen)},
		model.ResetSlot{Slot: "own", From: seen.Slots[0].RestartLSN, Guard: guard(seen)},
	} {
		wantClass(t, a.Apply(t.Context(), step), postgres.Changed)
	}
	if now := slotOf(t, a, "own"); !now.Active || now.ActivePID != seen.Slots[0].ActivePID {
		t.Errorf("the slot was taken from its walsender: %+v", now)
	}
}

func TestAdvance(t *testing.T) {
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
	} {
		t.Run(name, func(t *testing.T) { wantClass(t, a.Apply(t.Context(), step), postgres.Changed) })
	}
	if now := slotOf(t, a, "held").RestartLSN; now != from {
		t.Fatalf("moved from %s to %s all the same", from, now)
	}
	step := model.AdvanceSlot{Slot: "held", From: from, To: seen.Redo, Guard: guard(seen)}
	wantClass(t, a.Apply(t.Context(), step), "")
	if now := slotOf(t, a, "held").RestartLSN; now != seen.Redo {
		t.Errorf("the slot is at %s, not %s", now, seen.Redo)
	}
}

// TestPromotedInBetween: the role changes between looking and acting; nothing is done.
func TestPromotedInBetween(t *testing.T) {
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

func TestSetPrimarySlotName(t *testing.T) {
	primary, standby := pair(t)
	primary.SQL("SELECT pg_create_physical_replication_slot('it''s'::name) WHERE false; SELECT pg_create_physical_replication_slot('next', true)")
	a := adapter(t, standby)
	seen := observe(t, a)
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{From: "else", To: "next", Guard: guard(seen)}), postgres.Changed)
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{From: "own", To: "next", Guard: guard(seen)}), "")
	standby.Await("the standby streams through it", func() bool {
		i := observe(t, a)
		return i.PrimarySlotName == "next" && i.Receiver.Streaming() && i.Receiver.SlotName == "next"
	})
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{From: "next", To: "", Guard: guard(seen)}), "")
	standby.Await("the standby streams without a slot", func() bool {
		i := observe(t, a)
		return i.PrimarySlotName == "" && i.Receiver.Streaming() && i.Receiver.SlotName == ""
	})
	// A name that would break out of its quotes is refused by PostgreSQL as a value, not run as SQL.
	err := a.Apply(t.Context(), model.SetPrimarySlotName{From: "", To: "x'; DROP TABLE t; --", Guard: guard(seen)})
	if class := postgres.ClassOf(err); class != postgres.Configuration && class != postgres.Unknown {
		t.Errorf("an impossible name: %q, %v", class, err)
	}
}

func TestUpstream(t *testing.T) {
	primary, standby := pair(t, "wal_level = logical", "max_slot_wal_keep_size = 16MB")
	primary.SQL("SELECT pg_create_physical_replication_slot('lost', true)")
	primary.WriteWAL(64)
	primary.SQL("SELECT pg_create_physical_replication_slot('unreserved'), pg_create_physical_replication_slot('reserved', true)")
	primary.SQL("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')")
	a := adapter(t, standby)
	seen := observe(t, a)
	for range 2 { // the second time over the kept connection
		u, err := a.ObserveUpstream(t.Context(), []string{"logical", "lost", "missing", "reserved", "unreserved"})
		if err != nil {
			t.Fatal(err)
		}
		if u.SystemID != seen.SystemID || u.Timeline != 1 || !u.Flushed.IsValid() || u.InRecovery || u.Address != fmt.Sprintf("127.0.0.1:%d", primary.Port) {
			t.Errorf("upstream: %+v", u)
		}
		for name, want := range map[string]struct{ exists, reserved bool }{
			"logical": {true, false}, "lost": {true, false}, "missing": {false, false}, "reserved": {true, true}, "unreserved": {true, false},
		} {
			s, ok := u.Slot(name)
			if !ok || s.Exists != want.exists || s.RestartLSN.IsValid() != want.reserved {
				t.Errorf("%s: %+v, asked %t", name, s, ok)
			}
		}
	}
	if n := primary.SQL("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'pgrex'"); n != "1" {
		t.Errorf("%s walsenders are kept, not 1", n)
	}
	primary.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgrex'")
	if _, err := a.ObserveUpstream(t.Context(), nil); err != nil {
		t.Errorf("after the kept connection was cut: %v", err)
	}

	cascaded := standby.Standby()
	if u, err := adapter(t, cascaded).ObserveUpstream(t.Context(), nil); err != nil || seen.Version >= 140000 && !u.InRecovery {
		t.Errorf("an upstream that is a standby: %+v, %v", u, err)
	}
}

// TestUpstreamFailures: what keeps it from answering is said without the password.
func TestUpstreamFailures(t *testing.T) {
	primary, standby := pair(t)
	a := adapter(t, standby)
	const secret = "open-sesame"
	for name, test := range map[string]struct{ conninfo, want string }{
		"nobody there":   {"host=127.0.0.1 port=1 user=repuser password=" + secret, "127.0.0.1:1"},
		"unknown role":   {fmt.Sprintf("host=127.0.0.1 port=%d user=nobody password=%s", primary.Port, secret), "nobody"},
		"broken":         {"host=127.0.0.1 port=many password=" + secret, "primary_conninfo"},
		"libpq's own":    {primary.Conninfo() + " keepalives_idle=60 keepalives_count=5 application_name=pm02 gssencmode=disable password=" + secret, ""},
		"no conninfo":    {"", "primary_conninfo is empty"},
		"does not exist": {"host=/nonexistent user=x password=" + secret, "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			standby.SQL("ALTER SYSTEM SET primary_conninfo = '" + test.conninfo + "'")
			standby.SQL("SELECT pg_reload_conf()")
			standby.Await("the setting is seen", func() bool { return standby.SQL("SHOW primary_conninfo") == test.conninfo })
			_, err := a.ObserveUpstream(t.Context(), []string{"own"})
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, not …%s…", err, test.want)
			case err != nil && strings.Contains(err.Error(), secret):
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// TestCutInTheMiddle: the connection is ended while a statement runs.
func TestCutInTheMiddle(t *testing.T) {
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
