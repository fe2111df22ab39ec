package cib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stuckPipe is how long after a command has ended, or was killed, somebody else may keep its output open.
const stuckPipe = 500 * time.Millisecond

// shellPatience is how long a shell may take to kill.
const shellPatience = 5 * time.Second

// errOutputTooLong: the command printed more than it was allowed to.
var errOutputTooLong = errors.New("too much output")

// result is what a command left behind.
type result struct {
	stdout []byte
	stderr string // its end, one line
	exit   int    // -1 when it did not exit by itself
}

// call is a program to be run once.
type call struct {
	path  string
	args  []string
	stdin []byte // nil for none; else a CIB, which the tool is told to read there
	limit int    // of its standard output, in bytes
}

// run runs a program to its end: one of Pacemaker's tools by the part of pgrex that has the right to, where that is
// another
// process (UseRemote).
//
// The error is ctx's when the deadline passed, errOutputTooLong, ErrEnded, or what exec said.
func (c call) run(ctx context.Context) (result, error) {
	if r := remote.Load(); r != nil && isTool(c.path) {
		return r.run(ctx, c)
	}
	if !isKnown(c.path) {
		return result{exit: -1}, fmt.Errorf("pgrex does not run %q to ask about the cluster", c.path)
	}
	return c.here(ctx, c.environment(os.Environ()), nil)
}

// environment is a given one, in English, and without what would lead a tool to another CIB than the one that it is
// given.
func (c call) environment(given []string) []string {
	environ := slices.Clone(given)
	if c.stdin != nil {
		environ = slices.DeleteFunc(environ, func(variable string) bool {
			name, _, _ := strings.Cut(variable, "=")
			return slices.Contains([]string{"CIB_file", "CIB_shadow", "CIB_port", "CIB_server"}, name)
		})
		environ = append(environ, "CIB_file=/proc/self/fd/0") // a name that every release reads as a file
	}
	return append(environ, "LC_ALL=C")
}

// here runs it in a process group of its own, so that nothing it started survives the end of ctx: the whole group is
// killed
// then and waited for. Of the output up to a limit is kept; a program that prints more is killed. Without standard
// input it
// reads /dev/null. Its user is ours, or that of as.
func (c call) here(ctx context.Context, environ []string, as *syscall.Credential) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Env = environ
	if filepath.Base(c.path) == simulator {
		folder, err := scratch(as)
		if err != nil {
			return result{exit: -1}, err
		}
		defer func() { _ = os.RemoveAll(folder) }()
		cmd.Env = append(cmd.Env, "CIB_shadow_dir="+folder)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = stuckPipe
	stdout := &head{limit: c.limit, full: func() { cancel(errOutputTooLong) }}
	stderr := &tail{limit: maxDetail}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	closeStdin, err := c.feed(cmd)
	if err != nil {
		return result{exit: -1}, err
	}
	defer closeStdin()
	err = cmd.Run()
	r := result{stdout: stdout.buf.Bytes(), stderr: oneLine(stderr.String()), exit: -1}
	if cmd.ProcessState != nil {
		r.exit = cmd.ProcessState.ExitCode()
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return r, cause
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		// It did its work, but something that it started kept the pipe open. That still bears the group's number.
		_ = killGroup(cmd)
		err = nil
	}
	return r, err
}

// scratch makes a folder for a program that writes a file of its own. Only the program's user can use the folder: this
// process's user, or as.
func scratch(as *syscall.Credential) (folder string, err error) {
	if folder, err = os.MkdirTemp("", "pgrex-"); err == nil && as != nil {
		err = hand(as, folderForGroup, func(uid, gid int) error { return os.Chown(folder, uid, gid) },
			func(mode os.FileMode) error { return os.Chmod(folder, mode) })
	}
	return folder, err
}

// The modes with which a program's group may use what is not the program's user's.
const (
	folderForGroup = 0o770
	fileForGroup   = 0o660
)

// hand gives a file or folder of this process's to a program's user. Under pgrex-rejoin.service, root may not: it has
// no CAP_CHOWN. But it has the program's group there, so that the group may have it.
func hand(as *syscall.Credential, mode os.FileMode, chown func(uid, gid int) error, chmod func(mode os.FileMode) error) error {
	err := chown(int(as.Uid), int(as.Gid))
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	if err := chown(-1, int(as.Gid)); err != nil {
		return err
	}
	return chmod(mode)
}

// feed gives a program its standard input. The program opens its input by name, which only the pipe's owner may do. So
// another user gets a pipe of its own.
func (c call) feed(cmd *exec.Cmd) (closeIt func(), err error) {
	as := cmd.SysProcAttr.Credential
	switch {
	case c.stdin == nil:
		return func() {}, nil
	case as == nil:
		cmd.Stdin = bytes.NewReader(c.stdin)
		return func() {}, nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if err := hand(as, fileForGroup, read.Chown, read.Chmod); err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	cmd.Stdin = read
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = write.Write(c.stdin) // a tool that does not want it all says why
		_ = write.Close()
	}()
	return func() {
		_, _ = read.Close(), write.Close() // whoever it has left may hold its own end, and read nothing
		<-written
	}, nil
}

// killGroup kills a program and what it has started. Under pgrex-rejoin.service, root may not kill another user's
// processes: it has no CAP_KILL. Then a shell of that user's does it.
func killGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if as := cmd.SysProcAttr.Credential; errors.Is(err, syscall.EPERM) && as != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shellPatience)
		defer cancel()
		shell := exec.CommandContext(ctx, "/bin/sh", "-c", fmt.Sprintf("kill -KILL -%d", cmd.Process.Pid))
		shell.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		return shell.Run()
	}
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// head keeps what is written first, and says when that was not all.
type head struct {
	buf   bytes.Buffer
	limit int
	full  func()
}

func (h *head) Write(p []byte) (int, error) {
	if h.buf.Len()+len(p) > h.limit {
		h.full()
		return 0, errOutputTooLong
	}
	return h.buf.Write(p)
}

// tail keeps what is written last.
type tail struct {
	buf   []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if excess := len(t.buf) - 4*t.limit; excess > 0 { // a limit in characters of up to four bytes
		t.buf = append(t.buf[:0], t.buf[excess:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(string(t.buf), "?") }
