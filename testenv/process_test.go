package testenv

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := processOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Process{PID: p.PID, Start: p.Start + 1}
	if !p.Alive() || other.Alive() || (Process{}).Alive() {
		t.Errorf("alive: %v, with another start: %v", p.Alive(), other.Alive())
	}
	if err := other.kill(); err != nil {
		t.Error(err)
	}
	if !p.Alive() {
		t.Fatal("the pid's earlier owner was signalled, and its present one ended")
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet, and still at its end.
	if err := p.awaitEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := p.kill(); err != nil {
		t.Errorf("a process that is gone: %v", err)
	}
}

// TestPollSaysWhatItSaw at the deadline.
func TestPollSaysWhatItSaw(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	seen := errors.New("it is raining")
	err := poll(ctx, time.Millisecond, "the sun", func(context.Context) (bool, error) { return false, seen })
	if !errors.Is(err, seen) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the sun") {
		t.Error(err)
	}
	looks := 0
	err = poll(t.Context(), time.Millisecond, "the third look", func(context.Context) (bool, error) { looks++; return looks == 3, nil })
	if err != nil || looks != 3 {
		t.Errorf("%d looks, %v", looks, err)
	}
}

// TestDeadlineKillsTheGroup: a command's children end with it.
func TestDeadlineKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	_, err := runGroup(ctx, nil, baseEnv, []string{"sh", "-c", "sleep 100 & echo $! >" + pidFile + "; echo waits >&2; wait"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waits") {
		t.Errorf("error: %v", err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	end, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	err = poll(end, time.Millisecond, "the end of the child", func(context.Context) (bool, error) {
		state, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat") // none: it has been reaped
		return len(state) == 0 || strings.Contains(string(state), ") Z "), nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestFolders: a lab takes an empty folder, or what an earlier lab left, and nothing else.
func TestFolders(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remains(foreign); err == nil || !strings.Contains(err.Error(), "no lab's folder") {
		t.Errorf("somebody's folder: %v", err)
	}
	if err := removeFolder(foreign); err == nil {
		t.Error("removed from somebody's folder")
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "new")} {
		if found, err := remains(dir); err != nil || found != "" {
			t.Errorf("an empty folder: %q, %v", found, err)
		}
	}
	left := t.TempDir()
	if err := writeJSON(filepath.Join(left, stateName), labState{Server: Process{PID: 1, Start: 1}, MadeDir: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(left, "hosts", "h1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := remains(left); err != nil || !strings.Contains(found, "process 1") {
		t.Errorf("a lab's folder: %q, %v", found, err)
	}
	if _, err := Open(left); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("open what is left of a lab: %v", err)
	}
	if err := Remove(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(left)
	if err != nil || len(entries) != 1 || entries[0].Name() != "notes" {
		t.Errorf("not only the operator's own file is left: %v, %v", entries, err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := ownFolder(open); err == nil {
		t.Error("a folder that anybody may write is taken")
	}
}
