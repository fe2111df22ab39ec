package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/cib"
)

type partKey struct{}

// isPart reports whether this process is an operation's part that has the rights of the data folder's owner.
func isPart(ctx context.Context) bool { return ctx.Value(partKey{}) != nil }

// takePart makes this process a part of an operation if another process has started it as that (split.go). It waits
// until it may begin. The context ends with the other process, as after Ctrl-C.
func takePart(ctx context.Context) (context.Context, error) {
	value, ok := os.LookupEnv(toolsVariable)
	if !ok {
		return ctx, nil
	}
	if err := os.Unsetenv(toolsVariable); err != nil { // or whatever this starts would have it
		return ctx, err
	}
	if os.Geteuid() == 0 {
		return ctx, nil // root's part has no other one
	}
	strange := errors.New(toolsVariable + " is set, but not by pgrex: unset it")
	fd, err := strconv.Atoi(value)
	if err != nil {
		return ctx, strange
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 {
		return ctx, strange
	}
	_ = os.WriteFile("/proc/self/comm", []byte("pgrex"), 0) // for ps: it was started by another name
	// Other processes of this user's, such as PostgreSQL's, get at nothing that this one has: not its memory, nor its
	// socket.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return ctx, err
	}
	if unix.Access(".", unix.X_OK) != nil { // root's own folder, where PostgreSQL's programs would stumble
		if err := os.Chdir("/"); err != nil {
			return ctx, err
		}
	}
	conn, err := connection(fd)
	if err != nil {
		return ctx, err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(begin))); err != nil {
		return ctx, statusError(exitError) // the other part says why
	}
	tools := cib.UseRemote(conn)
	ctx, end := context.WithCancel(context.WithValue(ctx, partKey{}, true))
	go func() {
		<-tools.Ended()
		end()
	}()
	return ctx, nil
}
