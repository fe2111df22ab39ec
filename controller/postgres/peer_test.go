package postgres_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestStranger: whoever else listens at the socket is not followed, and is sent nothing, whatever he would answer.
func TestStranger(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	data := filepath.Join(server.Dir, "data")
	dir, err := os.MkdirTemp("/tmp", "pgstranger") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	got := listenAs(t, filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", server.Port)))
	looking := func(folder string) *postgres.Server {
		s := postgres.NewServer(postgres.Config{DataDir: folder, SocketDir: dir, Port: server.Port, User: "postgres", Database: "postgres"})
		t.Cleanup(s.Close)
		return s
	}

	me := fmt.Sprintf("process %d of uid %d, which listens at %s/", os.Getpid(), os.Getuid(), dir)
	wantState(t, looking(data), model.ServerUnreachable, me)
	wantState(t, looking(data), model.ServerUnreachable, "by its postmaster.pid")
	wantState(t, looking(dir+"/nothing"), model.ServerUnreachable, "no such file or directory")
	wantClass(t, looking(data).Apply(t.Context(), model.CreateSlot{Slot: "mine"}), postgres.Transient)
	server.Stop("fast")
	wantState(t, looking(data), model.ServerDown, "that has no postmaster.pid, so that it does not run")

	// A postmaster.pid that names the stranger is not enough: the folder is another user's. As root, the tests'
	// servers are.
	fake := filepath.Join(dir, "data")
	for _, forged := range []struct{ line, want string }{
		{"", "read the first line"},
		{"cat\n", "does not begin with a process's number"},
		{fmt.Sprintf("-%d\n", os.Getpid()), fmt.Sprintf("that is process -%d", os.Getpid())},
	} {
		if err := os.MkdirAll(fake, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fake, "postmaster.pid"), []byte(forged.line), 0o600); err != nil {
			t.Fatal(err)
		}
		wantState(t, looking(fake), model.ServerUnreachable, forged.want)
	}
	if os.Getuid() == 0 {
		pid := filepath.Join(data, "postmaster.pid")
		if err := os.WriteFile(pid, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644); err != nil {
			t.Fatal(err)
		}
		wantState(t, looking(data), model.ServerUnreachable, "that belongs to uid ")
		if err := os.Remove(pid); err != nil {
			t.Fatal(err)
		}
	}
	if text := got(); text != "" {
		t.Errorf("the stranger was sent %q", text)
	}

	server.Start()
	wantState(t, adapter(t, server), model.ServerUp, "") // in its own folder
}

// listenAs takes connections at a path, and tells what came in.
func listenAs(t *testing.T, path string) (got func() string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 1024)
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // who sends nothing hangs up at once
			n, _ := conn.Read(buffer)
			all.Write(buffer[:n])
			_ = conn.Close()
		}
	}()
	return func() string { _ = listener.Close(); <-done; return all.String() }
}
