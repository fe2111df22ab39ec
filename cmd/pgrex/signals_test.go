package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
