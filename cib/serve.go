package cib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Serve runs Pacemaker's tools for the other part of an operation (Remote) until that part closes its end. Then it
// kills those that still run. A tool gets the user and the group of as, the environment that Environment allows, and
// nothing else that this process has: the other part sends only a tool's name, arguments and standard input.
//
// The other part may ask this process to resist being suspended. Serve then calls holdOut before it answers.
//
// The error is nil at the end of the connection. Any other error means that a message could not be understood; nothing
// more is run.
func Serve(conn io.ReadWriteCloser, as syscall.Credential, environ []string, holdOut func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	s := &serving{conn: conn, as: as, environ: environ, running: map[uint64]context.CancelFunc{}}
	defer s.all.Wait()
	defer cancel()
	defer func() { _ = conn.Close() }() // before the wait: what is still to be said nobody reads
	for {
		var c remoteCall
		switch err := receive(conn, maxCall, &c); {
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("the other part of pgrex cannot be understood: %w", err)
		case c.Kill:
			s.kill(c.ID)
		case c.HoldOut:
			holdOut()
			s.all.Go(func() { s.say(outcome{ID: c.ID}) })
		default:
			s.begin(ctx, c)
		}
	}
}

// Environment is the part of an environment that Pacemaker's tools get: where they and the CIB are, and whose they are.
func Environment(environ []string, name, home string) (kept []string) {
	for _, variable := range environ {
		key, _, _ := strings.Cut(variable, "=")
		if key == "PATH" || key == "TZ" || strings.HasPrefix(key, "CIB_") || strings.HasPrefix(key, "PCMK_") {
			kept = append(kept, variable)
		}
	}
	return append(kept, "HOME="+home, "USER="+name, "LOGNAME="+name)
}

// serving is a connection over which tools are run.
type serving struct {
	conn    io.ReadWriteCloser
	write   sync.Mutex
	as      syscall.Credential
	environ []string
	all     sync.WaitGroup

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
}

// begin runs a tool in the background, if it is one.
func (s *serving) begin(ctx context.Context, c remoteCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := ""
	switch _, taken := s.running[c.ID]; {
	case !isTool(c.Tool):
		refused = fmt.Sprintf("%q is none of Pacemaker's tools that pgrex runs", c.Tool)
	case taken || len(s.running) >= maxCalls:
		refused = "too much at once is asked of Pacemaker's tools"
	}
	if refused != "" {
		s.all.Go(func() { s.say(outcome{ID: c.ID, Exit: -1, End: endOther, Text: refused}) })
		return
	}
	ctx, s.running[c.ID] = context.WithTimeout(ctx, min(c.Time, maxTime))
	s.all.Go(func() {
		o := s.run(ctx, c)
		s.mu.Lock()
		s.running[c.ID]()
		delete(s.running, c.ID)
		s.mu.Unlock()
		s.say(o)
	})
}

// kill ends a call, if it has not ended.
func (s *serving) kill(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.running[id]; cancel != nil {
		cancel()
	}
}

// say sends an outcome. Where nobody reads it any more, the connection's end is seen next.
func (s *serving) say(o outcome) { _ = send(s.conn, &s.write, o) }

func (s *serving) run(ctx context.Context, c remoteCall) outcome {
	as := s.as // the standard library's copy is its own
	asked := call{path: c.Tool, args: c.Args, stdin: c.Stdin, limit: min(c.Limit, maxReport)}
	r, err := asked.here(ctx, asked.environment(s.environ), &as)
	o := outcome{ID: c.ID, Stdout: r.stdout, Stderr: r.stderr, Exit: r.exit}
	if err == nil {
		return o
	}
	o.Text = err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		o.End = endDeadline
	case errors.Is(err, context.Canceled):
		o.End = endKilled
	case errors.Is(err, errOutputTooLong):
		o.End = endTooLong
	case errors.Is(err, exec.ErrNotFound):
		o.End = endMissing
	default:
		o.End = endOther
		_ = errors.As(err, &o.Errno) // 0 where it was started
	}
	return o
}
