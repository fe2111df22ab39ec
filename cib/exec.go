package cib

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stuckPipe is how long after a command has ended, or was killed, somebody else may keep its output open.
const stuckPipe = 500 * time.Millisecond

// errOutputTooLong: the command printed more than it was allowed to.
var errOutputTooLong = errors.New("too much output")

// result is what a command left behind.
type result struct {
	stdout []byte
	stderr string // its end, one line
	exit   int    // -1 when it did not exit by itself
}

// run runs a command to its end, in a process group of its own, so that nothing it started survives the deadline of
// ctx: the whole group is killed then and waited for. Of the output up to limit bytes are kept; a command that prints
// more is killed. It speaks English, reads /dev/null, and otherwise has our environment (CIB_file, CIB_shadow, ...).
//
// The error is ctx's when the deadline passed, errOutputTooLong, or what exec said.
func run(ctx context.Context, limit int, path string, args ...string) (result, error) {
	return runWith(ctx, limit, os.Environ(), nil, path, args...)
}

// runWith is run with an environment of the caller's, and standard input where that is not nil.
func runWith(ctx context.Context, limit int, environ []string, stdin io.Reader, path string, args ...string) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = slices.Concat(environ, []string{"LC_ALL=C"})
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = stuckPipe
	stdout := &head{limit: limit, full: func() { cancel(errOutputTooLong) }}
	stderr := &tail{limit: maxDetail}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
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

func killGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
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
