package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestSetPrimarySlotName(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	primary.SQL("SELECT pg_create_physical_replication_slot('next', true)")
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
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{From: "", To: "x'; DROP TABLE t; --", Guard: guard(seen)}), postgres.Configuration)
}

// TestTrap6PromotedBeforeReload: the host is promoted between ALTER SYSTEM and the reload. The setting does not take
// effect, and the file says again what it said before: nothing, or the former value.
func TestTrap6PromotedBeforeReload(t *testing.T) {
	t.Parallel()
	for _, former := range []string{"", "former"} {
		t.Run("former "+former, func(t *testing.T) {
			_, standby := pair(t)
			if former != "" {
				standby.SQL("ALTER SYSTEM SET primary_slot_name = '" + former + "'") // not in force yet
			}
			p := &proxy{before: []byte("pg_reload_conf"), pause: standby.Promote}
			a := p.through(t, standby)
			seen := observe(t, a)
			wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{From: "own", To: "next", Guard: guard(seen)}), postgres.Changed)
			got := standby.SQL("SELECT setting FROM pg_file_settings WHERE name = 'primary_slot_name' AND sourcefile LIKE '%auto.conf'")
			if now := observe(t, a); got != former || now.PrimarySlotName != "own" || now.InRecovery {
				t.Errorf("postgresql.auto.conf says %q, not %q; the setting is %q", got, former, now.PrimarySlotName)
			}
		})
	}
}

// TestSettingForbidden: what no file can change is not written to one, and what a fault in a file holds up is named.
func TestSettingForbidden(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	seen := observe(t, a)
	server.Configure("no_such_setting = 1")
	err := a.Apply(t.Context(), model.SetPrimarySlotName{From: "", To: "own", Guard: guard(seen)})
	wantClass(t, err, postgres.Configuration)
	if !strings.Contains(fmt.Sprint(err), "postgresql.conf line") {
		t.Errorf("the fault is not named: %v", err)
	}
	server.SQL("ALTER SYSTEM RESET primary_slot_name")

	server.Stop("fast")
	server.Deconfigure("no_such_setting")
	server.Start("-c", "primary_slot_name=fixed")
	err = a.Apply(t.Context(), model.SetPrimarySlotName{From: "fixed", To: "own", Guard: guard(seen)})
	if wantClass(t, err, postgres.Transient); err != nil { // over the kept connection, which is dead
		err = a.Apply(t.Context(), model.SetPrimarySlotName{From: "fixed", To: "own", Guard: guard(seen)})
	}
	wantClass(t, err, postgres.Configuration)
	if !strings.Contains(fmt.Sprint(err), "command line sets it to 'fixed'") {
		t.Errorf("the command line is not named: %v", err)
	}
	if n := server.SQL("SELECT count(*) FROM pg_file_settings WHERE name = 'primary_slot_name'"); n != "0" {
		t.Errorf("it was written to a file all the same")
	}
}

// TestAlterSystemOff: PostgreSQL 17 can forbid ALTER SYSTEM.
func TestAlterSystemOff(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	if server.SQL("SELECT current_setting('allow_alter_system', true) IS NULL") == "t" {
		return // an older PostgreSQL: there is nothing to forbid it
	}
	server.Configure("allow_alter_system = off")
	a := adapter(t, server)
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{To: "own", Guard: guard(observe(t, a))}), postgres.Configuration)
}
