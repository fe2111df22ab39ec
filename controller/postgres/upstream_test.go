package postgres_test

import (
	"fmt"
	"strings"
	"testing"

)

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
