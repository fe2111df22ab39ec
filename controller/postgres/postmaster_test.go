package postgres_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestPostmasterEnds: how each server ended, and what is found then. A crash is what nobody told it to do.
func TestPostmasterEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(*pgserver.Server)
		want model.PostmasterEnd
	}{
		"killed":         {func(s *pgserver.Server) { s.Signal(syscall.SIGKILL) }, model.PostmasterEnd{State: model.InProduction}},
		"stop fast":      {func(s *pgserver.Server) { s.Stop("fast") }, model.PostmasterEnd{State: "shut down", Told: true}},
		"stop smart":     {func(s *pgserver.Server) { s.Signal(syscall.SIGTERM) }, model.PostmasterEnd{State: "shut down", Told: true}},
		"stop immediate": {func(s *pgserver.Server) { s.Stop("immediate") }, model.PostmasterEnd{State: model.InProduction, Told: true}},
		"a backend was killed": {func(s *pgserver.Server) {
			_, _ = s.Try("COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'") // the connection is lost
		}, model.PostmasterEnd{State: model.InProduction}},
		"killed, and another one is there": {func(s *pgserver.Server) {
			s.Signal(syscall.SIGKILL)
			replacePIDFile(t, filepath.Join(s.Dir, "data", "postmaster.pid"))
		}, model.PostmasterEnd{State: model.InProduction, Replaced: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgserver.New(t, "restart_after_crash = off")
			held := holdPostmaster(t, server)
			ended := make(chan error, 1)
			go func() { ended <- held.Wait() }()
			select {
			case err := <-ended:
				t.Fatalf("it has ended: %v", err)
			default:
			}
			c.end(server)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			c.want.PID = held.PID()
			server.Await("what is found is "+name, func() bool { return held.End() == c.want })
		})
	}
}

// TestStandbysPostmaster: the state of a standby is another one, whatever ends it.
func TestStandbysPostmaster(t *testing.T) {
	t.Parallel()
	standby := pgserver.New(t).Standby()
	held := holdPostmaster(t, standby)
	standby.Signal(syscall.SIGKILL)
	if err := held.Wait(); err != nil {
		t.Fatal(err)
	}
	if end := held.End(); end.State != "in archive recovery" || end.Told || end.Problem != "" {
		t.Errorf("%+v", end)
	}
}

// TestPostmasterLetGo: nobody waits for a postmaster that is let go.
func TestPostmasterLetGo(t *testing.T) {
	t.Parallel()
	held := holdPostmaster(t, pgserver.New(t))
	ended := make(chan error, 1)
	go func() { ended <- held.Wait() }()
	held.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it is said to have ended")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it is still waited for")
	}
}

// TestControlFileInDoubt: a control file that is not understood to the last byte says nothing.
func TestControlFileInDoubt(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	held := holdPostmaster(t, server)
	server.Signal(syscall.SIGKILL)
	if err := held.Wait(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(server.Dir, "data", "global", "pg_control")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"another version": func(b []byte) []byte { b[8]++; return b },
		"another state":   func(b []byte) []byte { b[16] = 1; return b },
		"a byte":          func(b []byte) []byte { b[100] ^= 1; return b },
		"cut off":         func(b []byte) []byte { return b[:200] },
		"almost nothing":  func(b []byte) []byte { return b[:10] },
		"nothing":         func([]byte) []byte { return nil },
	} {
		if err := os.WriteFile(path, spoil(append([]byte{}, good...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if end := held.End(); end.State != "" || end.Problem == "" {
			t.Errorf("%s: %+v", name, end)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if end := held.End(); end.State != "" || end.Problem == "" {
		t.Errorf("no file: %+v", end)
	}
}

// TestStrangersPostmaster: a process that does not listen as the server of the folder is not held.
func TestStrangersPostmaster(t *testing.T) {
	t.Parallel()
	server, other := pgserver.New(t), pgserver.New(t)
	for name, config := range map[string]postgres.Config{
		"another's socket": {DataDir: filepath.Join(server.Dir, "data"), SocketDir: other.Dir, Port: other.Port},
		"no data folder":   {SocketDir: server.Dir, Port: server.Port},
		"no such folder":   {DataDir: server.Dir + "/none", SocketDir: server.Dir, Port: server.Port},
		"nobody listens":   {DataDir: filepath.Join(server.Dir, "data"), SocketDir: server.Dir, Port: server.Port + 1},
	} {
		s := postgres.NewServer(config)
		t.Cleanup(s.Close)
		if held, err := s.Postmaster(t.Context(), config.DataDir); err == nil {
			t.Errorf("%s: process %d is held", name, held.PID())
			held.Close()
		}
	}
}

// TestAnotherDataFolder: pgrex is led to a server that is not the clone's. Its end says nothing about the cluster. A folder
// may have two names.
func TestAnotherDataFolder(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(server.Dir, "data"), link); err != nil {
		t.Fatal(err)
	}
	for clones, same := range map[string]bool{link: true, t.TempDir(): false, link + "-none": false} {
		held, err := adapter(t, server).Postmaster(t.Context(), clones)
		if (err == nil) != same {
			t.Errorf("%s: %v", clones, err)
		}
		if err == nil {
			held.Close()
		}
	}
}

// replacePIDFile does what a new postmaster does: it removes the file of the old one, and makes its own.
func replacePIDFile(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

func holdPostmaster(t *testing.T, server *pgserver.Server) postgres.Postmaster {
	t.Helper()
	held, err := adapter(t, server).Postmaster(t.Context(), filepath.Join(server.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Close)
	if int(held.PID()) != server.PID() {
		t.Errorf("process %d is held, not %d", held.PID(), server.PID())
	}
	return held
}
