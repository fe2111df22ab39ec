package postgres_test

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func source(t *testing.T, server *pgserver.Server) *postgres.Source {
	t.Helper()
	s, err := postgres.OpenSource(t.Context(), server.Conninfo())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestSource: what a host that is to come back asks the primary.
func TestSource(t *testing.T) {
	t.Parallel()
	first := pgserver.New(t)
	first.SQL("SELECT pg_create_physical_replication_slot('other', true)")
	server := first.Standby()
	server.Promote()
	server.SQL("CHECKPOINT")
	seen := observe(t, adapter(t, server))

	u, err := source(t, server).Identify(t.Context(), "mine")
	if slot, _ := u.Slot("mine"); err != nil || slot.Exists || u.SystemID != seen.SystemID || u.Timeline != 2 || u.Flushed < seen.Redo {
		t.Errorf("%+v, %v", u, err)
	}
	history, err := source(t, server).History(t.Context(), 2)
	if err != nil || len(history) != 2 || history[1].ID != 2 || !history[1].Begin.IsValid() {
		t.Errorf("history %v, %v", history, err)
	}

	start := seen.Redo - seen.Redo%model.LSN(seen.WALSegmentSize)
	if err := source(t, server).Has(t.Context(), start, 2); err != nil {
		t.Errorf("WAL that is there: %v", err)
	}
	server.WriteWAL(100)
	for range 20 { // it must not be a matter of who is faster
		s := source(t, server)
		if err := s.Has(t.Context(), start, 2); err == nil || !strings.Contains(err.Error(), "removed") {
			t.Fatalf("WAL that is gone: %v", err)
		}
		s.Close()
	}
	if err := source(t, server).Has(t.Context(), start, 7); err == nil {
		t.Error("a timeline that is none of its own")
	}
}

func TestSourceMakeSlot(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	server.SQL("SELECT pg_create_physical_replication_slot('mine')")
	if err := source(t, server).MakeSlot(t.Context(), "mine", true); err != nil || !slotOf(t, a, "mine").Reserved() {
		t.Errorf("%v: %+v", err, slotOf(t, a, "mine"))
	}
	if err := source(t, server).MakeSlot(t.Context(), "0_new", false); err != nil || !slotOf(t, a, "0_new").Reserved() {
		t.Errorf("%v: %+v", err, slotOf(t, a, "0_new"))
	}
	if err := source(t, server).MakeSlot(t.Context(), `"; DROP`, false); postgres.ClassOf(err) != postgres.Configuration {
		t.Errorf("a name that cannot be: %v", err)
	}
}

// TestSourceCheckpoint: a user that may not order a checkpoint waits until there is one.
func TestSourceCheckpoint(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	server.SQL("CREATE ROLE replicator REPLICATION LOGIN")
	for user, conninfo := range map[string]string{
		"a superuser":      server.Conninfo(),
		"one that may not": strings.Replace(server.Conninfo(), "user=postgres", "user=replicator", 1),
	} {
		s, err := postgres.OpenSourceDatabase(t.Context(), conninfo)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		s.Close()
	}
}

func TestConninfoKeepsThePasswordApart(t *testing.T) {
	t.Parallel()
	for conninfo, want := range map[string]string{
		"host=192.0.2.1 port=5432 user=rep password=secret application_name=pm01 sslmode=prefer": "host=192.0.2.1 port=5432 user=rep sslmode=prefer",
		`password = 'secret' host='192.0.2.1' user=rep`:                                          "host='192.0.2.1' user=rep",
		`user=rep host=x password='secret'`:                                                      "user=rep host=x",
	} {
		arguments, password, err := postgres.Conninfo(conninfo)
		if err != nil || password != "secret" || arguments != want {
			t.Errorf("%q, %q, %v", arguments, password, err)
		}
	}
	if arguments, _, err := postgres.Conninfo("postgresql://rep:secret@192.0.2.1"); err == nil || strings.Contains(err.Error()+arguments, "secret") {
		t.Errorf("a URI: %q, %v", arguments, err)
	}
}
