package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgrex/pgrex/model"
)

const (
	upstreamTimeout  = 4 * time.Second
	upstreamDatabase = "postgres"
	firstReadSlot    = 15 // the first major version with READ_REPLICATION_SLOT
)

// upstream is a kept replication connection to the server that the local standby replicates from.
type upstream struct {
	conninfo string
	conn     *pgconn.PgConn
	bySQL    bool // PostgreSQL 13 and 14 have no READ_REPLICATION_SLOT
}

func (s *Server) closeUpstream() {
	if s.upstream == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.upstream.conn.Close(ctx)
	s.upstream = nil
}

// ObserveUpstream asks the upstream for its identity and for slots by name.
func (s *Server) ObserveUpstream(ctx context.Context, slots []string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	var conninfo string
	if err := s.query(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, sqlConninfo).Scan(&conninfo) }); err != nil {
		return model.Upstream{}, classify(err, "read primary_conninfo")
	}
	kept := s.upstream != nil && s.upstream.conninfo == conninfo
	u, err := s.askUpstream(ctx, conninfo, slots)
	if err != nil && kept && ctx.Err() == nil {
		u, err = s.askUpstream(ctx, conninfo, slots) // the kept connection may have been a dead one
	}
	return u, err
}

func (s *Server) askUpstream(ctx context.Context, conninfo string, slots []string) (model.Upstream, error) {
	if s.upstream == nil || s.upstream.conninfo != conninfo {
		s.closeUpstream()
		u, err := openUpstream(ctx, conninfo)
		if err != nil {
			return model.Upstream{}, err
		}
		s.upstream = u
	}
	u, err := s.upstream.identify(ctx)
	for _, name := range slots {
		if err != nil {
			break
		}
		var slot model.UpstreamSlot
		slot, err = s.upstream.slot(ctx, name)
		u.Slots = append(u.Slots, slot)
	}
	if err != nil {
		s.closeUpstream()
		return model.Upstream{}, err
	}
	return u, nil
}

// openUpstream opens the kept connection. A server before PostgreSQL 15 tells of slots by SQL only, which a replication
// connection to a database allows; whether it is let in is for pg_hba.conf, where "replication" does not cover it.
func openUpstream(ctx context.Context, conninfo string) (*upstream, error) {
	conn, err := connectUpstream(ctx, conninfo, "true")
	if err != nil {
		return nil, err
	}
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	if n, _ := strconv.Atoi(major); n == 0 || n >= firstReadSlot {
		return &upstream{conninfo: conninfo, conn: conn}, nil
	}
	_ = conn.Close(ctx) // it could do nothing for us
	conn, err = connectUpstream(ctx, conninfo, "database")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL %s tells of its slots only to who may connect to the database %s: %w",
			major, upstreamDatabase, err)
	}
	return &upstream{conninfo: conninfo, conn: conn, bySQL: true}, nil
}

// connectUpstream opens a replication connection of a kind. Errors name the address only: conninfo may hold a password.
func connectUpstream(ctx context.Context, conninfo, replication string) (*pgconn.PgConn, error) {
	if conninfo == "" {
		return nil, &Error{Class: Configuration, Doing: "connect to the upstream", Err: errors.New("primary_conninfo is empty")}
	}
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, &Error{Class: Configuration, Doing: "read primary_conninfo", Err: errors.New("it is not understood; its text is withheld, since it may hold a password")}
	}
	config.ConnectTimeout = upstreamTimeout
	config.RuntimeParams = map[string]string{"replication": replication, "application_name": applicationName}
	config.Database = upstreamDatabase // a physical replication connection has none, and the server then ignores it
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		doing := "connect to the upstream " + address(config.Host, config.Port) + " as " + config.User
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
			return nil, classify(pgErr, doing)
		}
		if ctx.Err() != nil || isTimeout(err) {
			return nil, &Error{Class: Transient, Doing: doing, Err: errors.New("no answer in time")}
		}
		return nil, &Error{Class: Transient, Doing: doing, Err: errors.New("the connection was refused or cut")}
	}
	return conn, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func address(host string, port uint16) string { return host + ":" + strconv.Itoa(int(port)) }

// identify runs IDENTIFY_SYSTEM. in_hot_standby is reported by PostgreSQL 14 and newer when a connection begins and
// whenever it changes.
func (u *upstream) identify(ctx context.Context) (model.Upstream, error) {
	const doing = "IDENTIFY_SYSTEM at the upstream"
	row, err := u.row(ctx, "IDENTIFY_SYSTEM", doing)
	if err != nil {
		return model.Upstream{}, err
	}
	if len(row) < 3 {
		return model.Upstream{}, &Error{Class: Unknown, Doing: doing, Err: fmt.Errorf("%d columns instead of 4", len(row))}
	}
	timeline, errTimeline := strconv.ParseUint(string(row[1]), 10, 32)
	flushed, errLSN := model.ParseLSN(string(row[2]))
	if err := errors.Join(errTimeline, errLSN); err != nil {
		return model.Upstream{}, &Error{Class: Unknown, Doing: doing, Err: err}
	}
	return model.Upstream{
		Address:    u.conn.Conn().RemoteAddr().String(),
		SystemID:   string(row[0]),
		Timeline:   uint32(timeline),
		InRecovery: u.conn.ParameterStatus("in_hot_standby") == "on",
		Flushed:    flushed,
	}, nil
}

// slot runs READ_REPLICATION_SLOT, or SQL that answers the same. An unknown slot gives a row of NULLs, a logical one an
// error: it is there, and reserves nothing for us.
func (u *upstream) slot(ctx context.Context, name string) (model.UpstreamSlot, error) {
	doing := "READ_REPLICATION_SLOT " + name + " at the upstream"
	command := `READ_REPLICATION_SLOT "` + strings.ReplaceAll(name, `"`, `""`) + `"`
	if u.bySQL {
		command = fmt.Sprintf(sqlUpstreamSlot, quoteLiteral(name))
	}
	row, err := u.row(ctx, command, doing)
	slot := model.UpstreamSlot{Name: name}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == codeNotSupported {
		slot.Exists = true
		return slot, nil
	}
	if err != nil {
		return slot, err
	}
	if len(row) < 2 || row[0] == nil {
		return slot, nil
	}
	slot.Exists = true
	if row[1] != nil {
		if slot.RestartLSN, err = model.ParseLSN(string(row[1])); err != nil {
			return slot, &Error{Class: Unknown, Doing: doing, Err: err}
		}
	}
	return slot, nil
}

// row runs a replication command that gives one row.
func (u *upstream) row(ctx context.Context, command, doing string) ([][]byte, error) {
	results, err := u.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, classify(err, doing)
	}
	if len(results) == 0 || len(results[0].Rows) != 1 {
		return nil, &Error{Class: Unknown, Doing: doing, Err: errors.New("no row")}
	}
	return results[0].Rows[0], nil
}
