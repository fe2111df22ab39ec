package postgres_test

import (
	"fmt"
	"testing"
)

func TestUpstream(t *testing.T) {
	t.Parallel()
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
	cascaded := standby.Standby()
	if u, err := adapter(t, cascaded).ObserveUpstream(t.Context(), nil); err != nil || seen.Version >= 140000 && !u.InRecovery {
		t.Errorf("an upstream that is a standby: %+v, %v", u, err)
	}
}
