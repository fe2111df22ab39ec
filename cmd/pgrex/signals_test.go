package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller/operation"
)

// TestInheritedSignals: a program that a step starts neither ignores nor blocks a signal that the operation holds out
// against. PostgreSQL, and what it runs, would go on ignoring it.
func TestInheritedSignals(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	end := quits(cmd)
	defer end()
	var status []byte
	look := operation.Program{Text: "look", Run: func(ctx context.Context) (err error) {
		status, err = exec.CommandContext(ctx, "cat", "/proc/self/status").Output()
		return err
	}}
	var said bytes.Buffer
	engine := &operation.Engine{Report: printer.To(&said).Report}
	if err := undisturbed(cmd, func(ctx context.Context) error {
		return engine.Run(ctx, []operation.Action{look, look})
	}); err != nil {
		t.Fatal(err)
	}
	for _, mask := range []string{"SigIgn", "SigBlk"} {
		set := signalsOf(t, status, mask)
		for _, s := range append([]os.Signal{syscall.SIGPIPE, syscall.SIGQUIT}, stops...) {
			if set&(1<<(s.(syscall.Signal)-1)) != 0 {
				t.Errorf("%s in %s of what a step has started", s, mask)
			}
		}
	}
	if strings.Count(said.String(), "look (") != 2 {
		t.Errorf("it says %q", said.String())
	}
}

// signalsOf returns one of the sets of signals in /proc/PID/status.
func signalsOf(t *testing.T, status []byte, mask string) (set uint64) {
	t.Helper()
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, mask+":"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
	}
	t.Fatalf("no %s in %q", mask, status)
	return 0
}

// TestQuits: SIGQUIT ends a command's context, as Ctrl-C does.
func TestQuits(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	defer quits(cmd)()
	if err := syscall.Kill(os.Getpid(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-cmd.Context().Done()
}

// startPrograms is a program that holds out, and starts others.
func startPrograms() {
	end := holdOut(func() {})
	defer end()
	for range 100 {
		if err := exec.Command("true").Run(); err != nil {
			panic(err)
		}
	}
}

// TestSuspendedWhileStarting: Ctrl-Z just while a program is started stops that one before its execve, and with it
// whoever waits for it. It is continued.
func TestSuspendedWhileStarting(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "starter")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond / 2):
			// Before it holds out it may be stopped as a whole: that is what Ctrl-Z is for.
			_ = errors.Join(syscall.Kill(-cmd.Process.Pid, syscall.SIGTSTP), continueLeader(cmd.Process.Pid))
		}
	}
}

// continueLeader continues one process, and none that it has started.
func continueLeader(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }

// TestReaderGone: the reader of a plan may go away, as head does. Nothing was begun then, and nothing is to be undone.
// SIGKILL is another matter.
func TestReaderGone(t *testing.T) {
	for signal, silent := range map[string]bool{"PIPE": true, "KILL": false} {
		err := childStatus(exec.Command("sh", "-c", "kill -"+signal+" $$").Run())
		if _, ok := errors.AsType[statusError](err); err == nil || ok != silent {
			t.Errorf("after SIG%s: %v", signal, err)
		}
	}
}
