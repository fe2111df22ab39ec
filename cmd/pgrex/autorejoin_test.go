package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
)

// What was given up is named, also after a try that failed, and never said to be kept when some of it is not.
func TestPrintGivenUp(t *testing.T) {
	given := &model.GivenUp{Timeline: 3, From: 0x1000, To: 0x2000, Bytes: 0x1000, Folder: "/kept/here", Short: "WAL from 0/1000 to 0/1800 is no longer here"}
	for name, remembered := range map[string]model.AutoRejoin{
		"returned": {Last: &model.Returned{Way: "copy", GivenUp: given}},
		"failed":   {Tries: 1, GivenUp: given},
	} {
		var text bytes.Buffer
		printAutoRejoin(printer.To(&text), &controller.AutoRejoinStatus{Dearest: model.DearestCopy, AutoRejoin: remembered}, false)
		said := strings.Join(strings.Fields(text.String()), " ")
		if want := "not all of it is kept in /kept/here: " + given.Short; !strings.Contains(said, want) || strings.Contains(said, "; it is kept") {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// told is a service manager that hands on each status.
type told chan string

func (told) Ready()               {}
func (told) Alive()               {}
func (t told) Status(line string) { t <- line }
func (told) Stopping()            {}

// The service waits for its state folder, and for the end of an earlier process, and does not end because of them.
func TestWaitsToRun(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	got := func(ctx context.Context, says told) chan io.Closer {
		running := make(chan io.Closer, 1)
		go func() { running <- waitsToRun(ctx, folder, says, time.Millisecond) }()
		return running
	}
	says := make(told)
	running := got(t.Context(), says)
	if line := <-says; !strings.Contains(line, "systemctl start pgrex") {
		t.Errorf("it says %q", line)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	until := func(running chan io.Closer, says told) io.Closer {
		for {
			select {
			case <-says:
			case r := <-running:
				return r
			case <-time.After(20 * time.Second):
				t.Fatal("it waits for ever")
			}
		}
	}
	first := until(running, says)
	ctx, end := context.WithCancel(t.Context())
	running = got(ctx, says)
	if line := <-says; !strings.Contains(line, "already runs") {
		t.Errorf("it says %q", line)
	}
	end()
	if r := until(running, says); r != nil {
		t.Error("two run on one state folder")
	}
	running = got(t.Context(), says)
	<-says
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := until(running, says).Close(); err != nil {
		t.Error(err)
	}
}

// Where root may not signal the owner's process, the owner does.
func TestPassSignal(t *testing.T) {
	child := exec.Command("/bin/sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	forbidden := func(os.Signal) error { return os.NewSyscallError("kill", syscall.EPERM) }
	if err := passSignal(forbidden, child.Process.Pid, nil, syscall.SIGTERM); err != nil {
		t.Error(err)
		_ = child.Process.Kill()
	}
	if err := <-ended; err == nil {
		t.Error("it has ended by itself")
	}
	if status := child.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("it has ended with %v", child.ProcessState)
	}
}

// An upgrade leaves a way back that is under way alone, and restarts the rest.
func TestUpgradeLeavesOperation(t *testing.T) {
	script, err := os.ReadFile("../../hack/packaging/postinstall")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	state, bin := filepath.Join(folder, "state"), filepath.Join(folder, "bin")
	for _, name := range []string{filepath.Join(state, "one"), bin, filepath.Join(folder, "systemd")} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stub := "#!/bin/sh\necho \"systemctl $*\"\n"
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(stub), 0o700); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("/var/lib/pgrex", state, "/run/systemd/system", filepath.Join(folder, "systemd"),
		"/etc/systemd/system", folder, "policy-rc.d", "no-such-policy").Replace(string(script))
	says := func() string {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", text, "postinstall", "configure")
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	const all = "systemctl try-restart pgrex.service pgrex@*.service pgrex-web.service pgrex-web@*.service"
	if out := says(); !strings.Contains(out, all+" pgrex-rejoin.service pgrex-rejoin@*.service\n") {
		t.Errorf("without an operation: %s", out)
	}
	if err := os.WriteFile(filepath.Join(state, "one", "operation.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := says(); !strings.Contains(out, all+"\n") || !strings.Contains(out, "an operation is under way") {
		t.Errorf("in an operation: %s", out)
	}
}

// What a rejoin that failed has given up stays known until a return names it.
func TestRejoinRemembersGivenUp(t *testing.T) {
	s := &settings{StateDir: t.TempDir()}
	given := &model.GivenUp{Timeline: 3, Folder: filepath.Join(s.StateDir, "given-up")}
	job := operation.Job{Plan: &rejoin.Plan{GivenUp: given}}
	remembers := func(err error) model.AutoRejoin {
		t.Helper()
		r, e := operation.Remembered(s.StateDir)
		if err != nil || e != nil {
			t.Fatal(err, e)
		}
		return r
	}
	if r := remembers(s.rememberGivenUp(job)); r.GivenUp != nil {
		t.Errorf("what was undone is given up: %+v", r)
	}
	if err := os.Mkdir(given.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := remembers(s.rememberGivenUp(job)); r.GivenUp == nil || *r.GivenUp != *given {
		t.Errorf("after a failure: %+v", r)
	}
	if r := remembers(s.forgetTries(&asking{}, nil)); r.GivenUp == nil {
		t.Errorf("after nothing was to do: %+v", r)
	}
	if r := remembers(s.forgetTries(&asking{}, &model.Returned{Way: "start"})); r.GivenUp != nil || r.Last.GivenUp == nil || *r.Last.GivenUp != *given {
		t.Errorf("after a return: %+v", r)
	}
}
