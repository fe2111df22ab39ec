package testenv

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// traces are the namespaces of a lab's processes, of its switch and of its own mounts, which must be gone with it.
type traces struct {
	dir        string
	namespaces map[string]bool
	processes  []Process
}

var namespaceLink = regexp.MustCompile(`^(mnt|uts|ipc|pid|net|cgroup):\[\d+\]$`)

// tracesOf looks at a lab that runs in a folder.
func tracesOf(t *testing.T, dir string) traces {
	t.Helper()
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		t.Fatal(err)
	}
	tr := traces{dir: dir, namespaces: map[string]bool{}, processes: []Process{state.Server}}
	tr.processes = slices.AppendSeq(tr.processes, maps.Values(state.Hosts))
	mine := map[string]bool{}
	for _, link := range namespacesOf("self") {
		mine[link] = true
	}
	for _, p := range tr.processes {
		for _, link := range namespacesOf(fmt.Sprint(p.PID)) {
			if !mine[link] {
				tr.namespaces[link] = true
			}
		}
	}
	if want := len(state.Hosts)*6 + 2; len(tr.namespaces) != want {
		t.Fatalf("the lab has the namespaces %v, not %d", tr.namespaces, want)
	}
	return tr
}

// namespacesOf are the namespaces that a process is in or holds open.
func namespacesOf(pid string) []string {
	var found []string
	for _, folder := range []string{"ns", "fd"} {
		links, _ := filepath.Glob(filepath.Join("/proc", pid, folder, "*"))
		for _, l := range links {
			if target, err := os.Readlink(l); err == nil && namespaceLink.MatchString(target) {
				found = append(found, target)
			}
		}
	}
	return found
}

// gone waits until the kernel has cleaned up, and says what is left. Processes that start from now on do not count: the
// kernel gives a namespace's number to the next one that is made, which may be another lab's.
func (tr traces) gone(t *testing.T) {
	t.Helper()
	now := bootTicks(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, "the end of everything that the lab made", func(context.Context) (bool, error) {
		for _, p := range tr.processes {
			if p.Alive() {
				return false, fmt.Errorf("process %d lives", p.PID)
			}
		}
		if err := tr.held(now); err != nil {
			return false, err
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return false, err
		}
		if bytes.Contains(mounts, []byte(tr.dir)) || bytes.Contains(mounts, []byte("rexlab")) {
			return false, fmt.Errorf("a mount is left: %s", mounts)
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
	for _, mounted := range cgroupMounts() {
		if _, err := os.Stat(labCgroup(mounted, tr.processes[0])); err == nil {
			t.Errorf("its cgroups are left in %s", mounted)
		}
	}
}

// held tells which process of before a moment is in one of the lab's namespaces, or holds one open.
func (tr traces) held(before uint64) error {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, folder := range pids {
		pid, _ := strconv.Atoi(filepath.Base(folder)) // digits only, as globbed
		p, err := processOf(pid)
		if err != nil || p.Start > before {
			continue
		}
		for _, link := range namespacesOf(filepath.Base(folder)) {
			if tr.namespaces[link] {
				command, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
				return fmt.Errorf("process %d (%q) holds %s", pid, command, link)
			}
		}
	}
	return nil
}

// bootTicks is the time since the machine's boot in the clock ticks of /proc/PID/stat, of which there are 100 in a second.
func bootTicks(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var seconds float64
	if _, err := fmt.Sscan(string(text), &seconds); err != nil {
		t.Fatal(err)
	}
	return uint64(seconds * 100)
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
	if err := tr.processes[0].kill(); err != nil {
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
	tr.gone(t)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
