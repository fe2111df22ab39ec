package testenv

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traces are what a lab has on the machine while it is up, which must be gone with it.
type traces struct {
	dir       string
	server    Process
	processes []Process // the server, and the hosts' PID 1
}

// tracesOf looks at a lab that runs in a folder.
func tracesOf(t *testing.T, dir string) traces {
	t.Helper()
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		t.Fatal(err)
	}
	tr := traces{dir: dir, server: state.Server}
	tr.processes = append(slices.Collect(maps.Values(state.Hosts)), state.Server)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", tr.server.PID))
	if err == nil && !bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("the lab process mounts nothing in %s, so a mount that is left would not be found", dir)
	}
	return tr
}

// gone waits until the kernel has cleaned up, and says what is left.
func (tr traces) gone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := poll(ctx, 50*time.Millisecond, "the end of everything that the lab made", func(context.Context) (bool, error) {
		for _, p := range tr.processes {
			if p.Alive() {
				return false, fmt.Errorf("process %d lives", p.PID)
			}
		}
		if err := tr.held(); err != nil {
			return false, err
		}
		links, err := os.ReadFile("/proc/net/dev")
		if err != nil {
			return false, err
		}
		if regexp.MustCompile(`(?m)^ *port\d+:`).Match(links) {
			return false, fmt.Errorf("a link is left: %s", links)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	SweepCgroups() // as every command does
	tr.noCgroups(t)
}

func (tr traces) noCgroups(t *testing.T) {
	t.Helper()
	for _, mounted := range cgroupMounts() {
		if _, err := os.Stat(labCgroup(mounted, tr.server)); err == nil {
			t.Errorf("its cgroups are left in %s", mounted)
		}
	}
}

// held tells which process is in one of the lab's cgroups, where all of its hosts' are, or in a mount namespace with
// one of its mounts.
func (tr traces) held() error {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	cgroup := []byte(filepath.Base(labCgroup("", tr.server)) + "/")
	for _, folder := range folders {
		command, _ := os.ReadFile(filepath.Join(folder, "cmdline")) // what has ended by now has nothing
		if in, err := os.ReadFile(filepath.Join(folder, "cgroup")); err == nil && bytes.Contains(in, cgroup) {
			return fmt.Errorf("%s (%q) is in %s", folder, command, in)
		}
		if mounts, err := os.ReadFile(filepath.Join(folder, "mountinfo")); err == nil && bytes.Contains(mounts, []byte(tr.dir+"/")) {
			return fmt.Errorf("%s (%q) has a mount of the lab", folder, command)
		}
	}
	return nil
}

// bootUntil boots two hosts in another process until a stage is done.
func bootUntil(t *testing.T, dir, stage string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), bootVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		t.Log(lines.Text())
		if strings.Contains(lines.Text(), stage) {
			return cmd
		}
	}
	t.Fatalf("the boot never said %q", stage)
	return nil
}

// TestKilledParent: a lab ends with the process that booted it, and that may be killed at any moment.
func TestKilledParent(t *testing.T) {
	t.Parallel()
	needLab(t)
	for _, stage := range []string{"have power", "Pacemaker run"} {
		dir := t.TempDir()
		cmd := bootUntil(t, dir, stage)
		tr := tracesOf(t, dir)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		tr.gone(t)
	}
}

// stopAt cancels a boot when a stage is done.
type stopAt struct {
	stage  string
	cancel context.CancelFunc
	said   strings.Builder
	before func()
}

func (s *stopAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.stage) {
		if s.before != nil {
			s.before()
		}
		s.cancel()
	}
	return s.said.Write(p)
}

// TestKilledLab: when the lab process is killed nothing of it lives on, the next up says what it found, and one that is
// interrupted leaves nothing at all.
func TestKilledLab(t *testing.T) {
	t.Parallel()
	needLab(t)
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := bootUntil(t, dir, "Pacemaker run")
	tr := tracesOf(t, dir)
	if _, err := Up(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "a lab is up") {
		t.Errorf("a second lab in the folder of one that is up: %v", err)
	}
	if err := tr.server.kill(); err != nil {
		t.Fatal(err)
	}
	tr.gone(t)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &stopAt{stage: "Pacemaker run", cancel: cancel, before: func() { tr = tracesOf(t, dir) }}
	_, err := Up(ctx, Config{Dir: dir, Hosts: []string{"a", "b"}, Output: out})
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("the interrupted boot: %v", err)
	}
	if !strings.Contains(out.said.String(), "found in "+dir) {
		t.Errorf("the boot over remains said %s", out.said.String())
	}
	tr.gone(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

// TestKilledAnytime: whenever the lab process is ended, or the one that boots it, nothing is left but files and empty
// cgroups, and Remove removes the files.
func TestKilledAnytime(t *testing.T) {
	t.Parallel()
	needLab(t)
	times := 6
	if os.Getenv("PGREX_LONG") != "" {
		times = 40
	}
	for i := range times {
		dir := filepath.Join(t.TempDir(), "lab")
		cmd := bootUntil(t, dir, "hosts of")
		moment := time.Duration(rand.Int64N(int64(6 * time.Second)))
		<-time.After(moment)
		tr := tracesOf(t, dir)
		end := []string{"SIGKILL of its parent", "SIGKILL of the lab process", "SIGTERM of the lab process"}[i%3]
		switch {
		case strings.HasPrefix(end, "SIGTERM"):
			if err := syscall.Kill(tr.server.PID, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := tr.server.awaitEnd(t.Context()); err != nil {
				t.Fatal(err)
			}
			tr.noCgroups(t) // nobody had to sweep
		case strings.HasSuffix(end, "lab process"):
			if err := tr.server.kill(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("after %s: %s", moment.Round(time.Millisecond), end)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		tr.gone(t)
		if err := Remove(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the folder is left: %v", err)
		}
	}
}

// TestDetach: a lab that was let go outlives its parent, can be opened, and ends with Remove.
func TestDetach(t *testing.T) {
	t.Parallel()
	needLab(t)
	dir := t.TempDir()
	cmd := bootUntil(t, dir, "have power")
	lab, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr := tracesOf(t, dir)
	if err := lab.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out, err := lab.Exec(t.Context(), "b", "uname", "-n"); err != nil || out != "b\n" {
		t.Errorf("after its parent's end: %q, %v", out, err)
	}
	if err := Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	tr.noCgroups(t) // nobody had to sweep
	tr.gone(t)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
