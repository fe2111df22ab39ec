package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgrex/pgrex/model"
)

// Deadlines of single calls. The local server answers in milliseconds, or not at all.
const (
	observeTimeout = 3 * time.Second
	applyTimeout   = 10 * time.Second
	// The server gives up before we do, so that a statement ends with an answer.
	statementTimeout = 8 * time.Second
	// A server does not hang because somebody holds a lock: each statement of a look stops waiting for a lock in time.
	lockTimeout  = time.Second
	closeTimeout = time.Second
)

// How long the calls of a Server may take, for those who have a watchdog to feed.
const (
	ObserveTakes  = observeTimeout + listTimeout + spaceTimeout
	UpstreamTakes = upstreamTimeout
	ApplyTakes    = applyTimeout
)

// applicationName must not be a standby's: those are the hosts' names, by which the agent and synchronous_standby_names
// find them in pg_stat_replication.
const applicationName = "pgrex"

// kept prepares a statement once for each connection. It is for the statements of every look: planning them costs more
// than running them.
const kept = pgx.QueryExecModeCacheStatement

// connectError is a failure to connect: whatever the server said, it let nobody in.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

// connect opens the kept connection, if there is none. Like all that uses the connection, it runs in the lane. A
// statement that is not kept is prepared under no name (QueryExecModeExec): it leaves nothing in the session that the
// next one lacks.
func (s *Server) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	config, opened, err := s.connectConfig(ctx)
	if err != nil {
		return connectError{err}
	}
	defer opened()
	conn, err := pgx.ConnectConfig(s.local.io, config)
	if err != nil {
		return connectError{err}
	}
	s.conn = conn
	return nil
}

// connectConfig returns the configuration of one connection. The caller calls opened once that is open, or has failed.
func (s *Server) connectConfig(ctx context.Context) (config *pgx.ConnConfig, opened func(), err error) {
	config, err = pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s", quoteKeyword(s.config.SocketDir),
		s.config.Port, quoteKeyword(s.config.User), quoteKeyword(s.config.Database)))
	if err != nil {
		return nil, nil, errors.New("the connection's parameters or a PG* environment variable are not understood")
	}
	config.Fallbacks = nil
	config.ConnectTimeout = 0 // the next attempt would stand in the same queue, behind this one
	config.DialFunc, opened = s.local.dialer(ctx, s.dialProven)
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.RuntimeParams = map[string]string{
		"application_name":                    applicationName,
		"search_path":                         "pg_catalog",
		"statement_timeout":                   milliseconds(statementTimeout),
		"lock_timeout":                        milliseconds(lockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(applyTimeout),
	}
	return config, opened, nil
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// quoteKeyword quotes a value of a connection string (PostgreSQL documentation, 34.1.1.1).
func quoteKeyword(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

func (s *Server) disconnect() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx) // it is given up anyway
	select {
	case <-s.conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
	s.conn, s.reserves = nil, 0
}

// row runs a statement that returns one row, unless nobody waits for it any more: what it is for may have changed.
func (s *Server) row(ctx context.Context, sql string, values []any, into ...any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.conn.QueryRow(s.local.io, sql, values...).Scan(into...)
}

// query runs f, which only reads, on the kept connection, in the lane. A connection that turns out to be dead (the
// server
// was restarted) is replaced once.
func (s *Server) query(ctx context.Context, f func(io context.Context, conn *pgx.Conn) error) error {
	old := s.conn != nil
	if err := s.connect(ctx); err != nil {
		return err
	}
	err := f(s.local.io, s.conn)
	if err == nil || !s.conn.IsClosed() {
		return err
	}
	s.disconnect()
	if !old || ctx.Err() != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	return f(s.local.io, s.conn)
}

func (s *Server) socket() string {
	return filepath.Join(s.config.SocketDir, fmt.Sprintf(".s.PGSQL.%d", s.config.Port))
}

// notConnected says in one line why nobody is let in.
func (s *Server) notConnected(err error) string {
	pgErr, isServers := errors.AsType[*pgconn.PgError](err)
	stranger, isStranger := errors.AsType[strangerError](err)
	hangs, isHanging := errors.AsType[hangsError](err)
	switch {
	case isStranger:
		return stranger.Error()
	case isServers && refused(pgErr):
		return fmt.Sprintf("%s: %s, and let pg_hba.conf let it in over the socket", serverError{pgErr}, s.runAs())
	case isServers:
		return serverError{pgErr}.Error()
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + s.socket()
	case errors.Is(err, os.ErrPermission):
		return "may not open " + s.socket() + ": " + s.runAs()
	case isHanging:
		return fmt.Sprintf("has not answered at %s since %s: it hangs, or the machine is overloaded", s.socket(), hangs.when())
	case wasCut(err):
		return "the connection to " + s.socket() + " was cut"
	}
	return oneLine(err.Error())
}

// runAs is what to do as another user: only as this one does the server let pgrex in.
func (s *Server) runAs() string {
	return fmt.Sprintf("run pgrex as the operating system's user %s (runuser -u %[1]s -g haclient -- pgrex)", s.config.User)
}

// notUp tells the state of a server that gave an error instead of an answer.
func (s *Server) notUp(err error) (model.Instance, error) {
	_, connecting := errors.AsType[connectError](err)
	i := model.Instance{State: model.ServerUnreachable, Problem: s.notConnected(err), Slots: []model.Slot{}}
	pgErr, isServers := errors.AsType[*pgconn.PgError](err)
	stranger, isStranger := errors.AsType[strangerError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return model.Instance{}, err
	case isStranger && stranger.down:
		i.State = model.ServerDown
	case isStranger:
	case isServers && pgErr.Code == codeCannotConnectNow && !shuttingDown(pgErr):
		i.State = model.ServerStarting
	case isServers && (pgErr.Code == codeCannotConnectNow || pgErr.Code == codeAdminShutdown || pgErr.Code == codeCrashShutdown):
		i.State = model.ServerDown
	case isServers && !connecting && classOfCode(pgErr.Code) != Transient:
		return model.Instance{}, classify(err, "ask PostgreSQL for its state")
	case isServers:
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), wasCut(err):
		i.State = model.ServerDown
	}
	return i, nil
}

// shuttingDown tells a server that ends from one that starts: both answer 57P03, and nothing but the text differs. Where
// lc_messages is not English it is taken to start, which is waited for in the same way.
func shuttingDown(e *pgconn.PgError) bool { return strings.Contains(e.Message, "shutting down") }

// wasCut tells a connection that broke from one that could not be made.
func wasCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
