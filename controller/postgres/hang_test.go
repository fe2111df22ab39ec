package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// freeze stops processes; thaw lets them go on, at the test's end at the latest.
func freeze(t *testing.T, pids ...int) (thaw func()) {
	t.Helper()
	thaw = func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	for _, pid := range pids {
		kill(t, pid, syscall.SIGSTOP)
	}
	return thaw
}

// session is the server's process of pgrex's only session.
func session(t *testing.T, s *pgserver.Server) int {
	t.Helper()
	return atoi(t, s.SQL("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgrex'"))
}

// sessions counts those that the server let in since it was made: log_connections is on.
func sessions(t *testing.T, s *pgserver.Server) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "connection authorized") && strings.Contains(line, "application_name=pgrex") {
			count++
		}
	}
	return count
}

// atOnce observes for somebody who does not wait at all: a server that hangs is told of all the same, with the same
// time.
func atOnce(t *testing.T, a *postgres.Server) model.Instance {
	t.Helper()
	ended, end := context.WithCancel(t.Context())
	end()
	i, err := a.Observe(ended)
	if err != nil {
		t.Errorf("that the server hangs is awaited again: %v", err)
	}
	return i
}

// wantHanging looks several times at a server that hangs: the first look waits, the others say the same at once.
// Steps are
// refused at once.
func wantHanging(t *testing.T, a *postgres.Server, step model.Step) {
	t.Helper()
	first := observe(t, a)
	if first.State != model.ServerUnreachable || !strings.Contains(first.Problem, "has not answered at ") || !strings.Contains(first.Problem, " since 2") {
		t.Errorf("the server is %s (%q)", first.State, first.Problem)
	}
	for range 3 {
		if now := atOnce(t, a); now.Problem != first.Problem {
			t.Errorf("%q, and then %q", first.Problem, now.Problem)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		wantClass(t, a.Apply(ended, step), postgres.NoAnswer)
	}
}

// awaitUp waits until a server that goes on answers.
func awaitUp(t *testing.T, s *pgserver.Server, a *postgres.Server) {
	t.Helper()
	s.Await("the server answers pgrex", func() bool { return observe(t, a).State == model.ServerUp })
}

// TestTrap37PostmasterHangs: the kernel accepts the connection, and nobody answers. However often it is tried, the
// server
// finds one attempt when it goes on.
func TestTrap37PostmasterHangs(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "log_connections = on")
	step := model.CreateSlot{Slot: "mine", Guard: guard(observe(t, adapter(t, server)))}
	a := adapter(t, server)
	before := sessions(t, server)
	thaw := freeze(t, server.PID())
	wantHanging(t, a, step)
	thaw()
	awaitUp(t, server, a)
	wantClass(t, a.Apply(t.Context(), step), "")
	if n := sessions(t, server) - before; n != 1 {
		t.Errorf("the server let pgrex in %d times", n)
	}
}

// TestTrap37SessionHangs: the kept session's process hangs, alone or with the postmaster. Its statement is the only
// one.
func TestTrap37SessionHangs(t *testing.T) {
	t.Parallel()
	for name, postmaster := range map[string]bool{"alone": false, "with the postmaster": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgserver.New(t, "log_connections = on")
			a := adapter(t, server)
			step := model.CreateSlot{Slot: "mine", Guard: guard(observe(t, a))}
			frozen := []int{session(t, server)}
			if postmaster {
				frozen = append(frozen, server.PID())
			}
			thaw := freeze(t, frozen...)
			wantHanging(t, a, step)
			if !postmaster && session(t, server) != frozen[0] {
				t.Error("there is another session")
			}
			thaw()
			awaitUp(t, server, a)
			wantClass(t, a.Apply(t.Context(), step), "")
			if n := sessions(t, server); n != 1 {
				t.Errorf("the server let pgrex in %d times", n)
			}
		})
	}
}

// TestTrap37StepHangs: a slot is being made when the server hangs, as on a disk that has stalled. It is made once the
// server
// goes on; no second try stands behind it.
func TestTrap37StepHangs(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "log_connections = on")
	a := adapter(t, server)
	step := model.CreateSlot{Slot: "mine", Guard: guard(observe(t, a))}
	thaw := freeze(t, session(t, server))
	wantClass(t, a.Apply(t.Context(), step), postgres.NoAnswer)
	wantHanging(t, a, step)
	thaw()
	awaitUp(t, server, a)
	wantClass(t, a.Apply(t.Context(), step), postgres.AlreadyDone)
	if n := sessions(t, server); n != 1 {
		t.Errorf("the server let pgrex in %d times", n)
	}
}

// TestTrap37ReleaseHangs: the release of an xmin has a connection of its own. What nobody waits for any more is not
// done.
func TestTrap37ReleaseHangs(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t, "log_connections = on")
	a := adapter(t, primary)
	primary.Await("the slot has an xmin", func() bool { return slotOf(t, a, "own").HoldsXMin() })
	standby.Stop("fast")
	primary.Await("the slot is free", func() bool { return !slotOf(t, a, "own").Active })
	slot := slotOf(t, a, "own")
	step := model.ReleaseXMin{Slot: "own", From: slot.RestartLSN, Guard: guard(observe(t, a))}
	before := sessions(t, primary)
	thaw := freeze(t, primary.PID())
	wantClass(t, a.Apply(t.Context(), step), postgres.NoAnswer)
	wantHanging(t, a, step)
	thaw()
	awaitUp(t, primary, a)
	if !slotOf(t, a, "own").HoldsXMin() {
		t.Error("the xmin was released when nobody waited for that any more")
	}
	if n := sessions(t, primary) - before; n != 1 {
		t.Errorf("the server let pgrex in %d times", n)
	}
	wantClass(t, a.Apply(t.Context(), step), "")
}

// TestTrap37SettingHangs: ALTER SYSTEM comes through when nobody waits for it any more, and its condition cannot be
// asserted
// with it. What the file said before is put back.
func TestTrap37SettingHangs(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "log_statement = ddl")
	pid, thaw := make(chan int, 1), make(chan func(), 1)
	p := &proxy{before: []byte("ALTER SYSTEM"), pause: func() { thaw <- freeze(t, <-pid) }}
	a := p.through(t, server)
	seen := observe(t, a)
	pid <- session(t, server)
	wantClass(t, a.Apply(t.Context(), model.SetPrimarySlotName{To: "late", Guard: guard(seen)}), postgres.NoAnswer)
	(<-thaw)()
	server.Await("it is set, and put back", func() bool {
		return server.Logged("ALTER SYSTEM SET primary_slot_name = 'late'") && server.Logged("ALTER SYSTEM RESET primary_slot_name")
	})
	awaitUp(t, server, a)
	auto, err := os.ReadFile(server.Dir + "/data/postgresql.auto.conf")
	if err != nil || strings.Contains(string(auto), "late") {
		t.Errorf("postgresql.auto.conf has %s, %v", auto, err)
	}
}

// TestTrap37UpstreamHangs: a primary that hangs has one attempt to connect of each standby, and one of each member
// that asks
// it, however often it is asked. The local server is asked on.
func TestTrap37UpstreamHangs(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t, "log_connections = on")
	setConninfo(standby, primary.Conninfo()+" sslmode=disable") // or there is a second connection without TLS
	a := adapter(t, standby)
	observe(t, a)
	member, err := a.Asker()
	if err != nil {
		t.Fatal(err)
	}
	ask := map[string]func(ctx context.Context) error{
		"as the upstream": func(ctx context.Context) error { _, err := a.ObserveUpstream(ctx, []string{"own"}); return err },
		"as a member":     func(ctx context.Context) error { _, err := member(ctx, "127.0.0.1", []string{"own"}); return err },
	}
	before := sessions(t, primary)
	thaw := freeze(t, primary.PID())
	ended, end := context.WithCancel(t.Context())
	end()
	for name, ask := range ask {
		first := ask(t.Context())
		wantClass(t, first, postgres.NoAnswer)
		for range 3 {
			if err := ask(ended); err == nil || err.Error() != first.Error() {
				t.Errorf("%s: %v, and then %v", name, first, err)
			}
		}
		wantState(t, a, model.ServerUp, "")
	}
	thaw()
	for _, ask := range ask {
		primary.Await("the primary answers pgrex", func() bool { return ask(t.Context()) == nil })
	}
	if n := sessions(t, primary) - before; n != 4 {
		t.Errorf("the primary let pgrex in %d times: once for each attempt that it had, and once for each answer, is 4", n)
	}
}

// TestUpstreamGone: a connection whose other end has lost its power is given up by the kernel, or nothing would be
// asked any
// more.
func TestUpstreamGone(t *testing.T) {
	t.Parallel()
	_, standby := pair(t)
	a := adapter(t, standby)
	observe(t, a)
	if milliseconds, idle, err := a.UpstreamSocket(t.Context()); err != nil || milliseconds != 20000 || idle != 5 {
		t.Errorf("what is sent and not acknowledged ends after %d ms, keepalives begin after %d s, %v", milliseconds, idle, err)
	}
}

// TestCloseCutsWhatHangs: Close does not wait for a server that hangs, and leaves nothing behind.
func TestCloseCutsWhatHangs(t *testing.T) {
	primary, standby := pair(t, "log_connections = on")
	for name, frozen := range map[string]func(a *postgres.Server) []int{
		"the session":    func(*postgres.Server) []int { return []int{session(t, standby)} },
		"a connection":   func(a *postgres.Server) []int { a.Close(); return []int{standby.PID()} },
		"the upstream":   func(*postgres.Server) []int { return []int{primary.PID()} },
		"all of it":      func(*postgres.Server) []int { return []int{session(t, standby), standby.PID(), primary.PID()} },
		"nothing at all": func(*postgres.Server) []int { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			a := adapter(t, standby)
			observe(t, a)
			pids := frozen(a)
			if name == "a connection" {
				a = adapter(t, standby)
			}
			old := goleak.IgnoreCurrent()
			thaw := freeze(t, pids...)
			observe(t, a)
			_, _ = a.ObserveUpstream(t.Context(), []string{"own"})
			a.Close()
			if err := goleak.Find(old); err != nil {
				t.Error(err)
			}
			wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "late"}), postgres.Transient)
			thaw()
			standby.Await("the session has ended", func() bool {
				return standby.SQL("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrex'") == "0"
			})
		})
	}
}

// TestLockIsNoHang: who waits for somebody's lock gets an answer, and the rest of the look is good.
func TestLockIsNoHang(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	ctx := context.WithoutCancel(t.Context())
	locker, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", server.Dir, server.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Close(ctx) }()
	if _, err := locker.Exec(ctx, "BEGIN; LOCK TABLE pg_catalog.pg_file_settings IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if i := observe(t, adapter(t, server)); i.State != model.ServerUp || !strings.Contains(i.WALProblem, "lock timeout") {
		t.Errorf("the server is %s (%q), and of WAL: %q", i.State, i.Problem, i.WALProblem)
	}
}
