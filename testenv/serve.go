package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// labProcess owns the switch and the hosts. Its end is theirs.
type labProcess struct {
	dir    string
	config Config
	cgroup string   // the folder of the hosts' cgroups
	root   *os.File // holds the root of the hosts' system
	wire   *ethernet
	hosts  []*hostPower
	forks  chan func()
	detach sync.Once
	alone  chan struct{} // closed when the lab no longer ends with its parent
	end    context.CancelFunc
}

// serve is the lab process: the folder is the working directory, standard input the lifeline to whoever started it.
func serve() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	const lockFD = 3 // the folder's lock, which ends with this process: so it must not get to others
	unix.CloseOnExec(lockFD)
	l := &labProcess{dir: dir, forks: make(chan func()), alone: make(chan struct{})}
	if err := readJSON(filepath.Join(dir, configName), &l.config); err != nil {
		return err
	}
	if err := l.prepareCgroups(); err != nil {
		return err
	}
	defer func() { _ = removeCgroups(l.cgroup) }()
	if l.root, err = l.config.system().take(unix.LOCK_SH | unix.LOCK_NB); err != nil {
		return err
	}
	if l.wire, err = newEthernet(); err != nil {
		return err
	}
	for i, name := range l.config.Hosts {
		if err := l.config.mountWAL(filepath.Join(hostDir(dir, i+1), walName)); err != nil {
			return err
		}
		l.hosts = append(l.hosts, &hostPower{lab: l, name: name, index: i + 1})
	}
	go l.forkThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	ctx, l.end = context.WithCancel(ctx)
	defer l.end()
	go l.watchParent()
	return l.listen(ctx)
}

// prepareCgroups mounts the cgroups, removes what killed labs have left of them, and makes this lab's.
func (l *labProcess) prepareCgroups() error {
	// What the machine unmounts goes here, too, and nothing that is mounted here is seen there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts the lab's own: %w", err)
	}
	if err := mountCgroups(l.dir); err != nil {
		return err
	}
	mounted := filepath.Join(l.dir, cgroupName)
	if err := sweepCgroups(mounted); err != nil {
		return err
	}
	self, err := processOf(os.Getpid())
	if err != nil {
		return err
	}
	l.cgroup = labCgroup(mounted, self)
	return os.Mkdir(l.cgroup, 0o755) //nolint:gosec // as the kernel makes them
}

// mountWAL mounts a file system for WAL, if the lab has one. It is mounted for the lab process and its hosts only, so
// that it outlives a host and ends with the lab.
func (c Config) mountWAL(target string) error {
	if c.WALBytes == 0 {
		return nil
	}
	owner, _, err := c.system().user(dba)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("size=%d,mode=700,uid=%d,gid=%d", c.WALBytes, owner.uid, owner.gid)
	if err := unix.Mount("tmpfs", target, "tmpfs", noExtras, options); err != nil {
		return fmt.Errorf("mount a file system for WAL on %s: %w", target, err)
	}
	return nil
}

// lockDir takes the folder for this process; the kernel gives it back when the process ends.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%s: %w", dir, errLabUp)
	}
	// Whoever had the lock may have removed the folder with it: then this one locks nothing.
	held, err := lock.Stat()
	if err == nil {
		var now os.FileInfo
		if now, err = os.Stat(filepath.Join(dir, lockName)); err == nil && !os.SameFile(held, now) {
			err = errors.New("it was removed just now; try again")
		}
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

var errLabUp = errors.New("a lab is up there")

// forkThread runs what forks hosts, always on this thread: a host's parent-death signal comes when the thread that
// forked it ends, and the Go runtime may end any other one.
func (l *labProcess) forkThread() {
	runtime.LockOSThread()
	for f := range l.forks {
		f()
	}
}

// startProcess starts a command on the forking thread.
func (l *labProcess) startProcess(cmd *exec.Cmd) error {
	done := make(chan error)
	l.forks <- func() { done <- cmd.Start() }
	return <-done
}

// watchParent ends the lab when the process that booted it has ended, however it did, unless it let the lab go.
func (l *labProcess) watchParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	select {
	case <-l.alone:
	default:
		fmt.Fprintln(os.Stderr, "the process that booted the lab has ended, so the lab does")
		l.end()
	}
}

// listen takes orders until the lab ends, and then cuts every host's power.
func (l *labProcess) listen(ctx context.Context) error {
	folder, err := os.OpenFile(l.dir, unix.O_PATH|unix.O_DIRECTORY, 0) // a socket's path must be short
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), socketName)
	_ = os.Remove(path) // the lock says that nobody listens there
	old := syscall.Umask(0o177)
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	syscall.Umask(old)
	if err != nil {
		return fmt.Errorf("control socket in %s: %w", l.dir, err)
	}
	if err := l.writeState(); err != nil { // before anybody gets an answer
		return err
	}
	server := &http.Server{Handler: l.routes(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05.000"), "the lab takes orders")
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	for _, h := range l.hosts {
		h.mu.Lock() // and keep it: no host is powered on any more
		err = errors.Join(err, h.cut0())
	}
	stopping, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_ = server.Shutdown(stopping) // answers whoever asked for the end
	return errors.Join(err, server.Close())
}

// labState is what the lab process leaves in its folder for those who come after it.
type labState struct {
	Server  Process            `json:"server"`
	Hosts   map[string]Process `json:"hosts"`
	MadeDir bool               `json:"made_dir"` // the folder is the lab's own, to be removed with it
}

var stateMutex sync.Mutex

func (l *labProcess) writeState() error {
	stateMutex.Lock()
	defer stateMutex.Unlock()
	var state labState
	path := filepath.Join(l.dir, stateName)
	if err := readJSON(path, &state); err != nil {
		return err
	}
	var err error
	if state.Server, err = processOf(os.Getpid()); err != nil {
		return err
	}
	state.Hosts = map[string]Process{}
	for _, h := range l.hosts {
		if p := h.process.Load(); p != nil {
			state.Hosts[h.name] = *p
		}
	}
	return writeJSON(path, state)
}
