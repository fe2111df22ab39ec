package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// strangerError: who listens at the socket is not proven to be the server of the data folder.
type strangerError struct {
	text string
	down bool // that server does not run at all
}

func (e strangerError) Error() string { return e.text }

// dialProven connects to the local server's socket, and proves who listens there, before a byte is sent or read:
// anybody may have made a socket in a folder such as /tmp. The kernel tells the process that listens, and its user
// (unix(7), SO_PEERCRED). It has to be the one in line 1 of the data folder's postmaster.pid, and of the folder's
// owner.
func (s *Server) dialProven(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || s.config.DataDir == "" {
		return conn, err
	}
	if err := s.prove(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (s *Server) prove(conn net.Conn) error {
	peer, err := peerOf(conn)
	if err != nil {
		return strangerError{text: fmt.Sprintf("the kernel does not tell who listens at %s: %s", s.socket(), err)}
	}
	stranger := func(down bool, format string, args ...any) error {
		return strangerError{down: down, text: fmt.Sprintf("process %d of uid %d, which listens at %s, is not proven to be the server of %s, "+
			"and is not followed: ", peer.Pid, peer.Uid, s.socket(), s.config.DataDir) + fmt.Sprintf(format, args...)}
	}
	folder, err := os.Stat(s.config.DataDir)
	if err != nil {
		return stranger(false, "%s", oneLine(err.Error()))
	}
	pid, err := postmasterPID(s.config.DataDir)
	switch owner := folder.Sys().(*syscall.Stat_t).Uid; {
	case errors.Is(err, fs.ErrNotExist):
		return stranger(true, "that has no postmaster.pid, so that it does not run")
	case err != nil:
		return stranger(false, "%s; run pgrex as the user that runs PostgreSQL", oneLine(err.Error()))
	case pid != peer.Pid:
		return stranger(false, "that is process %d, by its postmaster.pid", pid)
	case owner != peer.Uid:
		return stranger(false, "that belongs to uid %d", owner)
	}
	return nil
}

// Owner returns the user who owns the data folder, and the process in its postmaster.pid, 0 if that file cannot be
// read.
func (s *Server) Owner() (uid uint32, postmaster int32, err error) {
	folder, err := os.Stat(s.config.DataDir)
	if err != nil {
		return 0, 0, err
	}
	postmaster, _ = postmasterPID(s.config.DataDir) // as above
	return folder.Sys().(*syscall.Stat_t).Uid, max(0, postmaster), nil
}

// peerOf is who made the socket that a connection leads to. For a unix socket that is who called listen(2): the
// postmaster.
func peerOf(conn net.Conn) (*unix.Ucred, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("it is no unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(err, asked)
}

// pidFileName is the file in the data folder that a running server has.
const pidFileName = "postmaster.pid"

// postmasterPID is line 1 of postmaster.pid. It is negative while a single-user server has the data.
func postmasterPID(folder string) (int32, error) {
	f, err := os.Open(filepath.Join(folder, pidFileName))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	return pidIn(f)
}

// pidIn reads line 1.
func pidIn(f *os.File) (int32, error) {
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read the first line of %s: %w", f.Name(), err)
	}
	pid, err := strconv.ParseInt(strings.TrimSpace(line), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s does not begin with a process's number", f.Name())
	}
	return int32(pid), nil
}
