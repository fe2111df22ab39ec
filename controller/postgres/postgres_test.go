package postgres_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// adapter is the package's view of a server.
func adapter(t *testing.T, s *pgserver.Server) *postgres.Server {
	t.Helper()
	a := postgres.NewServer(postgres.Config{DataDir: s.Dir + "/data", SocketDir: s.Dir, Port: s.Port, User: "postgres", Database: "postgres"})
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
	standby.Await("the standby streams", func() bool { // both sides say so, each at its own time
		return primary.SQL("SELECT state FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = 'own'") == "streaming" &&
			standby.SQL("SELECT written_lsn IS NOT NULL FROM pg_stat_wal_receiver") == "t"
	})
	return primary, standby
}

func TestObserve(t *testing.T) {
	t.Parallel()
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
