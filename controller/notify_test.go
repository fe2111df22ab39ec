package controller

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestSystemd listens as systemd does and reads what the daemon says.
func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)

	var s Systemd
	s.Ready()
	s.Status("primary; all is as it should be")
	s.Status("primary; all is as it should be") // said once
	s.Alive()
	s.Status("standby")
	s.Status("standby; UpstreamUnknown: a\nMAINPID=1\r\nWATCHDOG=trigger\u0085b\x1b[m\xff") // a text of a server's
	s.Stopping()
	for _, want := range []string{"READY=1", "STATUS=primary; all is as it should be", "WATCHDOG=1", "STATUS=standby",
		"STATUS=standby; UpstreamUnknown: a MAINPID=1  WATCHDOG=trigger b\uFFFD[m\uFFFD", "STOPPING=1"} {
		buffer := make([]byte, 256)
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(buffer)
		if err != nil || string(buffer[:n]) != want {
			t.Fatalf("systemd is told %q, %v, not %q", buffer[:n], err, want)
		}
	}
}

// TestWithoutSystemd: nobody listens, and nothing fails.
func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	var s Systemd
	s.Ready()
	s.Alive()
	s.Stopping()
}
