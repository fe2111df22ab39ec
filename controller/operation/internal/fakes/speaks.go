package fakes

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Speaks is a server that says what a test has it say: rows by the beginning of a command; "ERROR" and a SQLSTATE for a
// refusal. It closes a connection on a command that it has no answer to.
type Speaks map[string][]string

// Moves has IDENTIFY_SYSTEM answer with a position that goes on.
const Moves = "it moves"

// At returns how to reach it.
func (s Speaks) At(t *testing.T) (conninfo, address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return fmt.Sprintf("host=%s port=%s user=repl sslmode=disable", host, port), host
}

func (s Speaks) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	b := pgproto3.NewBackend(conn, conn)
	first, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	startup, _ := first.(*pgproto3.StartupMessage)
	if startup == nil || startup.Parameters["replication"] == "database" && !s.has("SELECT") { // nobody is let in
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "17.2"})
	b.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "on"})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		message, err := b.Receive()
		if err != nil {
			return
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return
		}
		row, known := s.answer(query.String)
		switch {
		case !known:
			return
		case len(row) == 2 && row[0] == "ERROR":
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: row[1], Message: "refused with " + row[1]})
			continue
		}
		b.Send(&pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(row))})
		values := make([][]byte, len(row))
		for i, v := range row {
			if v != "NULL" {
				values[i] = []byte(v)
			}
		}
		b.Send(&pgproto3.DataRow{Values: values})
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
}

func (s Speaks) has(command string) bool {
	for begins := range s {
		if strings.HasPrefix(begins, command) {
			return true
		}
	}
	return false
}

var moved atomic.Int64

func (s Speaks) answer(query string) (row []string, known bool) {
	for begins, row := range s {
		if strings.HasPrefix(strings.TrimSpace(query), begins) {
			if s.has(Moves) && begins == "IDENTIFY_SYSTEM" {
				row = []string{row[0], row[1], fmt.Sprintf("0/18%d", moved.Add(1)), row[3]}
			}
			return row, true
		}
	}
	return nil, false
}
