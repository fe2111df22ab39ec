package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// initProcess starts and reaps what runs in a host.
type initProcess struct {
	mu      sync.Mutex
	waiting map[int]chan<- syscall.WaitStatus
	names   map[int]string
	units   map[string]*runningUnit // only the line's goroutine uses it
}

// program is something that a host's PID 1 starts.
type program struct {
	name       string
	argv       []string
	env        []string
	dir        string
	log        string // a file; "" for PID 1's own output
	credential *syscall.Credential
}

func newInit() *initProcess {
	i := &initProcess{waiting: map[int]chan<- syscall.WaitStatus{}, names: map[int]string{}, units: map[string]*runningUnit{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			i.reap()
		}
	}()
	return i
}

// reap collects every child that has ended: those that were started here and those that lost their parent.
func (i *initProcess) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		i.mu.Lock()
		ended, mine := i.waiting[pid]
		name := i.names[pid]
		delete(i.waiting, pid)
		delete(i.names, pid)
		i.mu.Unlock()
		if mine {
			i.logf("%s (pid %d) %s", name, pid, exitText(status))
			ended <- status
			close(ended)
		}
	}
}

// start runs a program in a session of its own. The channel gets its status when it ends, and is closed.
func (i *initProcess) start(p program) (int, <-chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = null.Close() }()
	out := os.Stderr
	if p.log != "" {
		if out, err = openLog(p.log); err != nil {
			return 0, nil, err
		}
		defer func() { _ = out.Close() }()
	}
	dir := p.dir
	if dir == "" {
		dir = "/"
	}
	ended := make(chan syscall.WaitStatus, 1)
	i.mu.Lock() // so that the reaper cannot be faster than the entry in the map
	defer i.mu.Unlock()
	pid, err := syscall.ForkExec(p.argv[0], p.argv, &syscall.ProcAttr{
		Dir: dir, Env: p.env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: p.credential},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s (%s): %w", p.name, p.argv[0], err)
	}
	i.waiting[pid], i.names[pid] = ended, p.name
	return pid, ended, nil
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func (i *initProcess) logf(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, arguments...))
}
