package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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

var errConninfo = errors.New("primary_conninfo is not understood; its text is withheld, since it may hold a password")

// upstreamConfig turns primary_conninfo into a configuration of pgconn's. What only libpq knows (keepalives, gssencmode
// and the like) is left out: pgconn would send it to the server as a setting.
func upstreamConfig(conninfo, kind string) (*pgconn.Config, error) {
	if conninfo == "" {
		return nil, errors.New("primary_conninfo is empty")
	}
	database := physicalDatabase
	if kind == withDatabase {
		database = upstreamDatabase
	}
	config, err := pgconn.ParseConfig(withKeyword(conninfo, "dbname", database))
	if err != nil {
		return nil, errConninfo // and not err: it holds the text
	}
	if address := config.RuntimeParams["hostaddr"]; address != "" {
		if config, err = withAddress(conninfo, database, address); err != nil {
			return nil, err
		}
	}
	config.ConnectTimeout = upstreamTimeout
	config.RuntimeParams = map[string]string{
		"replication":             kind,
		"application_name":        applicationName,
		"statement_timeout":       milliseconds(upstreamTimeout),
		"tcp_keepalives_idle":     seconds(keepaliveIdle),
		"tcp_keepalives_interval": seconds(keepaliveInterval),
		"tcp_keepalives_count":    keepaliveCount,
	}
	// target_session_attrs is checked by SQL in pgconn, which a physical walsender does not take. Among several hosts
	// the primary is the one to ask.
	config.ValidateConnect = nil
	if severalHosts(config) {
		config.ValidateConnect = onlyPrimary
	}
	return config, nil
}

// applicationNameIn is the application_name of a connection string, "" where it has none or is not understood. What the
// environment says does not count: it is not the server's.
func applicationNameIn(conninfo string) string {
	const keyword = "application_name"
	if !strings.Contains(conninfo, keyword) {
		return ""
	}
	empty := ""
	if !isURI(conninfo) {
		empty = "''"
		conninfo = keyword + "='' " + conninfo // what is given comes later and wins
	}
	conninfo = withKeyword(conninfo, "sslmode", "disable")
	for _, file := range []string{"sslrootcert", "sslcert", "sslkey"} { // which this user may not be able to read
		conninfo = withKeyword(conninfo, file, empty)
	}
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return ""
	}
	return config.RuntimeParams[keyword]
}

func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }

func isURI(conninfo string) bool {
	return strings.HasPrefix(conninfo, "postgres://") || strings.HasPrefix(conninfo, "postgresql://")
}

// withKeyword adds a keyword that wins over the same one before it. Its value must need no quoting.
func withKeyword(conninfo, keyword, value string) string {
	separator := " "
	switch {
	case isURI(conninfo) && strings.Contains(conninfo, "?"):
		separator = "&"
	case isURI(conninfo):
		separator = "?"
	}
	return conninfo + separator + keyword + "=" + value
}

// withAddress honours hostaddr, which pgconn does not know: it would go to a socket of this machine instead, that is, to
// the standby itself. The host's name stays what certificates and passfiles are looked up by.
func withAddress(conninfo, database, address string) (*pgconn.Config, error) {
	if strings.Contains(address, ",") || net.ParseIP(address) == nil {
		return nil, errors.New("hostaddr in primary_conninfo is not one address: pgrex cannot follow it; use host")
	}
	if !isURI(conninfo) {
		conninfo = "host=" + address + " " + conninfo // a host that is given comes later and wins
	}
	config, err := pgconn.ParseConfig(withKeyword(conninfo, "dbname", database))
	if err != nil {
		return nil, errConninfo
	}
	if network, _ := pgconn.NetworkAddress(config.Host, config.Port); network != "tcp" || severalHosts(config) {
		return nil, errors.New("hostaddr in primary_conninfo does not go with its host: pgrex cannot follow it; use host alone")
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
	return config, nil
}

// severalHosts tells more than one server from one that is tried with and without TLS.
func severalHosts(config *pgconn.Config) bool {
	for _, f := range config.Fallbacks {
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}

// onlyPrimary passes a standby over. in_hot_standby is reported since PostgreSQL 14.
func onlyPrimary(_ context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "on" {
		return pgconn.ErrStandbyConnection
	}
	return nil
}

// connectUpstream opens a replication connection of a kind. Errors name the address and the user only; pgconn's own are
// not wrapped, because they carry the configuration and with it the password.
func connectUpstream(ctx context.Context, conninfo, kind string) (*pgconn.PgConn, error) {
	config, err := upstreamConfig(conninfo, kind)
	if err != nil {
		return nil, &Error{Class: Configuration, Doing: "ask the upstream", Err: err}
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		return conn, nil
	}
	doing := fmt.Sprintf("connect to the upstream %s as %s", address(config.Host, config.Port), config.User)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		if refused(pgErr) {
			doing += ", with the password of primary_conninfo or its passfile, by the upstream's pg_hba.conf"
		}
		return nil, classify(pgErr, doing)
	}
	return nil, &Error{Class: Transient, Doing: doing, Err: connectCause(ctx, err, config.Password)}
}

// connectCause says why there is no connection, without what is secret.
func connectCause(ctx context.Context, err error, password string) error {
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
	if password != "" {
		text = strings.ReplaceAll(text, password, "…")
	}
	return errors.New(text)
}
