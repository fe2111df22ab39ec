package postgres_test

import (
	"fmt"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// askUpstream looks at a standby, and then asks its upstream.
func askUpstream(t *testing.T, a *postgres.Server, slots ...string) (model.Upstream, error) {
	t.Helper()
	observe(t, a)
	return a.ObserveUpstream(t.Context(), slots)
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t, "wal_level = logical", "max_slot_wal_keep_size = 16MB")
	primary.SQL("SELECT pg_create_physical_replication_slot('lost', true)")
	primary.WriteWAL(64)
	primary.SQL("SELECT pg_create_physical_replication_slot('unreserved'), pg_create_physical_replication_slot('reserved', true)")
	primary.SQL("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')")
	a := adapter(t, standby)
	seen := observe(t, a)
	for range 2 {
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
	cascaded := standby.Standby()
	if u, err := askUpstream(t, adapter(t, cascaded)); err != nil || seen.Version >= 140000 && !u.InRecovery {
		t.Errorf("an upstream that is a standby: %+v, %v", u, err)
	}
}

// TestNoWalsenderStands: walsenders are scarce, and one of ours in pg_stat_replication would confuse whoever watches
// that view.
// After a look none is left.
func TestNoWalsenderStands(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, standby)
	none := func() {
		t.Helper()
		primary.Await("no walsender of pgrex stands", func() bool {
			return primary.SQL("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pgrex'") == "0"
		})
	}
	for range 3 {
		if _, err := askUpstream(t, a, "own", "missing"); err != nil {
			t.Fatal(err)
		}
		none()
	}
	// A standby that loses power in a look must not take a walsender for hours.
	if got, err := a.UpstreamSetting(t.Context(), "tcp_keepalives_idle"); err != nil || got != "30" {
		t.Errorf("tcp_keepalives_idle is %s, %v", got, err)
	}
	primary.Stop("fast")
	_, err := askUpstream(t, a, "own")
	wantClass(t, err, postgres.Transient)
	primary.Start()
	if _, err := askUpstream(t, a, "own"); err != nil {
		t.Error(err)
	}
	asker, err := a.Asker()
	if err != nil {
		t.Fatal(err)
	}
	if u, err := asker(t.Context(), "127.0.0.1", []string{"own"}); err != nil || len(u.Slots) != 1 {
		t.Errorf("asked as a member: %+v, %v", u, err)
	}
	none()
}

// TestConninfoIsSecret: a user who may not read primary_conninfo is told what to do, and the rest of the look is good.
func TestConninfoIsSecret(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	primary.SQL("CREATE ROLE plain LOGIN")
	primary.CatchUp(standby)
	a := postgres.NewServer(postgres.Config{DataDir: standby.Dir + "/data", SocketDir: standby.Dir, Port: standby.Port, User: "plain", Database: "postgres"})
	t.Cleanup(a.Close)
	_, err := askUpstream(t, a, "own")
	wantClass(t, err, postgres.Permission)
	if i := observe(t, a); i.State != model.ServerUp || i.ApplicationName != "" || i.SystemID == "" {
		t.Errorf("%+v, %v", i, err)
	}
	primary.SQL("GRANT pg_read_all_settings TO plain")
	primary.CatchUp(standby)
	if _, err := askUpstream(t, a, "own"); err != nil {
		t.Error(err)
	}
}
