package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is a cluster that is up, or was.
type Lab struct {
	dir      string
	config   Config
	control  *controlClient
	folder   *os.File // the socket is reached through it, because a socket's path must be short
	lifeline *os.File // the lab ends when this is closed; nil for a lab that somebody else booted
	server   Process
	once     sync.Once
}

// Open gives a lab that is up.
func Open(dir string) (*Lab, error) {
	if dir == "" {
		dir = DefaultDir
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := ownFolder(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("no lab in %s: start one with 'rexlab up', or name its folder", dir)
		}
		return nil, fmt.Errorf("the lab in %s: %w", dir, err)
	}
	if !state.Server.Alive() {
		return nil, fmt.Errorf("the lab in %s is not up (its process %d has ended): 'rexlab up' starts a new one, 'rexlab down' removes what is left", dir, state.Server.PID)
	}
	l := &Lab{dir: dir, server: state.Server}
	if err := readJSON(filepath.Join(dir, configName), &l.config); err != nil {
		return nil, err
	}
	return l, l.connect()
}

func (l *Lab) connect() error {
	folder, err := os.OpenFile(l.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	l.folder = folder
	l.control = newControlClient(fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), socketName))
	return nil
}

// Hosts are the lab's hosts, in their configured order.
func (l *Lab) Hosts() []string { return slices.Clone(l.config.Hosts) }

// Config is what the lab was booted with.
func (l *Lab) Config() Config {
	c := l.config
	c.Dir = l.dir
	return c
}

// Detach lets the lab live on when the calling process ends.
func (l *Lab) Detach(ctx context.Context) error { return l.order(ctx, order{Verb: "detach"}) }

func (l *Lab) order(ctx context.Context, o order) error {
	if o.Host != "" {
		if _, err := l.config.index(o.Host); err != nil {
			return err
		}
	}
	return l.control.order(ctx, o)
}

// Off cuts a host's power: everything in it is gone when Off returns. What PostgreSQL wrote stays, as the machine's
// page cache outlives the host.
func (l *Lab) Off(ctx context.Context, host string) error {
	return l.order(ctx, order{Verb: "off", Host: host})
}

// On gives a host power: its systemd starts, and what is enabled there, corosync and Pacemaker first of all. It does
// not wait for the cluster to take it in. It does wait until the others have noticed that the host was gone and have
// fenced it, if they will: a shot that is still due would hit the host that has just been booted, and fenced hosts
// stay off.
func (l *Lab) On(ctx context.Context, host string) error {
	state, err := l.state(ctx, host)
	if err != nil {
		return err
	}
	if !state.On {
		noticed, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		// Whatever the cluster makes of it in the end, a power button works.
		_ = poll(noticed, 200*time.Millisecond, "the fencing of "+host, func(ctx context.Context) (bool, error) {
			if m, _, err := l.view(ctx); err == nil && m.DC.Quorum {
				return m.member(host) == "offline", nil
			}
			return true, nil
		})
	}
	return l.order(ctx, order{Verb: "on", Host: host})
}

// Cut takes a host's network away.
func (l *Lab) Cut(ctx context.Context, host string) error {
	return l.order(ctx, order{Verb: "cut", Host: host})
}

// Heal gives a host's network back.
func (l *Lab) Heal(ctx context.Context, host string) error {
	return l.order(ctx, order{Verb: "heal", Host: host})
}

// state is what the lab process knows about a host.
func (l *Lab) state(ctx context.Context, host string) (HostState, error) {
	if _, err := l.config.index(host); err != nil {
		return HostState{}, err
	}
	states, err := l.control.hosts(ctx)
	if err != nil {
		return HostState{}, err
	}
	for _, s := range states {
		if s.Name == host {
			return s, nil
		}
	}
	return HostState{}, fmt.Errorf("the lab process does not know %s", host)
}

// Down ends the lab and removes all that it made. A second call does nothing.
func (l *Lab) Down(ctx context.Context) error {
	var err error
	l.once.Do(func() { err = l.down(ctx) })
	return err
}

func (l *Lab) down(ctx context.Context) error {
	if err := l.stop(ctx); err != nil {
		return err
	}
	// Not while somebody boots another lab there. A process that is being started here just now may have a copy of the
	// ended lab's lock until it runs its program.
	var lock *os.File
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := poll(limited, 20*time.Millisecond, "the lock of "+l.dir, func(context.Context) (ok bool, err error) {
		lock, err = lockDir(l.dir)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return removeFolder(l.dir)
}

// stop ends every process of the lab and leaves its files.
func (l *Lab) stop(ctx context.Context) error {
	defer l.close()
	polite, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err := l.control.order(polite, order{Verb: "down"})
	if err == nil {
		err = l.server.awaitEnd(polite)
	}
	if err == nil {
		return nil
	}
	// Its death is the hosts' too.
	if err := l.server.kill(); err != nil {
		return err
	}
	return l.server.awaitEnd(ctx)
}

func (l *Lab) close() {
	if l.lifeline != nil {
		_ = l.lifeline.Close()
	}
	if l.folder != nil {
		_ = l.folder.Close()
	}
}

// removeFiles removes what a lab without processes has left in its folder, but for the lock, and nothing else.
func removeFiles(dir string) (madeDir bool, err error) {
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		return false, fmt.Errorf("%s is no lab's folder: %w", dir, err)
	}
	// The state is the last to go: while it is there the next up knows whose files these are.
	for _, name := range []string{
		"hosts", cgroupName, programName, configName, configName + ".new", socketName, logName, stateName + ".new", stateName,
	} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return false, fmt.Errorf("remove the lab's files: %w", err)
		}
	}
	return state.MadeDir, nil
}

// removeFolder is removeFiles, and then removes the folder too if it is the lab's own and empty.
func removeFolder(dir string) error {
	madeDir, err := removeFiles(dir)
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !madeDir {
		return nil
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

// remains tells what a lab has left in a folder; "" for a folder that is empty or not there yet. A folder that holds
// what no lab made is an error.
func remains(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if len(slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == lockName })) == 0 {
		return "", nil
	}
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		return "", fmt.Errorf("%s is not empty and no lab's folder: name another one, or empty it", dir)
	}
	var alive []string
	for name, p := range state.Hosts {
		if p.Alive() { // dying: the kernel kills them with their parent
			alive = append(alive, name)
		}
	}
	found := fmt.Sprintf("the files of a lab whose process %d has ended", state.Server.PID)
	if len(alive) > 0 {
		slices.Sort(alive)
		found += " and the hosts " + strings.Join(alive, ", ")
	}
	return found, nil
}

// Remove ends whatever a lab has left: its files, and its processes where any live.
func Remove(ctx context.Context, dir string) error {
	if dir == "" {
		dir = DefaultDir
	}
	if l, err := Open(dir); err == nil {
		return l.Down(ctx)
	}
	if err := ownFolder(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	found, err := remains(dir)
	if err != nil {
		return err
	}
	if found == "" {
		return fmt.Errorf("no lab in %s", dir)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := killRemains(ctx, dir); err != nil {
		return err
	}
	return removeFolder(dir)
}

// killRemains ends the hosts that a lab has left. Its files are still there. The caller has the folder's lock.
func killRemains(ctx context.Context, dir string) error {
	var state labState
	if err := readJSON(filepath.Join(dir, stateName), &state); err != nil {
		return err
	}
	for _, p := range state.Hosts {
		if err := p.kill(); err != nil {
			return err
		}
		if err := p.awaitEnd(ctx); err != nil {
			return err
		}
	}
	return nil
}
