package cib

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Remote runs Pacemaker's tools through another process, which may: the part of an operation that stays root's
// (Serve). The
// part that does the files and runs PostgreSQL's programs has the rights of the database's owner, and no others.
type Remote struct {
	conn  io.ReadWriteCloser
	write sync.Mutex
	ended chan struct{}

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan outcome
}

// remote is what runs the tools in this process's stead; nil where it runs them itself.
var remote atomic.Pointer[Remote]

// killPatience is how long a call that is to be killed may take to end.
const killPatience = 2 * time.Second

// UseRemote has Pacemaker's tools run at the other end of a connection from now on.
func UseRemote(conn io.ReadWriteCloser) *Remote {
	r := newRemote(conn)
	remote.Store(r)
	return r
}

func newRemote(conn io.ReadWriteCloser) *Remote {
	r := &Remote{conn: conn, ended: make(chan struct{}), waiting: map[uint64]chan outcome{}}
	go r.listen()
	return r
}

// Ended is closed when the other part has ended, or can no longer be understood.
func (r *Remote) Ended() <-chan struct{} { return r.ended }

func (r *Remote) listen() {
	defer close(r.ended)
	defer func() { _ = r.conn.Close() }()
	for {
		var o outcome
		if receive(r.conn, maxOutcome, &o) != nil {
			return
		}
		r.mu.Lock()
		waits := r.waiting[o.ID]
		r.mu.Unlock()
		if waits != nil {
			waits <- o // there is room for the one that comes
		}
	}
}

// run has a tool run, and killed at the end of ctx.
func (r *Remote) run(ctx context.Context, c call) (result, error) {
	none := result{exit: -1}
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	left := maxTime
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	id, outcomes := r.expect()
	defer r.forget(id)
	err := send(r.conn, &r.write, remoteCall{ID: id, Tool: c.path, Args: c.args, Stdin: c.stdin, Limit: c.limit, Time: left})
	if err != nil {
		return none, ErrEnded
	}
	select {
	case o := <-outcomes:
		return o.result()
	case <-r.ended:
		return none, ErrEnded
	case <-ctx.Done():
	}
	if send(r.conn, &r.write, remoteCall{ID: id, Kill: true}) != nil {
		return none, ErrEnded
	}
	select {
	case o := <-outcomes:
		none, _ = o.result() // what it said until then
	case <-r.ended:
	case <-time.After(killPatience):
	}
	return none, context.Cause(ctx)
}

// HoldOut makes the process that runs Pacemaker's tools, if that is another one (UseRemote), resist being suspended. It
// returns once that process does.
func HoldOut(ctx context.Context) error {
	if r := remote.Load(); r != nil {
		return r.holdOut(ctx)
	}
	return nil
}

func (r *Remote) holdOut(ctx context.Context) error {
	id, outcomes := r.expect()
	defer r.forget(id)
	if send(r.conn, &r.write, remoteCall{ID: id, HoldOut: true}) != nil {
		return ErrEnded
	}
	select {
	case <-outcomes:
		return nil
	case <-r.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// expect makes a call's number, and where its outcome comes.
func (r *Remote) expect() (id uint64, outcomes <-chan outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	waits := make(chan outcome, 1)
	r.waiting[r.last] = waits
	return r.last, waits
}

func (r *Remote) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}
