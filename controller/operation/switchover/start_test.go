package switchover

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// shutDownServer is a switchover whose server is shut down, in maintenance-mode.
func shutDownServer(t *testing.T, settings ...string) (*pgserver.Server, *Switchover) {
	t.Helper()
	server := pgserver.New(t, settings...)
	on := maintenance(true)
	s := &Switchover{
		Observer: on.observerOf(t, server),
		place:    datadir.Place{Data: filepath.Join(server.Dir, "data"), Bin: fakes.Programs(t, server)},
	}
	s.Clone.Parameters = map[string]string{"logfile": filepath.Join(server.Dir, "log-after-undo")}
	server.Stop("fast")
	t.Cleanup(func() { // what an undo starts outlives this process
		if s.place.Runs() {
			server.Stop("immediate")
		}
	})
	return server, s
}

// An undo that cannot start PostgreSQL quotes PostgreSQL's log. Once the cause is mended, undo starts PostgreSQL.
func TestStartAgainFails(t *testing.T) {
	t.Parallel()
	server, s := shutDownServer(t)
	data := s.place.Data
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	type trouble struct {
		name, says  string
		spoil, mend func()
	}
	troubles := []trouble{
		{"a key that it may not read", `could not load private key file "server.key": Permission denied`, func() {
			writeKey(t, data)
			server.Configured("ssl = on")
		}, func() {
			owner, err := os.Stat(data)
			must(err)
			key := filepath.Join(data, "server.key")
			must(errors.Join(os.Chmod(key, 0o600), os.Chown(key, int(owner.Sys().(*syscall.Stat_t).Uid), -1)))
		}},
	}
	if os.Geteuid() == 0 { // only root mounts
		troubles = append(troubles, trouble{
			"a full disk", "No space left on device",
			func() { fill(t, data) }, func() { must(os.Remove(filepath.Join(data, "filler"))) },
		})
	}
	for _, test := range troubles {
		test.spoil()
		step := s.shutDown()
		err := fakes.Undo(t.Context(), step)
		if err == nil || !strings.Contains(err.Error(), test.says) || s.place.Runs() {
			t.Errorf("%s: %v; it runs: %t", test.name, err, s.place.Runs())
		}
		test.mend()
		if err := fakes.Undo(t.Context(), step); err != nil || server.SQL("SELECT pg_is_in_recovery()") != "f" {
			t.Errorf("%s, mended: %v", test.name, err)
		}
		server.Stop("fast")
	}
}

// writeKey writes a key that only root may read, and its certificate.
func writeKey(t *testing.T, folder string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	key, keyErr := x509.MarshalPKCS8PrivateKey(private)
	err = errors.Join(err, keyErr,
		os.WriteFile(filepath.Join(folder, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0),
		os.WriteFile(filepath.Join(folder, "server.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// fill moves a folder to a file system of its own, and leaves no room there.
func fill(t *testing.T, folder string) {
	t.Helper()
	beside := folder + "-on-disk"
	info, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	options := fmt.Sprintf("size=256m,mode=0700,uid=%d,gid=%d", owner.Uid, owner.Gid)
	err = errors.Join(os.Rename(folder, beside), os.Mkdir(folder, 0o700), syscall.Mount("tmpfs", folder, "tmpfs", 0, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(syscall.Unmount(folder, syscall.MNT_DETACH), os.Remove(folder), os.Rename(beside, folder))
		if err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", beside+"/.", folder).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	filler, err := os.Create(filepath.Join(folder, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = filler.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
}

// A start may take longer than an undo waits for it. The next undo does not repeat it: that would never end.
func TestStartIsSlow(t *testing.T) {
	t.Parallel()
	// The server waits for its log, a pipe that nobody reads yet.
	server, s := shutDownServer(t)
	server.Configured("logging_collector = on", "log_directory = '.'", "log_filename = 'gate'")
	gate := filepath.Join(s.place.Data, "gate")
	owner, err := os.Stat(s.place.Data)
	if err != nil {
		t.Fatal(err)
	}
	as := owner.Sys().(*syscall.Stat_t)
	if err := errors.Join(syscall.Mkfifo(gate, 0o600), os.Chown(gate, int(as.Uid), int(as.Gid))); err != nil {
		t.Fatal(err)
	}
	impatient := t.TempDir()
	for _, program := range []string{"pg_ctl", "pg_controldata"} {
		script := "#!/bin/sh\nexec " + filepath.Join(s.place.Bin, program) + ` "$@"`
		if program == "pg_ctl" {
			script += " --timeout=1"
		}
		if err := os.WriteFile(filepath.Join(impatient, program), []byte(script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.place.Bin = impatient

	step := s.shutDown()
	err = fakes.Undo(t.Context(), step)
	if err == nil || !strings.Contains(err.Error(), "did not start in time") || s.place.Status() != "starting" {
		t.Fatalf("a slow start: %v; it is %q", err, s.place.Status())
	}
	began := server.PID()
	undone := make(chan error)
	go func() { undone <- fakes.Undo(t.Context(), step) }()
	reader, err := os.Open(gate)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }() // until the server has ended
	if err := <-undone; err != nil || server.PID() != began {
		t.Errorf("once it has started: %v; it was started again: %t", err, server.PID() != began)
	}
	if status := s.place.Status(); status != "ready" {
		t.Errorf("it is %q", status)
	}

	// A server that runs, but cannot be asked, is not restarted.
	on := maintenance(true)
	s.Observer = on.observer()
	s.Observer.Connect = func(controller.Target) controller.Server { return deaf{} }
	if err := fakes.Undo(t.Context(), step); err == nil || !strings.Contains(err.Error(), "says in") || server.PID() != began {
		t.Errorf("one that cannot be asked: %v; it was started again: %t", err, server.PID() != began)
	}
}

// deaf is a server that cannot be asked.
type deaf struct{ controller.Server }

// Observe implements the controller's server.
func (deaf) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerUnreachable}, nil
}
