package controller

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestStatusSocket(t *testing.T) {
	defer goleak.VerifyNone(t)
	path := filepath.Join(t.TempDir(), "s")

	if _, err := FetchStatus(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no pgrex answers at "+path) {
		t.Errorf("without a daemon: %v", err)
	}

	// A daemon that was killed leaves its socket.
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}

	var server StatusServer
	server.Publish(Status{Node: "pm01"})
	if err := server.Listen(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode of the socket: %v, %v", info.Mode(), err)
	}
	status, err := FetchStatus(t.Context(), path)
	if err != nil || status.Node != "pm01" {
		t.Errorf("got %+v, %v", status, err)
	}

	var second StatusServer
	if err := second.Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another pgrex answers") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestStatusSocketIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var server StatusServer
	if err := server.Listen(t.Context(), path); err == nil {
		t.Error("listened over a file that is no socket")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "x" {
		t.Errorf("the file was touched: %q, %v", data, err)
	}
}

// TestStatusOfStranger: who may not open the socket is not told to start what runs.
func TestStatusOfStranger(t *testing.T) {
	closed := t.TempDir()
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	_, err := FetchStatus(t.Context(), filepath.Join(closed, "s"))
	if os.Geteuid() == 0 { // root may open everything: the text is that of the error alone
		err = noAnswer(filepath.Join(closed, "s"), &net.OpError{Op: "dial", Err: os.ErrPermission})
	}
	if err == nil || !strings.Contains(err.Error(), "type it as root, or with the group haclient") || strings.Contains(err.Error(), "start it") {
		t.Errorf("it says %v", err)
	}
}
