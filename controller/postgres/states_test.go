package postgres_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// wantState observes, and compares the state and a part of the problem, which is one line.
func wantState(t *testing.T, a *postgres.Server, want model.ServerState, text string) {
	t.Helper()
	i := observe(t, a)
	if i.State != want || !strings.Contains(i.Problem, text) || strings.Contains(i.Problem, "\n") {
		t.Errorf("the server is %s (%q), not %s (…%s…)", i.State, i.Problem, want, text)
	}
}

// TestStates: what keeps a server from answering is a state, with a line that says what.
func TestStates(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	wantState(t, a, model.ServerUp, "")

	server.Stop("fast")
	wantState(t, a, model.ServerDown, "nothing listens at "+server.Dir)
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.Transient)
	server.Start()
	wantState(t, a, model.ServerUp, "") // over a new connection: the kept one is dead
	server.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgrex'")
	wantState(t, a, model.ServerUp, "")

	server.Signal(syscall.SIGKILL) // of the postmaster alone: its children are left, and must not answer for it
	server.Await("the server is found down", func() bool { return observe(t, a).State == model.ServerDown })
	wantState(t, a, model.ServerDown, "nothing listens at "+server.Dir)
}

// TestTrap24HangingServer: every call has a deadline.
func TestTrap24HangingServer(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	a := adapter(t, server)
	wantState(t, a, model.ServerUp, "")
	backend := atoi(t, server.SQL("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgrex'"))

	server.Signal(syscall.SIGSTOP)
	newcomer := adapter(t, server) // connects into the backlog, and hears nothing
	wantState(t, newcomer, model.ServerUnreachable, "has not answered")
	wantClass(t, newcomer.Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.NoAnswer)
	kill(t, backend, syscall.SIGSTOP) // the session that is kept hangs, too
	wantState(t, a, model.ServerUnreachable, "has not answered")
	kill(t, backend, syscall.SIGCONT)
	server.Signal(syscall.SIGCONT)
	awaitUp(t, server, a)
	awaitUp(t, server, newcomer)
}

// TestRefused: who is not let in is told what to do.
func TestRefused(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	stranger := postgres.NewServer(postgres.Config{SocketDir: server.Dir, Port: server.Port, User: "nobody", Database: "postgres"})
	defer stranger.Close()
	wantState(t, stranger, model.ServerUnreachable, "run pgrex as the operating system's user nobody (runuser -u nobody -g haclient -- pgrex)")
	lost := postgres.NewServer(postgres.Config{SocketDir: server.Dir, Port: server.Port, User: "postgres", Database: "it's \\ not there"})
	defer lost.Close()
	wantState(t, lost, model.ServerUnreachable, `database "it's \ not there" does not exist`)
	wantClass(t, lost.Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.Configuration)

	a := adapter(t, server)
	server.Access("local all all reject")
	server.Await("pg_hba.conf is in force", func() bool { return observe(t, adapter(t, server)).State != model.ServerUp })
	wantState(t, a, model.ServerUnreachable, "let pg_hba.conf let it in")
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.Permission)

}

// TestStarting: a standby that takes no connections yet is starting, and one that ends is down. Both say 57P03.
func TestStarting(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	standby := primary.Standby()
	a := adapter(t, standby)
	checkpointer := atoi(t, standby.SQL("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
	kill(t, checkpointer, syscall.SIGSTOP) // without it the shutdown does not get on
	standby.Signal(syscall.SIGINT)
	standby.Await("the server says that it ends", func() bool {
		return strings.Contains(observe(t, a).Problem, "shutting down")
	})
	wantState(t, a, model.ServerDown, "shutting down")
	kill(t, checkpointer, syscall.SIGCONT)
	standby.Await("the server has ended", func() bool { _, err := os.Stat(standby.Dir + "/data/postmaster.pid"); return err != nil })

	standby.Launch("-c", "hot_standby=off")
	standby.Await("the server says that it starts", func() bool { return observe(t, a).State == model.ServerStarting })
	wantClass(t, a.Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.Transient)
}

func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}

func atoi(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}
