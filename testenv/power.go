package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// hostPower is one host as the lab process has it.
type hostPower struct {
	lab   *labProcess
	name  string
	index int

	mu      sync.Mutex // one order at a time
	cmd     *exec.Cmd
	ended   chan struct{} // closed when PID 1 and all in its namespace has ended
	process atomic.Pointer[Process]
	ready   atomic.Bool // its root is its own, and systemd takes orders
	cut     atomic.Bool
}

// on gives the host power. It returns once systemd takes orders.
func (h *hostPower) on() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running() {
		return nil
	}
	if err := h.cut0(); err != nil { // clears up after a host that ended by itself
		return err
	}
	if err := h.boot(); err != nil {
		return errors.Join(fmt.Errorf("power on %s: %w", h.name, err), h.cut0())
	}
	return nil
}

// boot starts the host's first process in its namespaces, gives it its cgroup and its link, and waits until it has
// become a systemd that takes orders.
func (h *hostPower) boot() error {
	console, err := openLog(filepath.Join(hostDir(h.lab.dir, h.index), consoleName))
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	spec, toHost, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = spec.Close(), toHost.Close() }()
	fromHost, answer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = fromHost.Close(), answer.Close() }()
	cmd := exec.CommandContext(context.Background(), filepath.Join(h.lab.dir, programName))
	cmd.Args = []string{"rexlab-host", h.name} // what ps shows until it is systemd
	cmd.Dir = "/"
	cmd.Env = append([]string{roleVariable + "=host"}, baseEnv...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{spec, answer}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if err := h.lab.startProcess(cmd); err != nil {
		return err
	}
	_ = answer.Close() // the host's end is the only one now
	h.cmd, h.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait()
		h.ready.Store(false)
		h.process.Store(nil)
		close(ended)
	}(h.ended)
	if err := h.prepare(cmd.Process.Pid); err != nil {
		return err
	}
	if err := json.NewEncoder(toHost).Encode(h.spec()); err != nil {
		return fmt.Errorf("tell the host what to become: %w", err)
	}
	if err := fromHost.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	problem, err := io.ReadAll(fromHost)
	if err != nil || len(problem) > 0 {
		return errors.Join(err, errors.New(string(problem)))
	}
	if err := h.awaitSystemd(); err != nil {
		return err
	}
	h.ready.Store(true)
	return nil
}

// prepare gives the process what it cannot take for itself.
func (h *hostPower) prepare(pid int) error {
	process, err := processOf(pid)
	if err != nil {
		return err
	}
	h.process.Store(&process)
	if err := h.lab.writeState(); err != nil {
		return err
	}
	if err := os.MkdirAll(h.cgroup(), 0o755); err != nil { //nolint:gosec // as the kernel makes them
		return err
	}
	if err := os.WriteFile(filepath.Join(h.cgroup(), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return fmt.Errorf("put the host into its cgroup: %w", err)
	}
	return h.lab.wire.plug(h.index, pid, h.cut.Load())
}

func (h *hostPower) cgroup() string { return filepath.Join(h.lab.cgroup, fmt.Sprintf("h%d", h.index)) }

func (h *hostPower) spec() hostSpec {
	spec := hostSpec{
		Lab: h.lab.dir, Root: h.lab.config.system().Root(), Name: h.name, Index: h.index, Address: address(h.index) + "/24",
	}
	if h.lab.config.WALBytes > 0 {
		spec.WAL = h.lab.config.paths().WAL
	}
	return spec
}

// awaitSystemd waits until the host's systemd listens.
func (h *hostPower) awaitSystemd() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	private := fmt.Sprintf("/proc/%d/root/run/systemd/private", h.cmd.Process.Pid)
	return poll(ctx, 10*time.Millisecond, "the systemd of "+h.name, func(context.Context) (bool, error) {
		if !h.running() {
			return false, final{errors.New("it has ended")}
		}
		_, err := os.Stat(private)
		return err == nil, err
	})
}

func (h *hostPower) running() bool {
	if h.cmd == nil {
		return false
	}
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// off cuts the host's power: its PID 1 is killed, and the kernel kills the rest of the namespace with it.
func (h *hostPower) off() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut0()
}

// endLimit bounds the end of a host whose PID 1 is killed. What a host needs for it is milliseconds.
const endLimit = 10 * time.Second

func (h *hostPower) cut0() error {
	if h.cmd == nil {
		return nil
	}
	if h.running() {
		// First the network: a host without power does not say goodbye to its connections.
		if err := h.lab.wire.disconnect(h.index); err != nil {
			fmt.Fprintln(os.Stderr, h.name, "is not plugged in:", err)
		}
		if err := h.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("cut the power of %s: %w", h.name, err)
		}
	}
	select {
	case <-h.ended:
	case <-time.After(endLimit):
		// The kernel waits for whoever entered the host from outside, such as a command that was stopped with Ctrl-Z.
		return fmt.Errorf("%s has no power, but a process that was run in it from outside has not ended within %s", h.name, endLimit)
	}
	h.cmd = nil
	h.ready.Store(false)
	h.process.Store(nil)
	if err := h.lab.writeState(); err != nil { // the power is off all the same
		fmt.Fprintln(os.Stderr, err)
	}
	return errors.Join(h.lab.wire.unplug(h.index), removeCgroups(h.cgroup()))
}

// setCut takes the host's network away or gives it back. It stays so across a power cut, as a pulled cable does.
func (h *hostPower) setCut(cut bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut.Store(cut)
	if !h.running() {
		return nil
	}
	if cut {
		return h.lab.wire.disconnect(h.index)
	}
	return h.lab.wire.connect(h.index)
}
