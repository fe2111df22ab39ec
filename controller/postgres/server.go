package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgrex/pgrex/model"
)

// Deadlines of single calls. The local server answers in milliseconds, or not at all.
const (
	connectTimeout = 2 * time.Second
	observeTimeout = 3 * time.Second
	applyTimeout   = 10 * time.Second
)

// Config says where the local server is, and as whom to connect.
type Config struct {
	SocketDir string // folder of the unix socket
	Port      uint16
	User      string
	Database  string
}

// Server is the local PostgreSQL, over one kept connection. It is not for concurrent use.
type Server struct {
	config   Config
	conn     *pgx.Conn
	upstream *upstream
}

// NewServer makes a Server. It connects when it is first used.
func NewServer(config Config) *Server { return &Server{config: config} }

// Close ends the connections.
func (s *Server) Close() {
	s.disconnect()
	s.closeUpstream()
}

// Observe reads the server's state in one round trip. That it cannot be talked to is a state, too.
func (s *Server) Observe(ctx context.Context) (model.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	var document []byte
	err := s.query(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sqlObserve).Scan(&document)
	})
	if err != nil {
		return s.notUp(err)
	}
	var instance model.Instance
	if err := json.Unmarshal(document, &instance); err != nil {
		return model.Instance{}, fmt.Errorf("read what PostgreSQL says of itself: %w", err)
	}
	if !instance.InRecovery {
		s.closeUpstream() // a primary has none, and walsenders are scarce
	}
	return instance, nil
}

// query runs f on the kept connection. A connection that turns out to be dead (the server was restarted) is replaced
// once.
func (s *Server) query(ctx context.Context, f func(*pgx.Conn) error) error {
	kept := s.conn != nil
	if err := s.connect(ctx); err != nil {
		return err
	}
	err := f(s.conn)
	if err == nil || !s.conn.IsClosed() {
		return err
	}
	s.disconnect()
	if !kept || ctx.Err() != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	return f(s.conn)
}

func (s *Server) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	config, err := pgx.ParseConfig("")
	if err != nil {
		return fmt.Errorf("PG* environment variables: %w", err)
	}
	config.Host, config.Port = s.config.SocketDir, s.config.Port
	config.User, config.Database = s.config.User, s.config.Database
	config.Password, config.TLSConfig, config.Fallbacks = "", nil, nil
	config.ConnectTimeout = connectTimeout
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing to go stale
	config.RuntimeParams = map[string]string{
		"application_name":                    applicationName,
		"search_path":                         "pg_catalog",
		"statement_timeout":                   fmt.Sprint(applyTimeout.Milliseconds()),
		"lock_timeout":                        fmt.Sprint(observeTimeout.Milliseconds()),
		"idle_in_transaction_session_timeout": fmt.Sprint(applyTimeout.Milliseconds()),
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	s.conn = conn
	return nil
}

func (s *Server) disconnect() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // it is given up anyway
	s.conn = nil
}

const applicationName = "pgrex"

// notUp tells the state of a server that gave an error instead of an answer.
func (s *Server) notUp(err error) (model.Instance, error) {
	s.disconnect()
	socket := filepath.Join(s.config.SocketDir, fmt.Sprintf(".s.PGSQL.%d", s.config.Port))
	i := model.Instance{State: model.ServerUnreachable, Slots: []model.Slot{}}
	pgErr, isServers := errors.AsType[*pgconn.PgError](err)
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case isServers && pgErr.Code == "57P03":
		i.State, i.Problem = model.ServerStarting, pgErr.Message
	case isServers && (pgErr.Code == "57P01" || pgErr.Code == "57P02"):
		i.State, i.Problem = model.ServerDown, pgErr.Message
	case isServers && pgErr.Code[:min(2, len(pgErr.Code))] == "28":
		i.Problem = fmt.Sprintf("%s: run pgrex as the operating system's user %s, and let pg_hba.conf let it in over the socket",
			pgErr.Message, s.config.User)
	case isServers:
		return i, classify(err, "ask PostgreSQL for its state")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		i.State, i.Problem = model.ServerDown, "nothing listens at "+socket
	case errors.Is(err, os.ErrPermission):
		i.Problem = "may not open " + socket + ": run pgrex as the operating system's user " + s.config.User
	case errors.Is(err, context.DeadlineExceeded), isNet && netErr.Timeout():
		i.Problem = fmt.Sprintf("does not answer at %s within %s: it hangs, or the machine is overloaded", socket, observeTimeout)
	case errors.Is(err, context.Canceled):
		return i, err
	default:
		i.State, i.Problem = model.ServerDown, "the connection to "+socket+" was cut"
	}
	return i, nil
}
