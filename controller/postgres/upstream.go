package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgrex/pgrex/model"
)

const (
	upstreamTimeout = 4 * time.Second
	upstreamIdle    = time.Minute // how long a connection that nobody asks anything is kept
	firstReadSlot   = 15          // the first major version with READ_REPLICATION_SLOT
)

// upstream is a kept replication connection to the server that the local standby replicates from.
type upstream struct {
	conninfo string
	conn     *pgconn.PgConn
	bySQL    bool // PostgreSQL 13 and 14 have no READ_REPLICATION_SLOT
	used     time.Time
}

// idle tells whether a connection is kept for nothing.
func (u *upstream) idle() bool { return u != nil && time.Since(u.used) > upstreamIdle }

func (s *Server) closeUpstream() {
	if s.upstream == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.upstream.conn.Close(ctx)
	s.upstream = nil
}

// ObserveUpstream asks the upstream for its identity and for slots by name. The answers are in the order asked. It is for a
// standby; an error is an *Error, without anything of primary_conninfo but host, port and user.
func (s *Server) ObserveUpstream(ctx context.Context, slots []string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	for _, name := range slots {
		if err := validName(name); err != nil {
			return model.Upstream{}, &Error{Class: Configuration, Doing: "ask the upstream for a slot", Err: err}
		}
	}
	var conninfo string
	if err := s.query(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, sqlConninfo).Scan(&conninfo) }); err != nil {
		s.closeUpstream()
		return model.Upstream{}, s.unanswered(err, "read primary_conninfo")
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
	s.upstream.used = time.Now()
	u, err := s.upstream.ask(ctx, slots)
	if err != nil {
		s.closeUpstream()
	}
	return u, err
}

// ask asks for the identity, then for each slot.
func (u *upstream) ask(ctx context.Context, slots []string) (model.Upstream, error) {
	answer, err := u.identify(ctx)
	for _, name := range slots {
		if err != nil {
			break
		}
		var slot model.UpstreamSlot
		slot, err = u.slot(ctx, name)
		answer.Slots = append(answer.Slots, slot)
	}
	if err != nil {
		return model.Upstream{}, err
	}
	return answer, nil
}

// openUpstream opens the kept connection. A server before PostgreSQL 15 tells of slots by SQL only, which a replication
// connection to a database allows; whether it is let in is for pg_hba.conf, where "replication" does not cover it.
func openUpstream(ctx context.Context, conninfo string) (*upstream, error) {
	conn, err := connectUpstream(ctx, conninfo, physical)
	if err != nil {
		return nil, err
	}
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	if n, _ := strconv.Atoi(major); n == 0 || n >= firstReadSlot {
		return &upstream{conninfo: conninfo, conn: conn}, nil
	}
	_ = conn.Close(ctx) // it could do nothing for us
	conn, err = connectUpstream(ctx, conninfo, withDatabase)
	if err != nil {
		return nil, classify(err, fmt.Sprintf("PostgreSQL %s tells of its slots by SQL only, so that the replication user must be "+
			"let into the database %s by its pg_hba.conf, too; %s", major, upstreamDatabase, doingOf(err)))
	}
	return &upstream{conninfo: conninfo, conn: conn, bySQL: true}, nil
}

func doingOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Doing
	}
	return ""
}

func address(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

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
	inRecovery, err := u.inRecovery(ctx)
	if err != nil {
		return model.Upstream{}, err
	}
	return model.Upstream{
		Address:    u.conn.Conn().RemoteAddr().String(),
		SystemID:   string(row[0]),
		Timeline:   uint32(timeline),
		InRecovery: inRecovery,
		Flushed:    flushed,
	}, nil
}

// inRecovery asks by SQL where that is to be had: PostgreSQL 13 does not report in_hot_standby.
func (u *upstream) inRecovery(ctx context.Context) (bool, error) {
	if !u.bySQL {
		return u.conn.ParameterStatus("in_hot_standby") == "on", nil
	}
	row, err := u.row(ctx, sqlInRecovery, "ask the upstream for its role")
	if err != nil {
		return false, err
	}
	return string(row[0]) == "t", nil
}

// slot runs READ_REPLICATION_SLOT, or SQL that answers the same. An unknown slot gives a row of NULLs, a logical one an
// error: it is there, and reserves nothing for us. A slot that lost its WAL has no restart_lsn; but one that
// idle_replication_slot_timeout (18) invalidated keeps it, and nothing in this protocol tells it from a good one.
func (u *upstream) slot(ctx context.Context, name string) (model.UpstreamSlot, error) {
	doing := "READ_REPLICATION_SLOT " + name + " at the upstream"
	command := `READ_REPLICATION_SLOT "` + strings.ReplaceAll(name, `"`, `""`) + `"`
	if u.bySQL {
		command = fmt.Sprintf(sqlUpstreamSlot, quoteLiteral(name))
	}
	row, err := u.row(ctx, command, doing)
	slot := model.UpstreamSlot{Name: name}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == codeNotSupported {
		slot.Exists, slot.Logical = true, true
		return slot, nil
	}
	if err != nil {
		return slot, err
	}
	if len(row) < 2 || row[0] == nil {
		return slot, nil
	}
	slot.Exists, slot.Logical = true, string(row[0]) == string(model.SlotLogical)
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
	if len(results) == 0 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) == 0 {
		return nil, &Error{Class: Unknown, Doing: doing, Err: errors.New("no row")}
	}
	return results[0].Rows[0], nil
}
