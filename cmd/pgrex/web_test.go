package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestWeb: the program answers on the socket that systemd passes and on its own, tells systemd that it does, and ends when told.
func TestWeb(t *testing.T) {
	folder := t.TempDir()
	var daemon controller.StatusServer
	if err := daemon.Listen(t.Context(), filepath.Join(folder, "s")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Close() })
	looks := func() { // or a check on a busy machine would find the last look too old
		daemon.Publish(controller.Status{
			Looked: time.Now(), Read: time.Now(), Role: model.Primary, Server: controller.ServerStatus{State: model.ServerUp},
		})
	}
	looks()

	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notified.Close() })
	passed := listenTCP(t, "127.0.0.1:0")
	// The system gives no port below 32768 to anybody else meanwhile, and the tests' servers have those from 12000 on.
	own := listenTCP(t, fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(2000)))
	socket, err := passed.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	address := own.Addr().String()
	_ = own.Close() // so that the program may have it

	var said bytes.Buffer
	program := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec pgrex web --socket s --web-listen "$1"`, "sh", address)
	program.Dir, program.Stdout, program.Stderr, program.ExtraFiles = folder, &said, &said, []*os.File{socket}
	program.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(folder, "notify"))
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Process.Kill() })
	if state := next(t, notified); state != "READY=1" {
		t.Fatalf("it tells systemd %q and says %s", state, &said)
	}
	for _, at := range []string{passed.Addr().String(), address} {
		for path, want := range map[string]int{"/primary": 200, "/replica": 503, "/metrics": 200} {
			looks()
			response, err := http.Get("http://" + at + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s at %s is %s", path, at, response.Status)
			}
		}
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("it ends with %v and says %s", err, &said)
	}
	if state := next(t, notified); state != "STOPPING=1" {
		t.Errorf("at its end it tells systemd %q", state)
	}
}

func listenTCP(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// next is what systemd is told next.
func next(t *testing.T, from *net.UnixConn) string {
	t.Helper()
	if err := from.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	state := make([]byte, 1024)
	n, err := from.Read(state)
	if err != nil {
		t.Fatal(err)
	}
	return string(state[:n])
}

// TestWebListen: addresses on the command line take the place of those in the file.
func TestWebListen(t *testing.T) {
	for arguments, want := range map[string]string{
		"":                                    "127.0.0.1:1 127.0.0.1:2",
		"--web-listen :3":                     ":3",
		"--web-listen :3 --web-listen [::]:4": ":3 [::]:4",
	} {
		s := newSettings()
		cmd := webCommand()
		cmd.ResetFlags()
		s.askFlags(cmd.Flags())
		s.webFlags(cmd.Flags())
		path := filepath.Join(t.TempDir(), "pgrex.yaml")
		if err := os.WriteFile(path, []byte("web-listen: ['127.0.0.1:1', '127.0.0.1:2']\nweb-config: web.yml\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd.ParseFlags(append(strings.Fields(arguments), "--config", path)); err != nil {
			t.Fatal(err)
		}
		if err := s.load(cmd); err != nil || !slices.Equal(s.WebListen, strings.Fields(want)) || s.WebConfig != "web.yml" {
			t.Errorf("%s: it listens on %q, %v", arguments, s.WebListen, err)
		}
	}
}
