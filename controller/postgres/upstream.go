package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgrex/pgrex/model"
)

const (
	upstreamTimeout = 4 * time.Second
	// The first major versions with READ_REPLICATION_SLOT, and with synchronized_standby_slots.
	firstReadSlot     = 15
	firstSynchronized = 17
	showSynchronized  = "SHOW synchronized_standby_slots"
)

// upstream is a replication connection to the server that the local standby replicates from, or to another member's.
type upstream struct {
	conn  *pgconn.PgConn
	bySQL bool // PostgreSQL 13 and 14 have no READ_REPLICATION_SLOT
}

// ObserveUpstream asks the upstream for its identity and for slots by name. The answers are in the order asked. It is for a
// standby, which Observe has found to be one; an error is an *Error, without anything of primary_conninfo but host,
// port and
// user.
func (s *Server) ObserveUpstream(ctx context.Context, slots []string) (model.Upstream, error) {
	for _, name := range slots {
		if err := validName(name); err != nil {
			return model.Upstream{}, &Error{Class: Configuration, Doing: "ask the upstream for a slot", Err: err}
		}
	}
	conninfo, err := s.credentials()
	if err != nil {
		return model.Upstream{}, err
	}
	answer, err := s.others.to("", conninfo).ask(ctx, slots)
	if _, classed := errors.AsType[*Error](err); !classed {
		err = classify(err, "ask the upstream")
	}
	return answer, err
}

// credentials returns primary_conninfo, as Observe has read it.
func (s *Server) credentials() (string, error) {
	if s.conninfo == nil {
		return "", &Error{Class: Permission, Doing: "read primary_conninfo", Err: fmt.Errorf("the user %s may not: grant it pg_read_all_settings", s.config.User)}
	}
	return *s.conninfo, nil
}

// ask asks for the identity and for each slot, in one round trip. PostgreSQL 13 does not report in_hot_standby: on a
// connection that takes SQL, ask also asks for the role.
func (u *upstream) ask(ctx context.Context, slots []string) (model.Upstream, error) {
	commands := []string{identifySystem}
	if u.bySQL {
		commands = append(commands, sqlInRecovery)
	}
	first := len(commands)
	for _, name := range slots {
		commands = append(commands, u.slotCommand(name))
	}
	synchronized := majorOf(u.conn) >= firstSynchronized
	if synchronized {
		commands = append(commands, showSynchronized)
	}
	rows, err := u.rows(ctx, commands)
	if err != nil {
		return model.Upstream{}, err
	}
	answer, err := u.identity(rows[0])
	if err == nil && u.bySQL {
		answer.InRecovery, err = roleIn(rows[1])
	}
	for i, name := range slots {
		if err != nil {
			break
		}
		var slot model.UpstreamSlot
		slot, err = slotIn(name, rows[first+i])
		answer.Slots = append(answer.Slots, slot)
	}
	if err == nil && synchronized {
		answer.SynchronizedStandbySlots, err = namesIn(rows[len(rows)-1])
	}
	if err != nil {
		return model.Upstream{}, err
	}
	return answer, nil
}

// namesIn reads a list of slots' names, as PostgreSQL reads a list of identifiers: names have small letters only.
func namesIn(a answered) ([]string, error) {
	row, err := a.one(showSynchronized + " at the upstream")
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(strings.ToLower(string(row[0])), func(r rune) bool { return strings.ContainsRune(", \t\r\n\f\v\"", r) }), nil
}

// majorOf returns the major version of a connection's server; 0 if that is not a number.
func majorOf(conn *pgconn.PgConn) int {
	text := conn.ParameterStatus("server_version")
	major, _ := strconv.Atoi(text[:len(text)-len(strings.TrimLeft(text, "0123456789"))])
	return major
}

// openUpstream opens a connection to the server that a connection string names or, with an address in at, to the one
// there.
func openUpstream(ctx context.Context, conninfo, at string) (*upstream, error) {
	return openBy(ctx, func(kind string) (*pgconn.PgConn, error) { return connectUpstream(ctx, conninfo, at, kind) })
}

// openBy opens a connection with connect. A server before PostgreSQL 15 shows slots by SQL only, which a replication
// connection to a database allows; whether it is let in is for pg_hba.conf, where "replication" does not cover it.
func openBy(ctx context.Context, connect func(kind string) (*pgconn.PgConn, error)) (*upstream, error) {
	conn, err := connect(physical)
	if err != nil {
		return nil, err
	}
	major := majorOf(conn)
	if major == 0 || major >= firstReadSlot {
		return &upstream{conn: conn}, nil
	}
	_ = conn.Close(ctx) // it could do nothing for us
	conn, err = connect(withDatabase)
	if err != nil {
		return nil, classify(err, fmt.Sprintf("PostgreSQL %d shows its slots by SQL only: the replication user must be "+
			"let into the database %s by its pg_hba.conf, too; %s", major, upstreamDatabase, doingOf(err)))
	}
	return &upstream{conn: conn, bySQL: true}, nil
}

func doingOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Doing
	}
	return ""
}

func address(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

const (
	identifySystem = "IDENTIFY_SYSTEM"
	identifying    = identifySystem + " at the upstream"
)

// identify runs IDENTIFY_SYSTEM.
func (u *upstream) identify(ctx context.Context) (model.Upstream, error) { return u.ask(ctx, nil) }

// identity reads the answer of IDENTIFY_SYSTEM. in_hot_standby is reported by PostgreSQL 14 and newer when a connection
// begins and whenever it changes.
func (u *upstream) identity(a answered) (model.Upstream, error) {
	row, err := a.one(identifying)
	if err != nil {
		return model.Upstream{}, err
	}
	if len(row) < 3 {
		return model.Upstream{}, &Error{Class: Unknown, Doing: identifying, Err: fmt.Errorf("%d columns instead of 4", len(row))}
	}
	timeline, errTimeline := strconv.ParseUint(string(row[1]), 10, 32)
	flushed, errLSN := model.ParseLSN(string(row[2]))
	if err := errors.Join(errTimeline, errLSN); err != nil {
		return model.Upstream{}, &Error{Class: Unknown, Doing: identifying, Err: err}
	}
	return model.Upstream{
		Address:    u.conn.Conn().RemoteAddr().String(),
		SystemID:   string(row[0]),
		Timeline:   uint32(timeline),
		InRecovery: u.conn.ParameterStatus("in_hot_standby") == "on",
		Flushed:    flushed,
	}, nil
}

func roleIn(a answered) (inRecovery bool, err error) {
	row, err := a.one("ask the upstream for its role")
	if err != nil {
		return false, err
	}
	return string(row[0]) == "t", nil
}

// slotCommand is READ_REPLICATION_SLOT, or SQL that answers the same.
func (u *upstream) slotCommand(name string) string {
	if u.bySQL {
		return fmt.Sprintf(sqlUpstreamSlot, quoteLiteral(name))
	}
	return `READ_REPLICATION_SLOT "` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// slot asks for one slot.
func (u *upstream) slot(ctx context.Context, name string) (model.UpstreamSlot, error) {
	rows, err := u.rows(ctx, []string{u.slotCommand(name)})
	if err != nil {
		return model.UpstreamSlot{Name: name}, err
	}
	return slotIn(name, rows[0])
}

// slotIn reads the answer about a slot. For an unknown slot it is a row of NULLs, for a logical one an error: it
// exists, and reserves nothing for us. A slot that lost its WAL has no restart_lsn; but one that
// idle_replication_slot_timeout (18) invalidated keeps it, and nothing in this protocol tells it from a good one.
func slotIn(name string, a answered) (model.UpstreamSlot, error) {
	doing := "READ_REPLICATION_SLOT " + name + " at the upstream"
	row, err := a.one(doing)
	slot := model.UpstreamSlot{Name: name}
	if a.refusal != nil && a.refusal.Code == codeNotSupported {
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

// answered is the answer to a command: rows, or a refusal.
type answered struct {
	rows    [][][]byte
	refusal *pgconn.PgError
}

// one returns the only row.
func (a answered) one(doing string) ([][]byte, error) {
	switch {
	case a.refusal != nil:
		return nil, classify(a.refusal, doing)
	case len(a.rows) != 1 || len(a.rows[0]) == 0:
		return nil, &Error{Class: Unknown, Doing: doing, Err: errors.New("no row")}
	}
	return a.rows[0], nil
}

// row runs a replication command that gives one row.
func (u *upstream) row(ctx context.Context, command, doing string) ([][]byte, error) {
	rows, err := u.rows(ctx, []string{command})
	if err != nil {
		return nil, classify(err, doing)
	}
	return rows[0].one(doing)
}

// rows runs commands in one round trip, each in its own message: the replication protocol takes one command in a
// message, and no bound parameters. If one is refused, the next still gets its answer.
func (u *upstream) rows(ctx context.Context, commands []string) ([]answered, error) {
	for _, command := range commands {
		u.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	}
	if err := u.conn.Frontend().Flush(); err != nil {
		return nil, classify(err, "ask the upstream")
	}
	all := make([]answered, len(commands))
	for i := 0; i < len(all); {
		message, err := u.conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, classify(err, commands[i]+" at the upstream")
		}
		switch message := message.(type) {
		case *pgproto3.DataRow:
			row := make([][]byte, len(message.Values))
			for n, value := range message.Values {
				row[n] = bytes.Clone(value) // the message is read over
			}
			if all[i].rows = append(all[i].rows, row); len(all[i].rows) > 1 {
				return nil, &Error{Class: Unknown, Doing: commands[i] + " at the upstream", Err: errors.New("more than one row")} // or without end
			}
		case *pgproto3.ErrorResponse:
			all[i].refusal = pgconn.ErrorResponseToPgError(message)
		case *pgproto3.ReadyForQuery:
			i++
		}
	}
	return all, nil
}
