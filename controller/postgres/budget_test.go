package postgres_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// budgetOf is what the server says of its budget.
func budgetOf(t *testing.T, a *postgres.Server) model.Budget {
	t.Helper()
	i := observe(t, a)
	if i.Budget == nil {
		t.Fatalf("nothing is known of the budget: %s", i.WALProblem)
	}
	return *i.Budget
}

// TestWALSpace: the file system is the one that pg_wal is on, through a symbolic link; what cannot be read is unknown, not
// nothing.
func TestWALSpace(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "max_wal_size = 96MB", "wal_keep_size = 48MB")
	server.Stop("fast")
	wal := filepath.Join(server.Dir, "data", "pg_wal")
	// /dev/shm is a file system of its own.
	elsewhere, err := os.MkdirTemp("/dev/shm", "pgrex-wal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(elsewhere) })
	target := filepath.Join(elsewhere, "wal")
	server.Move(wal, target)
	server.Start()
	a := adapter(t, server)
	i := observe(t, a)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(elsewhere, &fs); err != nil {
		t.Fatal(err)
	}
	if i.WALSpace == nil || i.WALSpace.Size != fs.Blocks*uint64(fs.Frsize) || i.WALSpace.Free == 0 || i.WALSpace.Free > i.WALSpace.Size {
		t.Errorf("the file system of pg_wal is %+v (%s), not that of %s", i.WALSpace, i.WALProblem, elsewhere)
	}
	if i.WALSpace.WAL < i.WALSegmentSize || i.WALSpace.WAL%i.WALSegmentSize != 0 {
		t.Errorf("%d bytes of WAL in segments of %d", i.WALSpace.WAL, i.WALSegmentSize)
	}
	if b := *i.Budget; b != (model.Budget{MaxSlotWALKeepSize: -1, MaxWALSize: 96, WALKeepSize: 48}) {
		t.Errorf("the budget is %+v", b)
	}

	server.SQL("CREATE ROLE watcher LOGIN")
	b := postgres.NewServer(postgres.Config{SocketDir: server.Dir, Port: server.Port, User: "watcher", Database: "postgres"})
	t.Cleanup(b.Close)
	i = observe(t, b)
	if i.State != model.ServerUp || i.WALSpace != nil || i.Budget != nil || !strings.Contains(i.WALProblem, "permission denied") {
		t.Errorf("to who may not read it, it is %+v, %+v, %q", i.WALSpace, i.Budget, i.WALProblem)
	}
}

func TestSetWALBudget(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	g := guard(observe(t, a))
	step := model.SetWALBudget{From: -1, To: 320, Guard: g}

	for name, wrong := range map[string]model.Guard{
		"another system":   {SystemID: "1", RedoTimeline: g.RedoTimeline},
		"another role":     {SystemID: g.SystemID, InRecovery: true, RedoTimeline: g.RedoTimeline},
		"another timeline": {SystemID: g.SystemID, RedoTimeline: 9},
	} {
		t.Run(name, func(t *testing.T) {
			wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: -1, To: 320, Guard: wrong}), postgres.Changed)
		})
	}
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: 64, To: 320, Guard: g}), postgres.Changed)
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: -1, To: -2, Guard: g}), postgres.Configuration)
	if b := budgetOf(t, a); b.MaxSlotWALKeepSize != -1 || b.AutoConf {
		t.Fatalf("something was set all the same: %+v", b)
	}
	wantClass(t, a.Apply(t.Context(), step), "")
	if b := budgetOf(t, a); b.MaxSlotWALKeepSize != 320 || !b.AutoConf || b.Pinned != "" || server.SQL("SHOW max_slot_wal_keep_size") != "320MB" {
		t.Errorf("set to 320MB, it is %+v", b)
	}
	wantClass(t, a.Apply(t.Context(), step), postgres.Changed) // it is no longer -1
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: 320, To: model.Unlimited, Guard: g}), "")
	if b := budgetOf(t, a); b.MaxSlotWALKeepSize != -1 || !b.AutoConf {
		t.Errorf("set to no limit, it is %+v", b)
	}

	t.Run("lossless", func(t *testing.T) { budgetWaitsForSlots(t, server, a) })

	// PostgreSQL keeps to it, whoever is down.
	server.SQL("SELECT pg_create_physical_replication_slot('held', true)")
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: -1, To: 32, Guard: g}), "")
	server.WriteWAL(80)
	if s := slotOf(t, a, "held"); !s.Lost() {
		t.Errorf("with a budget of 32 MB and 80 MB written the slot is %+v", s)
	}
}

// budgetWaitsForSlots: a budget that takes slots to hold no more is not set while one does, and not if one comes to in the
// meantime; another's reload then finds the file as it was.
func budgetWaitsForSlots(t *testing.T, server *pgserver.Server, a *postgres.Server) {
	g := guard(observe(t, a))
	lower := func(to int64) model.SetWALBudget {
		return model.SetWALBudget{From: -1, To: to, Lossless: true, Guard: g}
	}
	server.SQL("SELECT pg_create_physical_replication_slot('slow', true)")
	server.WriteWAL(40)

	err := a.Apply(t.Context(), lower(32))
	wantClass(t, err, postgres.Busy)
	if !strings.Contains(fmt.Sprint(err), "slot slow still holds ") {
		t.Errorf("the slot is not named: %v", err)
	}
	held := int64(observe(t, a).Held(slotOf(t, a, "slow")) >> 20)
	p := &proxy{before: []byte("pg_reload_conf"), pause: func() { server.WriteWAL(64) }}
	wantClass(t, p.through(t, server).Apply(t.Context(), lower(held+32)), postgres.Changed)
	server.SQL("SELECT pg_reload_conf()")
	if got := server.SQL("SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size'"); got != "-1" {
		t.Errorf("postgresql.auto.conf says %q, not -1", got)
	}

	held = int64(observe(t, a).Held(slotOf(t, a, "slow")) >> 20)
	server.Configure("no_such_setting = 1") // no reload counts
	wantClass(t, a.Apply(t.Context(), lower(held+32)), postgres.Configuration)
	server.Deconfigure("no_such_setting")
	server.SQL("SELECT pg_reload_conf()")
	if got := server.SQL("SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size'"); got != "-1" {
		t.Errorf("after a reload that did not count postgresql.auto.conf says %q, not -1", got)
	}
	wantClass(t, a.Apply(t.Context(), lower(held+32)), "")
	server.SQL("SELECT pg_drop_replication_slot('slow')")
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: held + 32, To: model.Unlimited, Guard: g}), "")
}

// TestPinnedBudget: an operator's own value is seen, whatever wins, and counts once ours is out of postgresql.auto.conf.
func TestPinnedBudget(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "#max_slot_wal_keep_size = 1GB") // a comment is no value
	a := adapter(t, server)
	g := guard(observe(t, a))
	if b := budgetOf(t, a); b.Pinned != "" {
		t.Errorf("a comment pins it: %+v", b)
	}
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: -1, To: 320, Guard: g}), "")
	server.Configure("max_slot_wal_keep_size = 2GB")
	b := budgetOf(t, a)
	if b.MaxSlotWALKeepSize != 320 || !b.AutoConf || b.Pinned != "2GB" || !strings.Contains(b.PinnedAt, "/postgresql.conf line ") {
		t.Errorf("pinned beneath ours, it is %+v", b)
	}
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: 320, To: 320, Reset: true, Guard: g}), "")
	if b := budgetOf(t, a); b.MaxSlotWALKeepSize != 2048 || b.AutoConf || b.Pinned != "2GB" {
		t.Errorf("ours is out, and it is %+v", b)
	}

	server.Stop("fast")
	server.Start("-c", "max_slot_wal_keep_size=4GB")
	if b := budgetOf(t, a); b.MaxSlotWALKeepSize != 4096 || !b.CommandLine || b.Pinned != "2GB" {
		t.Errorf("on the command line, it is %+v", b)
	}
	err := a.Apply(t.Context(), model.SetWALBudget{From: 4096, To: 320, Guard: g})
	wantClass(t, err, postgres.Configuration)
	if !strings.Contains(fmt.Sprint(err), "command line sets it to '4096'") || budgetOf(t, a).AutoConf {
		t.Errorf("the command line is not named, or it was written all the same: %v", err)
	}
}

// TestPromotedBeforeBudgetCounts: the host is promoted between ALTER SYSTEM and the reload. The budget does not take effect,
// and the file says again what it said before.
func TestPromotedBeforeBudgetCounts(t *testing.T) {
	t.Parallel()
	_, standby := pair(t)
	first := adapter(t, standby)
	g := guard(observe(t, first))
	wantClass(t, first.Apply(t.Context(), model.SetWALBudget{From: -1, To: 320, Guard: g}), "")
	p := &proxy{before: []byte("pg_reload_conf"), pause: standby.Promote}
	a := p.through(t, standby)
	wantClass(t, a.Apply(t.Context(), model.SetWALBudget{From: 320, To: 64, Guard: g}), postgres.Changed)
	got := standby.SQL("SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size'")
	if now := budgetOf(t, first); got != "320" || now.MaxSlotWALKeepSize != 320 {
		t.Errorf("postgresql.auto.conf says %q, not 320; the budget is %+v", got, now)
	}
}
