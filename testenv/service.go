package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Service is a program that runs in a host as long as it has power, as an enabled unit of systemd would.
type Service struct {
	Name string `json:"name"` // letters, digits, dots and dashes
	// User and Group are whom it runs as; the group is the only one it has. Empty: root.
	User  string   `json:"user,omitempty"`
	Group string   `json:"group,omitempty"`
	Argv  []string `json:"argv"` // the first is an absolute path, or found in the host's PATH
	Env   []string `json:"env,omitempty"`
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

// reserved are log names that a service must not take.
var reservedNames = []string{"postgresql", "pacemaker", "corosync", "console"}

// unit is a Service with its names resolved.
type unit struct {
	Service
	UID, GID uint32
	Home     string
}

func (s Service) resolve() (unit, error) {
	u := unit{Service: s, Home: "/root"}
	if !serviceName.MatchString(s.Name) {
		return u, fmt.Errorf("service %q: a name is letters, digits, dots and dashes", s.Name)
	}
	for _, r := range reservedNames {
		if s.Name == r {
			return u, fmt.Errorf("service %q: the name is taken by a log of the host", s.Name)
		}
	}
	if len(s.Argv) == 0 {
		return u, fmt.Errorf("service %s: no program", s.Name)
	}
	if s.User != "" {
		account, err := user.Lookup(s.User)
		if err != nil {
			return u, fmt.Errorf("service %s: %w", s.Name, err)
		}
		u.Home = account.HomeDir
		if u.UID, err = parseID(account.Uid); err != nil {
			return u, err
		}
		if u.GID, err = parseID(account.Gid); err != nil {
			return u, err
		}
	}
	if s.Group != "" {
		group, err := user.LookupGroup(s.Group)
		if err != nil {
			return u, fmt.Errorf("service %s: %w", s.Name, err)
		}
		if u.GID, err = parseID(group.Gid); err != nil {
			return u, err
		}
	}
	return u, nil
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}

// runningUnit is a service that PID 1 keeps running.
type runningUnit struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (u unit) runtimeDir() string { return filepath.Join("/run", u.Name) }

// logPath is where a service's output goes, in the host.
func logPath(service string) string { return filepath.Join("/var/log/rexlab", service+".log") }

// enable starts a service and keeps it running. A service that cannot be started at all is an error.
func (i *initProcess) enable(u unit) error {
	if i.units[u.Name] != nil {
		return fmt.Errorf("service %s runs already", u.Name)
	}
	path, err := exec.LookPath(u.Argv[0])
	if err != nil {
		return fmt.Errorf("service %s: %w", u.Name, err)
	}
	p := program{
		name: u.Name, argv: append([]string{path}, u.Argv[1:]...), log: logPath(u.Name),
		credential: &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: []uint32{u.GID}},
	}
	p.env = append(append([]string{
		"HOME=" + u.Home, "USER=" + u.User, "LOGNAME=" + u.User, "RUNTIME_DIRECTORY=" + u.runtimeDir(),
	}, baseEnv...), u.Env...)
	start := func() (int, <-chan syscall.WaitStatus, error) {
		if err := os.MkdirAll(u.runtimeDir(), 0o750); err != nil {
			return 0, nil, err
		}
		if err := os.Chown(u.runtimeDir(), int(u.UID), int(u.GID)); err != nil {
			return 0, nil, err
		}
		return i.start(p)
	}
	pid, ended, err := start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &runningUnit{cancel: cancel, done: make(chan struct{})}
	i.units[u.Name] = running
	go func() {
		defer close(running.done)
		defer func() { _ = os.RemoveAll(u.runtimeDir()) }()
		for {
			select {
			case <-ctx.Done():
				stopGroup(pid, ended)
				return
			case <-ended:
			}
			for ended = nil; ended == nil; {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Second):
				}
				if pid, ended, err = start(); err != nil {
					i.logf("%v", err)
				}
			}
		}
	}()
	return nil
}

// stopGroup ends a service as systemd would: SIGTERM, then SIGKILL for whatever is left of it.
func stopGroup(pid int, ended <-chan syscall.WaitStatus) {
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}

func (i *initProcess) disable(name string) error {
	running := i.units[name]
	if running == nil {
		return fmt.Errorf("no service %s", name)
	}
	delete(i.units, name)
	running.cancel()
	<-running.done
	return nil
}

// Enable starts a service in a host, now and at every power-on. It is started again a second after it ends, its output
// goes to a log of its own, and it has the folder /run/NAME. Where the host has no power it starts with it.
func (l *Lab) Enable(ctx context.Context, host string, s Service) error {
	if _, err := s.resolve(); err != nil {
		return err
	}
	return l.order(ctx, order{Verb: "enable", Host: host, Service: &s})
}

// Disable stops a service and forgets it.
func (l *Lab) Disable(ctx context.Context, host, name string) error {
	return l.order(ctx, order{Verb: "disable", Host: host, Name: name})
}
