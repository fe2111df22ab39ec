package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
)

// holdTimeout is how long it may take to prove who the postmaster is. No statement is run for it.
const holdTimeout = time.Second

// statusLine is the line of postmaster.pid with the postmaster's status, and stopping what it is once the postmaster was
// told to stop, in any mode (PostgreSQL, pidfile.h). The postmaster writes it before it stops anything.
const (
	statusLine = 8
	stopping   = "stopping"
)

// Postmaster is a running postmaster that is held: no later process of the same number can be taken for it.
type Postmaster interface {
	// PID is the number of the process.
	PID() int32
	// Wait waits until the process has ended. It returns an error if that cannot be said, as after Close.
	Wait() error
	// End looks at what is there after the process has ended. It waits for the file system.
	End() model.PostmasterEnd
	// Close lets the process go, and ends Wait.
	Close()
}

var _ Postmaster = (*postmaster)(nil)

// postmaster holds a process by a descriptor of it (pidfd_open(2)), and by one of its postmaster.pid, which can be read
// after the file is removed. Neither needs a right.
type postmaster struct {
	pid     int32
	process *os.File
	pidFile *os.File
	folder  string
}

// Postmaster holds the postmaster of the data folder. It has to be the one that listens at the socket: the descriptors
// are opened first, then the socket is asked who listens there (see prove). So the process had that number all the
// time. And the data folder has to be the clone's: another server's end is not the cluster's.
func (s *Server) Postmaster(ctx context.Context, clones string) (Postmaster, error) {
	if s.config.DataDir == "" {
		return nil, errors.New("the data folder is not known")
	}
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	p, err := call(ctx, s.space, func() (*postmaster, error) { return s.holdProven(ctx, clones) })
	if err != nil {
		return nil, fmt.Errorf("hold the postmaster of %s: %w", s.config.DataDir, err)
	}
	return p, nil
}

// holdProven holds the postmaster once all is proven. After the deadline it lets it go, since nobody takes it any more.
func (s *Server) holdProven(ctx context.Context, clones string) (*postmaster, error) {
	if err := sameFolder(s.config.DataDir, clones); err != nil {
		return nil, err
	}
	p, err := hold(s.config.DataDir)
	if err != nil {
		return nil, err
	}
	if err := s.listens(ctx, p.pid); err != nil {
		p.Close()
		return nil, fmt.Errorf("prove that process %d is the postmaster: %w", p.pid, err)
	}
	if err := ctx.Err(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// sameFolder returns an error if the data folder that pgrex follows is not the clone's.
func sameFolder(followed, clones string) error {
	a, err := os.Stat(followed)
	if err != nil {
		return err
	}
	b, err := os.Stat(clones)
	if err != nil {
		return fmt.Errorf("the agent's data folder: %w", err)
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("the agent's data folder is another one, %s", clones)
	}
	return nil
}

// listens proves that a process listens at the socket, as the server of the data folder.
func (s *Server) listens(ctx context.Context, pid int32) error {
	conn, err := s.dialProven(ctx, "unix", s.socket())
	if err != nil {
		return err
	}
	peer, err := peerOf(conn)
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	if peer.Pid != pid {
		return fmt.Errorf("process %d listens at %s", peer.Pid, s.socket())
	}
	return nil
}

// hold opens the descriptors of the process in postmaster.pid.
func hold(folder string) (*postmaster, error) {
	pidFile, err := os.Open(filepath.Join(folder, pidFileName))
	if err != nil {
		return nil, err
	}
	pid, err := pidIn(pidFile)
	if err == nil && pid <= 0 {
		err = errors.New("a single-user server has the data")
	}
	if err != nil {
		return nil, errors.Join(err, pidFile.Close())
	}
	fd, err := unix.PidfdOpen(int(pid), 0) // Linux 5.3
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil { // it is set so that Go's poller waits for it
			err = errors.Join(err, unix.Close(fd))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pidfd_open of process %d: %w", pid, err), pidFile.Close())
	}
	return &postmaster{pid, os.NewFile(uintptr(fd), fmt.Sprint("pidfd of ", pid)), pidFile, folder}, nil
}

// PID implements Postmaster.
func (p *postmaster) PID() int32 { return p.pid }

// Wait implements Postmaster.
func (p *postmaster) Wait() error {
	raw, err := p.process.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) (ended bool) {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		for {
			if n, failed = unix.Poll(ready, 0); !errors.Is(failed, unix.EINTR) {
				return n > 0 || failed != nil
			}
		}
	})
	return errors.Join(err, failed)
}

// End implements Postmaster.
func (p *postmaster) End() model.PostmasterEnd {
	end := model.PostmasterEnd{PID: p.pid}
	told, err := p.told()
	if err == nil {
		end.Told = told
		end.Replaced, err = p.replaced()
	}
	if err == nil {
		end.State, err = controlState(p.folder)
	}
	if err != nil {
		end.Problem = oneLine(err.Error())
	}
	return end
}

// told reports whether the postmaster had been told to stop.
func (p *postmaster) told() (bool, error) {
	text, err := io.ReadAll(io.NewSectionReader(p.pidFile, 0, 1<<13))
	if err != nil {
		return false, fmt.Errorf("read %s: %w", p.pidFile.Name(), err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < statusLine {
		return false, fmt.Errorf("%s has no status in line %d", p.pidFile.Name(), statusLine)
	}
	return strings.TrimSpace(lines[statusLine-1]) == stopping, nil
}

// replaced reports whether the data folder has another postmaster.pid than that of this process. The one that is open
// keeps its inode.
func (p *postmaster) replaced() (bool, error) {
	mine, err := p.pidFile.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(p.pidFile.Name())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	return !os.SameFile(mine, now), nil
}

// Close implements Postmaster. It does not wait for a file system that hangs.
func (p *postmaster) Close() {
	_ = p.process.Close()
	go func() { _ = p.pidFile.Close() }()
}
