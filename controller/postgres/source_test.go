package postgres_test

import (
	"errors"
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
	if _, err := source(t, server).Has(t.Context(), start, 2, 0); err != nil {
		t.Errorf("WAL that is there: %v", err)
	}
	server.SQL("SELECT pg_logical_emit_message(false, 'x', repeat('x', 4000000))")
	u, err = source(t, server).Identify(t.Context(), "mine")
	if err != nil {
		t.Fatal(err)
	}
	if rate, err := source(t, server).Has(t.Context(), start, 2, u.Flushed); err != nil || rate < 1<<20 {
		t.Errorf("measured %d bytes a second, %v", rate, err)
	}
	server.WriteWAL(100)
	for range 20 { // it must not be a matter of who is faster
		s := source(t, server)
		if _, err := s.Has(t.Context(), start, 2, 0); err == nil || !strings.Contains(err.Error(), "removed") {
			t.Fatalf("WAL that is gone: %v", err)
		}
		s.Close()
	}
	if _, err := source(t, server).Has(t.Context(), start, 7, 0); err == nil {
		t.Error("a timeline that is none of its own")
	}
}

// TestReplications: what the primary knows of its standby, and that this one answers at an address of its own.
func TestReplications(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	primary := adapter(t, server)
	if none, err := primary.Replications(t.Context()); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	standby := server.Standby()
	server.CatchUp(standby)
	seen, err := primary.Replications(t.Context())
	if err != nil || len(seen) != 1 || seen[0].State != "streaming" || seen[0].SyncState != "async" {
		t.Fatalf("%+v, %v", seen, err)
	}
	before := observe(t, primary).Redo
	server.SQL("SELECT pg_switch_wal()")
	if err := primary.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := observe(t, primary).Redo; now <= before {
		t.Errorf("the redo was %s and is %s", before, now)
	}
	s, err := postgres.OpenStandby(t.Context(), strings.Replace(standby.Conninfo(), "127.0.0.1", "192.0.2.1", 1), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if u, err := s.Identify(t.Context()); err != nil || !u.InRecovery {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestSourceReceived: a standby that was restarted, and has WAL that it has not replayed, says that it has received
// none yet. Once it has replayed all, it asks for more, though nobody answers.
func TestSourceReceived(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	standby := primary.Standby()
	primary.CatchUp(standby)
	asks := func(is bool) bool {
		t.Helper()
		s, err := postgres.OpenStandbyDatabase(t.Context(), standby.Conninfo(), "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		received, err := s.Received(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return (received != 0) == is
	}
	standby.Await("it has received WAL", func() bool { return asks(true) })
	standby.SQL("SELECT pg_wal_replay_pause()")
	primary.SQL("CREATE TABLE more ()")
	primary.Stop("fast") // once the standby has received all
	standby.Stop("immediate")
	standby.Configured("recovery_min_apply_delay = '1h'")
	standby.Start()
	if got, err := source(t, standby).Setting(t.Context(), "recovery_min_apply_delay"); err != nil || got != "1h" {
		t.Errorf("recovery_min_apply_delay is %q, %v", got, err)
	}
	if !asks(false) {
		t.Error("it has asked for WAL, and has not replayed what it has")
	}
	standby.Stop("immediate")
	standby.Configured("recovery_min_apply_delay = 0")
	standby.Start()
	standby.Await("it asks for WAL", func() bool { return asks(true) })
	if got := standby.SQL("SELECT count(*) FROM pg_class WHERE relname = 'more'"); got != "1" {
		t.Errorf("it has asked for WAL, and has not replayed what it had: %s", got)
	}
}

func TestSourceMakeSlot(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	server.SQL("SELECT pg_create_physical_replication_slot('mine')")
	if err := source(t, server).MakeSlot(t.Context(), "mine"); err != nil || !slotOf(t, a, "mine").Reserved() {
		t.Errorf("%v: %+v", err, slotOf(t, a, "mine"))
	}
	if err := source(t, server).MakeSlot(t.Context(), "0_new"); err != nil || !slotOf(t, a, "0_new").Reserved() {
		t.Errorf("%v: %+v", err, slotOf(t, a, "0_new"))
	}
	was := slotOf(t, a, "mine").RestartLSN
	server.SQL("CHECKPOINT")
	if err := source(t, server).MakeSlot(t.Context(), "mine"); err != nil || slotOf(t, a, "mine").RestartLSN != was {
		t.Errorf("one that is right already: %v: %+v", err, slotOf(t, a, "mine"))
	}
	if err := source(t, server).MakeSlot(t.Context(), `"; DROP`); postgres.ClassOf(err) != postgres.Configuration {
		t.Errorf("a name that cannot be: %v", err)
	}
}

// TestSourceMakeSlotSquatted: a subscriber's slot that bears a host's name stays.
func TestSourceMakeSlotSquatted(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "wal_level = logical")
	server.SQL("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')")
	was := slotOf(t, adapter(t, server), "mine")
	s := source(t, server)
	if said, err := s.Identify(t.Context(), "mine"); err != nil || !said.Slots[0].Logical || !said.Slots[0].Exists || said.Slots[0].RestartLSN.IsValid() {
		t.Errorf("it is said to be %+v, %v", said.Slots, err)
	}
	if err := s.MakeSlot(t.Context(), "mine"); !errors.Is(err, postgres.ErrSquatted) || postgres.ClassOf(err) != postgres.Configuration {
		t.Errorf("it is made anew: %v", err)
	}
	now := slotOf(t, adapter(t, server), "mine")
	if now.Idle = was.Idle; now != was {
		t.Errorf("it was %+v, and is %+v", was, now)
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

// TestContents: what a copy of the primary brings. A user that may see less gets less, without an error. A user that is
// not let in gets an error.
func TestContents(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "max_wal_size = 3GB")
	odd := server.Folder(`a = b\ "c`)
	server.SQL("CREATE ROLE rep REPLICATION LOGIN; CREATE TABLE big AS SELECT generate_series(1, 100000)")
	contents := func(user string) (postgres.Contents, error) {
		t.Helper()
		s, err := postgres.OpenSourceDatabase(t.Context(), strings.Replace(server.Conninfo(), "user=postgres", "user="+user, 1))
		if err != nil {
			return postgres.Contents{}, err
		}
		defer s.Close()
		return s.Contents(t.Context())
	}
	none, err := contents("postgres")
	if err != nil || len(none.Tablespaces) != 0 || none.Bytes < 10<<20 {
		t.Errorf("without tablespaces: %+v, %v", none, err)
	}
	server.SQL(`CREATE TABLESPACE "Odd One" LOCATION '` + odd + `'`)
	server.SQL(`CREATE TABLE there TABLESPACE "Odd One" AS SELECT generate_series(1, 100000)`)
	for user, seen := range map[string]bool{"postgres": true, "rep": false} {
		c, err := contents(user)
		if err != nil || len(c.Tablespaces) != 1 || c.Bytes < none.Bytes+3<<20 {
			t.Fatalf("%s sees %+v, %v", user, c, err)
		}
		if ts := c.Tablespaces[0]; ts.Name != "Odd One" || ts.Location != odd || ts.OID < 16384 || ts.Bytes > 3<<20 != seen {
			t.Errorf("%s sees %+v", user, ts)
		}
	}
	segment, most, err := source(t, server).WALSizes(t.Context())
	if err != nil || segment != 16<<20 || most != 3<<30 {
		t.Errorf("a segment has %d, max_wal_size is %d, %v", segment, most, err)
	}
	server.Access("local all all trust", "host replication all all trust")
	if _, err := contents("rep"); postgres.ClassOf(err) != postgres.Permission {
		t.Errorf("a user that is not let in: %v", err)
	}
}
