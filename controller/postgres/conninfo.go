package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The kinds of a replication connection, and the database that each is looked up under in a passfile: the walreceiver
// takes "replication", and so do everybody's .pgpass files. The server ignores it on a physical connection.
const (
	physical         = "true"
	withDatabase     = "database"
	physicalDatabase = "replication"
	upstreamDatabase = "postgres"
)

// The server ends a walsender whose peer has lost power. wal_sender_timeout is for those that stream; without these an
// idle one would take a place of max_wal_senders for hours.
const (
	keepaliveIdle     = 30 * time.Second
	keepaliveInterval = 10 * time.Second
	keepaliveCount    = "3"
)

func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }

// connectUpstream opens a replication connection of a kind to the server that a connection string names. With an
// address in at, it connects to the server there instead, by the same string. Errors name the address and the user
// only; pgconn's own are not wrapped, because they carry the configuration and with it the password.
func connectUpstream(ctx context.Context, conninfo, at, kind string) (*pgconn.PgConn, error) {
	c, err := connectionOf(ctx, conninfo, at)
	if err != nil {
		return nil, err
	}
	return c.connect(ctx, kind)
}

// connectionOf reads a connection string; with an address in at, for the server there.
func connectionOf(ctx context.Context, conninfo, at string) (*connection, error) {
	c, err := readConninfo(conninfo)
	if err == nil && at != "" {
		c, err = c.at(ctx, at)
	}
	if err != nil {
		return nil, &Error{Class: Configuration, Doing: "ask the upstream", Err: err}
	}
	return c, nil
}

// connect tries one server after the other, each for its share of the time: one that has lost its power does not
// answer at
// all. As in libpq, it goes on to the next one if nobody answers, or if PostgreSQL is starting or stopping. It also
// goes on if a standby answers: of several servers, it wants the primary.
func (c *connection) connect(ctx context.Context, kind string) (*pgconn.PgConn, error) {
	var failed []string
	for i, e := range c.endpoints {
		last := i == len(c.endpoints)-1
		turn, cancel := share(ctx, len(c.endpoints)-i)
		conn, next, err := c.connectTo(turn, e, kind, last)
		cancel()
		if err == nil {
			return conn, nil
		}
		if !next || len(c.endpoints) == 1 {
			return nil, err
		}
		failed = append(failed, err.Error())
	}
	return nil, &Error{Class: Transient, Doing: "connect to one of several", Err: errors.New(strings.Join(failed, "; "))}
}

// share returns a context with an equal share of the time, for the first of those that are left.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok || left <= 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
}

// connectTo connects to one server at one of its addresses; last says that it is the last server. next reports whether
// to go on to the next server.
func (c *connection) connectTo(ctx context.Context, e endpoint, kind string, last bool) (conn *pgconn.PgConn, next bool, err error) {
	network, addresses, err := e.routes(ctx)
	if err != nil {
		doing := fmt.Sprintf("connect to the upstream %s as %s", address(e.leads(), e.port), c.user())
		return nil, true, &Error{Class: Transient, Doing: doing, Err: connectCause(ctx, err, "")}
	}
	for i, to := range addresses {
		turn, cancel := share(ctx, len(addresses)-i)
		if last && i == len(addresses)-1 && c.patient != nil {
			cancel()
			turn, cancel = context.WithCancel(c.patient)
		}
		a := attempt{connection: c, endpoint: e, network: network, to: to, kind: kind}
		conn, err = a.connect(turn)
		cancel()
		if err == nil || !a.unanswered {
			return conn, a.next(err), err
		}
	}
	return nil, true, err
}

// attempt is to connect to one server at one address.
type attempt struct {
	*connection
	endpoint
	network, to, kind string

	unanswered bool // nobody has answered there
	secured    bool // TLS was established
}

// progress is how far an attempt got. It is atomic: pgconn dials again in the background, to cancel what it has given
// up.
type progress struct{ dialed, secured atomic.Bool }

// next reports whether to go on to the next server after an error.
func (a *attempt) next(err error) bool {
	pgErr, isServers := errors.AsType[*pgconn.PgError](err)
	return a.unanswered || errors.Is(err, pgconn.ErrStandbyConnection) || isServers && pgErr.Code == codeCannotConnectNow
}

// connect uses TLS or not, by sslmode. With allow and prefer it then tries the other way, if the first fails or is
// refused.
func (a *attempt) connect(ctx context.Context) (*pgconn.PgConn, error) {
	ways := []bool{true}
	switch mode := a.keywords["sslmode"]; {
	case a.network == "unix", mode == sslDisable:
		ways = []bool{false}
	case mode == sslAllow:
		ways = []bool{false, true}
	case mode == sslPrefer:
		ways = []bool{true, false}
	}
	var conn *pgconn.PgConn
	var err error
	for _, withTLS := range ways {
		conn, err = a.connectOnce(ctx, withTLS)
		_, isServers := errors.AsType[*pgconn.PgError](err)
		if err == nil || a.unanswered || !isServers && (!withTLS || a.secured) {
			break
		}
	}
	return conn, err
}

// connectOnce connects with TLS or without.
func (a *attempt) connectOnce(ctx context.Context, withTLS bool) (*pgconn.PgConn, error) {
	doing := fmt.Sprintf("connect to the upstream %s as %s", address(a.leads(), a.port), a.user())
	a.unanswered, a.secured = false, false
	var p progress
	config, err := a.config(withTLS, &p)
	if err != nil {
		return nil, &Error{Class: Configuration, Doing: doing, Err: err}
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		return conn, nil
	}
	a.unanswered, a.secured = !p.dialed.Load() || ctx.Err() != nil, p.secured.Load()
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		if refused(pgErr) {
			doing += ", with the password of primary_conninfo or its passfile, by the upstream's pg_hba.conf"
		}
		return nil, classify(pgErr, doing)
	}
	class := Transient
	if _, ok := errors.AsType[refusal](err); ok {
		class = Configuration
	}
	return nil, &Error{Class: class, Doing: doing, Err: connectCause(ctx, err, config.Password)}
}

// config returns pgconn's configuration for the attempt. What only libpq knows (keepalives and the like) is left out:
// pgconn would send it to the server as a setting.
func (a *attempt) config(withTLS bool, p *progress) (*pgconn.Config, error) {
	config, err := a.handOn(handedOn...)
	if err != nil {
		return nil, errConninfo // and not err: it holds the text
	}
	config.Database = physicalDatabase
	if a.kind == withDatabase {
		config.Database = upstreamDatabase
	}
	if config.Password, err = a.password(a.endpoint, config.Database); err != nil {
		return nil, err
	}
	if withTLS {
		if config.TLSConfig, err = a.tlsConfig(a.endpoint); err != nil {
			return nil, err
		}
		verify := config.TLSConfig.VerifyConnection
		config.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
			err := verify(state)
			p.secured.Store(err == nil)
			return err
		}
	}
	config.Host, config.Port, config.User, config.Fallbacks = a.leads(), a.port, a.user(), nil
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // it is, by routes
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, a.network, a.to)
		if err != nil {
			return nil, err
		}
		p.dialed.Store(true)
		return a.proven(conn)
	}
	if a.gate != nil {
		config.DialFunc = a.gate(config.DialFunc)
	}
	config.RuntimeParams = map[string]string{
		"replication":             a.kind,
		"application_name":        applicationName,
		"statement_timeout":       milliseconds(upstreamTimeout),
		"tcp_keepalives_idle":     seconds(keepaliveIdle),
		"tcp_keepalives_interval": seconds(keepaliveInterval),
		"tcp_keepalives_count":    keepaliveCount,
	}
	// target_session_attrs is checked by SQL in pgconn, which a physical walsender does not take. Among several hosts
	// the primary is the one to ask.
	config.ValidateConnect = nil
	if len(a.endpoints) > 1 {
		config.ValidateConnect = onlyPrimary
	}
	return config, nil
}

// proven refuses a server at a unix socket that does not run as the user whom requirepeer names.
func (a *attempt) proven(conn net.Conn) (net.Conn, error) {
	wanted := a.keywords["requirepeer"]
	if wanted == "" || a.network != "unix" {
		return conn, nil
	}
	peer, err := peerOf(conn)
	if err == nil {
		var found *user.User
		if found, err = user.LookupId(strconv.Itoa(int(peer.Uid))); err == nil && found.Username != wanted {
			err = errors.New("another user")
		}
	}
	if err != nil {
		err = refuse("requirepeer", "is not the user who listens at %s: %s", a.to, oneLine(err.Error()))
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// onlyPrimary passes a standby over. in_hot_standby is reported since PostgreSQL 14.
func onlyPrimary(_ context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "on" {
		return pgconn.ErrStandbyConnection
	}
	return nil
}

// connectCause returns why there is no connection, without anything secret.
func connectCause(ctx context.Context, err error, password string) error {
	if errors.Is(err, pgconn.ErrStandbyConnection) {
		return pgconn.ErrStandbyConnection
	}
	if unbelieved, ok := errors.AsType[tlsError](err); ok {
		return unbelieved
	}
	if refused, ok := errors.AsType[refusal](err); ok {
		return refused
	}
	if ctx.Err() != nil || timedOut(err) {
		return errNoAnswer
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = connect.Unwrap()
	}
	text := oneLine(err.Error())
	if strings.Contains(text, "GSSAPI provider") {
		return errors.New("the server asks for authentication with GSSAPI, which pgrex cannot follow: let this user in by a password or a certificate, too")
	}
	if password != "" {
		text = strings.ReplaceAll(text, password, "…")
	}
	return errors.New(text)
}
