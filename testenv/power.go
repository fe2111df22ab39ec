package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// hostPower is one host as the lab process has it.
type hostPower struct {
	lab   *labProcess
	name  string
	index int

	mu       sync.Mutex // one order at a time
	cmd      *exec.Cmd
	ended    chan struct{} // closed when PID 1 and all in its namespace has ended
	line     *hostChannel
	services []Service
	process  atomic.Pointer[Process]
	cut      atomic.Bool
}

// on gives the host power. cluster starts corosync and Pacemaker and the services too.
func (h *hostPower) on(cluster bool) error {
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
	if !cluster {
		return nil
	}
	return h.startCluster()
}

// cluster starts corosync, Pacemaker and the services in a host that has power.
func (h *hostPower) cluster() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running() {
		return fmt.Errorf("%s has no power", h.name)
	}
	return h.startCluster()
}

func (h *hostPower) startCluster() error {
	if err := h.line.do(hostRequest{Cluster: true}); err != nil {
		return fmt.Errorf("start the cluster on %s: %w", h.name, err)
	}
	for _, s := range h.services {
		if err := h.startService(s); err != nil {
			return err
		}
	}
	return nil
}

// boot starts PID 1 in its namespaces, plugs in its link, and lets it set itself up.
func (h *hostPower) boot() error {
	console, err := openLog(filepath.Join(hostDir(h.lab.dir, h.index), "console.log"))
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	line, far, err := hostLine()
	if err != nil {
		return err
	}
	defer func() { _ = far.Close() }()
	cmd := exec.CommandContext(context.Background(), filepath.Join(h.lab.dir, programName))
	cmd.Args = []string{"rexlab-host", h.name} // what ps shows
	cmd.Dir = "/"
	cmd.Env = append([]string{roleVariable + "=host", "HOME=/root"}, baseEnv...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{far}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if err := h.lab.startProcess(cmd); err != nil {
		_ = line.conn.Close()
		return err
	}
	h.cmd, h.line, h.ended = cmd, line, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait()
		h.process.Store(nil)
		close(ended)
	}(h.ended)
	process, err := processOf(cmd.Process.Pid)
	if err != nil {
		return err
	}
	h.process.Store(&process)
	if err := h.lab.writeState(); err != nil {
		return err
	}
	if err := h.lab.wire.plug(h.index, cmd.Process.Pid, h.cut.Load()); err != nil {
		return err
	}
	return h.line.do(hostRequest{Setup: &hostSpec{Lab: h.lab.dir, Name: h.name, Index: h.index}})
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
	<-h.ended
	_ = h.line.conn.Close()
	h.cmd, h.line = nil, nil
	if err := h.lab.wire.unplug(h.index); err != nil {
		return err
	}
	return h.lab.writeState()
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

func (h *hostPower) enable(s Service) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.services, func(o Service) bool { return o.Name == s.Name }) {
		return fmt.Errorf("%s has a service %s already", h.name, s.Name)
	}
	if h.running() {
		if err := h.startService(s); err != nil {
			return err
		}
	}
	h.services = append(h.services, s)
	return nil
}

func (h *hostPower) startService(s Service) error {
	u, err := s.resolve()
	if err != nil {
		return err
	}
	if err := h.line.do(hostRequest{Enable: &u}); err != nil {
		return fmt.Errorf("on %s: %w", h.name, err)
	}
	return nil
}

func (h *hostPower) disable(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := slices.IndexFunc(h.services, func(o Service) bool { return o.Name == name })
	if at < 0 {
		return fmt.Errorf("%s has no service %s", h.name, name)
	}
	h.services = slices.Delete(h.services, at, at+1)
	if !h.running() {
		return nil
	}
	return h.line.do(hostRequest{Disable: name})
}
