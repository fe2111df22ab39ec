package postgres

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
)

// others are the lanes to other hosts' servers: by address, and "" for the upstream. The zero value is ready to use,
// also by
// several goroutines.
type others struct {
	mu     sync.Mutex
	lanes  map[string]*other
	closed bool
}

// other is the lane to another host's server.
type other struct {
	*lane
	conninfo string
	at       string // its address, "" for the upstream
	bySQL    bool   // it was of PostgreSQL 13 or 14 when it was last asked
}

// to returns the lane to a server. Another connection string means another server: what is in flight to the old one is
// cut.
func (o *others) to(key, conninfo string) *other {
	o.mu.Lock()
	before := o.lanes[key]
	if before != nil && before.conninfo == conninfo {
		defer o.mu.Unlock()
		return before
	}
	who := "the upstream"
	if key != "" {
		who = "the server at " + key
	}
	now := &other{lane: newLane(who), conninfo: conninfo, at: key}
	if o.lanes == nil {
		o.lanes = map[string]*other{}
	}
	o.lanes[key] = now
	closed := o.closed
	o.mu.Unlock()
	if before != nil {
		before.close()
	}
	if closed {
		now.close()
	}
	return now
}

func (o *others) close() {
	o.mu.Lock()
	o.closed = true
	lanes := o.lanes
	o.lanes = nil
	o.mu.Unlock()
	for _, lane := range lanes {
		lane.close()
	}
}

// ask asks for the identity and for slots, and then closes the connection: walsenders are scarce, and one that streams
// nothing shows up in pg_stat_replication, in the state "startup".
func (o *other) ask(ctx context.Context, slots []string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	return call(ctx, o.lane, func() (model.Upstream, error) {
		u, err := o.open(ctx)
		if err != nil {
			return model.Upstream{}, err
		}
		defer closeConn(u.conn)
		if ctx.Err() != nil {
			return model.Upstream{}, ctx.Err()
		}
		return u.ask(o.io, slots)
	})
}

func (o *other) open(ctx context.Context) (*upstream, error) {
	connect := func(kind string) (*pgconn.PgConn, error) { return o.connect(ctx, kind) }
	if o.bySQL {
		if conn, err := connect(withDatabase); err == nil {
			return &upstream{conn: conn, bySQL: true}, nil
		}
	}
	u, err := openBy(o.io, connect)
	o.bySQL = err == nil && u.bySQL
	return u, err
}

// connect opens a replication connection in the lane; see connectUpstream. Of several servers and addresses, it waits
// for the last one as long as it takes, and for each before it for a share of the caller's time.
func (o *other) connect(ctx context.Context, kind string) (*pgconn.PgConn, error) {
	c, err := connectionOf(ctx, o.conninfo, o.at)
	if err != nil {
		return nil, err
	}
	c.patient = o.io
	var opened []func()
	c.gate = func(dial pgconn.DialFunc) pgconn.DialFunc {
		gated, done := o.dialer(ctx, dial)
		opened = append(opened, done)
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := gated(ctx, network, address)
			if err == nil {
				noticeEnd(conn)
			}
			return conn, err
		}
	}
	conn, err := c.connect(ctx, kind)
	for _, done := range opened {
		done()
	}
	return conn, err
}

// How soon the kernel gives up a connection whose other end is gone. Nothing else ends a call in flight.
const (
	aliveAsk   = 5 * time.Second
	aliveTries = 3
	aliveEnd   = 20 * time.Second
)

// noticeEnd makes the kernel notice that the other end is gone, whether or not sent data is unacknowledged.
func noticeEnd(conn net.Conn) {
	s, ok := conn.(*socket)
	if !ok {
		return
	}
	tcp, ok := s.Conn.(*net.TCPConn)
	if !ok {
		return // a unix socket ends with its server
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: aliveAsk, Interval: aliveAsk, Count: aliveTries})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(aliveEnd.Milliseconds()))
		})
	}
}

// closeConn closes a connection, and waits at most a moment for its end.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // it is given up anyway
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}
