package postgres

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Classify is for the test that has real servers fail.
var Classify = classify

// ApplicationNameIn is for connection strings that no server has.
var ApplicationNameIn = applicationNameIn

// UpstreamSetting is a setting of a session with the upstream.
func (s *Server) UpstreamSetting(ctx context.Context, name string) (string, error) {
	u, err := s.others.to("", *s.conninfo).open(ctx)
	if err != nil {
		return "", err
	}
	defer closeConn(u.conn)
	row, err := u.row(ctx, "SHOW "+name, "show "+name)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// UpstreamSocket reads, of a connection with the upstream, how many milliseconds the kernel waits for what was sent
// to be
// acknowledged, and after how many seconds keepalives begin.
func (s *Server) UpstreamSocket(ctx context.Context) (milliseconds, idle int, err error) {
	u, err := s.others.to("", *s.conninfo).open(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer closeConn(u.conn)
	raw, err := u.conn.Conn().(*socket).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var asked error
	err = raw.Control(func(fd uintptr) {
		milliseconds, asked = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if asked == nil {
			idle, asked = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		}
	})
	return milliseconds, idle, errors.Join(err, asked)
}
