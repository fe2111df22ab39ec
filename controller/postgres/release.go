package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgrex/pgrex/model"
)

// releaseXMin clears a slot's xmin as its owner would: hot-standby feedback that needs no transaction, over a replication
// connection on that slot (PostgreSQL documentation, 55.4: "Hot standby feedback message"). Only a reported flush position
// moves restart_lsn, and none is reported.
//
// The replication protocol takes no condition, so that the precondition is asserted just before. Should the role change
// in between, nothing is lost: an owner that is attached by then makes the slot busy, and one that comes later sends its
// own xmin. If the server hangs and nobody waits any more, it gets no further command.
func (s *Server) releaseXMin(ctx context.Context, step model.ReleaseXMin) error {
	if err := s.one(ctx, sqlSeeSlot, step.Guard, step.Slot, lsnOrNull(step.From)); err != nil {
		return err
	}
	config, opened, err := s.connectConfig(ctx)
	if err != nil {
		return err
	}
	defer opened()
	// A connection to a database is let in by the same lines of pg_hba.conf as any other of ours.
	config.RuntimeParams["replication"] = withDatabase
	io := s.local.io
	conn, err := pgconn.ConnectConfig(io, &config.Config)
	if err != nil {
		return connectError{err}
	}
	defer closeConn(conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From the end of WAL on, so that nothing is sent.
	result, err := conn.Exec(io, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return err
	}
	if len(result) != 1 || len(result[0].Rows) != 1 || len(result[0].Rows[0]) < 3 {
		return errors.New("IDENTIFY_SYSTEM gives no row")
	}
	end, err := model.ParseLSN(string(result[0].Rows[0][2]))
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return sendFeedback(io, conn, fmt.Sprintf(`START_REPLICATION SLOT "%s" PHYSICAL %s`, step.Slot, end))
}

// sendFeedback begins to replicate, says that no transaction is needed, and ends. The server answers the end after it has
// read what came before.
func sendFeedback(ctx context.Context, conn *pgconn.PgConn, command string) error {
	conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *pgproto3.CopyBothResponse:
			conn.Frontend().Send(&pgproto3.CopyData{Data: noTransactionNeeded(time.Now())})
			conn.Frontend().Send(&pgproto3.CopyDone{})
			if err := conn.Frontend().Flush(); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(message)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

// noTransactionNeeded is a hot-standby feedback message: 'h', the time in microseconds since 2000, then xmin,
// catalog_xmin and the epoch of each, all of them zero.
func noTransactionNeeded(now time.Time) []byte {
	const fields = 16
	message := binary.BigEndian.AppendUint64([]byte{'h'}, uint64(now.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	return append(message, make([]byte, fields)...)
}
