package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCollectBounded: of too much the beginning is kept, or of a journal the end, and it is said that there was more.
func TestCollectBounded(t *testing.T) {
	for _, tail := range []bool{false, true} {
		script := fmt.Sprintf("echo first; head -c %d /dev/zero | tr '\\0' x; echo; echo last", 3*partBytes)
		text, err := collect(t.Context(), part{command: []string{"sh", "-c", script}, tail: tail, redact: func(s string) string { return s }})
		if err == nil || !strings.Contains(err.Error(), "says more than") {
			t.Errorf("tail %t: it says %v", tail, err)
		}
		if len(text) != partBytes || strings.HasPrefix(text, "first\n") == tail || strings.HasSuffix(text, "\nlast\n") != tail {
			t.Errorf("tail %t: %d bytes, from %q to %q", tail, len(text), text[:10], text[len(text)-10:])
		}
	}
}

// TestCollectKillsAll: what a command started that is given up does not live on.
func TestCollectKillsAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHangingPart$")
	cmd.Env = append(os.Environ(), "PGREX_TEST_HANGS="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	awaitTrue(t, "the command runs", func() bool {
		text, _ := os.ReadFile(file)
		n, _ := fmt.Sscan(string(text), &pid)
		return n == 1 && strings.HasSuffix(string(text), "\n")
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	awaitTrue(t, "the command's child has ended", func() bool { return syscall.Kill(pid, 0) != nil })
}

// TestHangingPart is the process that TestCollectKillsAll interrupts.
func TestHangingPart(t *testing.T) {
	file := os.Getenv("PGREX_TEST_HANGS")
	if file == "" {
		t.SkipNow()
	}
	ctx, stop := interruptible()
	defer stop()
	script := "sleep 600 & echo $! >" + file + "; wait"
	if _, err := collect(ctx, part{command: []string{"sh", "-c", script}, redact: redact}); err == nil || ctx.Err() == nil {
		t.Errorf("it ends with %v", err)
	}
}

// TestArchiveTakesNoFilesPlace: a file that appears meanwhile stays, and two cannot write one archive.
func TestArchiveTakesNoFilesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar.gz")
	a, err := create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(path); err == nil || !strings.Contains(err.Error(), "another pgrex support") {
		t.Errorf("a second one says %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.add("x", "y")
	if err := a.finish(); err == nil {
		t.Error("it is written over a file")
	}
	a.discard()
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("this is left: %v", left)
	}
}

func awaitTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
