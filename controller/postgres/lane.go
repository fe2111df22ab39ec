package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// lane runs one call at a time, each in a goroutine of its own. Nobody waits for a call beyond his own deadline. A call
// without an answer stays in flight, with the connection it runs on: a server that hangs owes one answer, however
// long it
// hangs and however often it is looked at. Until that call ends, every further one fails at once (hangsError).
//
// What runs in a lane sends and awaits under io, which nothing but close ends: pgx would cut the connection at a
// deadline, and
// the server's process would stay. Before it sends, it asks the caller's own context whether anybody still wants that.
type lane struct {
	who string // answers
	io  context.Context
	end context.CancelFunc

	mu      sync.Mutex
	flight  *flight
	sockets map[*socket]struct{}
	closed  bool
}

// flight is a call that has not ended.
type flight struct {
	began   time.Time
	ended   chan struct{}
	overdue bool // its caller's deadline has passed
}

// hangsError reports that an earlier call has had no answer yet.
type hangsError struct {
	who   string
	since time.Time
}

func (e hangsError) Error() string { return e.who + " has not answered since " + e.when() }

func (e hangsError) when() string { return e.since.Local().Format(time.DateTime) }

func newLane(who string) *lane {
	l := &lane{who: who, sockets: map[*socket]struct{}{}}
	l.io, l.end = context.WithCancel(context.Background())
	return l
}

// call runs f in a lane, and waits for its answer until ctx ends. f must write only to what is its own: it may run
// longer.
func call[T any](ctx context.Context, l *lane, f func() (T, error)) (T, error) {
	var none T
	mine, err := l.begin(ctx)
	if err != nil {
		return none, err
	}
	var answer T
	go func() {
		defer l.finish(mine)
		answer, err = f()
	}()
	select {
	case <-mine.ended:
		if err == nil || ctx.Err() == nil { // at the deadline, f itself may give up with an error
			return answer, err
		}
	case <-ctx.Done():
	}
	return none, l.leave(ctx, mine)
}

// begin waits for the call in flight, if there is one that may still be answered in time.
func (l *lane) begin(ctx context.Context) (*flight, error) {
	for {
		before, mine, err := l.take(ctx)
		if before == nil {
			return mine, err
		}
		select {
		case <-before.ended:
		case <-ctx.Done():
			return nil, l.leave(ctx, before)
		}
	}
}

func (l *lane) take(ctx context.Context) (before, mine *flight, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, net.ErrClosed
	case l.flight != nil && l.flight.overdue:
		return nil, nil, hangsError{l.who, l.flight.began}
	case l.flight != nil:
		return l.flight, nil, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	}
	l.flight = &flight{began: time.Now(), ended: make(chan struct{})}
	return nil, l.flight, nil
}

func (l *lane) finish(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flight = nil
	close(f.ended)
}

// leave stops waiting for a call. It marks the call as overdue only at a deadline: after a cancellation it may still
// end in time.
func (l *lane) leave(ctx context.Context, f *flight) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.overdue = true
	return hangsError{l.who, f.began}
}

// idle reports whether nothing is in flight.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flight == nil
}

// close ends the lane. It cuts what is in flight, and waits a moment for its end: what hangs in the kernel cannot be
// cut.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	inFlight := l.flight
	for s := range l.sockets {
		_ = s.Conn.Close()
	}
	l.mu.Unlock()
	l.end()
	if inFlight == nil {
		return
	}
	select {
	case <-inFlight.ended:
	case <-time.After(closeTimeout):
	}
}

// socket is a connection that close cuts.
type socket struct {
	net.Conn
	lane *lane
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.lane.mu.Lock()
	delete(s.lane.sockets, s)
	s.lane.mu.Unlock()
	return s.Conn.Close()
}

// dialer wraps the DialFunc of one connection. Dialling ends with ctx: nothing is left behind at a server that does not
// even accept. Once the caller has called opened, nothing more is dialled: pgx would open a second connection, to
// cancel a statement of one that was cut.
func (l *lane) dialer(ctx context.Context, dial pgconn.DialFunc) (gated pgconn.DialFunc, opened func()) {
	var shut atomic.Bool
	gated = func(_ context.Context, network, address string) (net.Conn, error) {
		if shut.Load() {
			return nil, fmt.Errorf("no further connection: %w", net.ErrClosed)
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s := &socket{conn, l}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		l.sockets[s] = struct{}{}
		return s, nil
	}
	return gated, func() { shut.Store(true) }
}
