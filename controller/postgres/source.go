package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgrex/pgrex/model"
)

// Source is the primary as a host sees it that is to come back: over the replication protocol, with the credentials of the
// host's own primary_conninfo. Its methods give an *Error, without anything of the connection string but host, port and
// user.
type Source struct{ upstream *upstream }

// OpenSource connects to the primary.
func OpenSource(ctx context.Context, conninfo string) (*Source, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	u, err := openUpstream(ctx, conninfo)
	if err != nil {
		return nil, err
	}
	return &Source{u}, nil
}

// Close ends the connection.
func (s *Source) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.upstream.conn.Close(ctx)
}

// Identify asks who the primary is, and for one slot.
func (s *Source) Identify(ctx context.Context, slot string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	u, err := s.upstream.identify(ctx)
	if err != nil {
		return u, err
	}
	answer, err := s.upstream.slot(ctx, slot)
	u.Slots = []model.UpstreamSlot{answer}
	return u, err
}

// History gives the primary's timelines up to one of them, the oldest first (TIMELINE_HISTORY).
func (s *Source) History(ctx context.Context, timeline uint32) ([]model.Timeline, error) {
	if timeline == 1 {
		return []model.Timeline{{ID: 1}}, nil // the first has no history file
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	row, err := s.upstream.row(ctx, "TIMELINE_HISTORY "+strconv.Itoa(int(timeline)), "TIMELINE_HISTORY at the primary")
	if err != nil {
		return nil, err
	}
	if len(row) < 2 {
		return nil, &Error{Class: Unknown, Doing: "TIMELINE_HISTORY at the primary", Err: errors.New("no content")}
	}
	return model.ParseHistory(timeline, string(row[1]))
}

// Has tells whether the primary can send WAL of a timeline from a position on: nil if so, or why not. It begins to
// replicate there, without a slot, and ends at the first WAL that comes: there must be some. The connection is of no
// further use then.
func (s *Source) Has(ctx context.Context, from model.LSN, timeline uint32) error {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	doing := fmt.Sprintf("ask the primary for WAL from %s on timeline %d on", from, timeline)
	conn := s.upstream.conn
	conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", from, timeline)})
	if err := conn.Frontend().Flush(); err != nil {
		return classify(err, doing)
	}
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return classify(err, doing)
		}
		switch message := message.(type) {
		case *pgproto3.CopyData: // a keepalive says nothing: it comes before the walsender has looked for the file
			if len(message.Data) > 0 && message.Data[0] == 'w' {
				return nil
			}
		case *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return nil // all of an older timeline was sent already
		case *pgproto3.ErrorResponse:
			return &Error{Class: classOfCode(message.Code), Doing: doing, Err: errors.New(oneLine(message.Message))}
		}
	}
}

// MakeSlot makes the host's slot on the primary anew, reserved. It must not be in use.
func (s *Source) MakeSlot(ctx context.Context, name string, exists bool) error {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	if err := validName(name); err != nil {
		return &Error{Class: Configuration, Doing: "make a slot", Err: err}
	}
	commands := []string{`CREATE_REPLICATION_SLOT "` + name + `" PHYSICAL RESERVE_WAL`}
	if exists {
		commands = append([]string{`DROP_REPLICATION_SLOT "` + name + `"`}, commands...)
	}
	for _, command := range commands {
		if _, err := s.upstream.conn.Exec(ctx, command).ReadAll(); err != nil {
			return classify(err, command+" at the primary")
		}
	}
	return nil
}

// secondary are the keywords that pg_rewind and pg_basebackup set themselves, or that must not be on a command line.
var secondary = regexp.MustCompile(`(^|\s)(password|dbname|application_name|replication)\s*=\s*('([^'\\]|\\.)*'|\S+)`)

// Conninfo checks a connection string of keywords, and gives what pg_rewind and pg_basebackup take on their command line:
// everything but the password, which goes into their environment.
func Conninfo(conninfo string) (arguments, password string, err error) {
	if isURI(conninfo) {
		return "", "", errors.New("primary_conninfo is a URI, which may hold a password anywhere: write it as keywords")
	}
	config, err := upstreamConfig(conninfo, physical)
	if err != nil {
		return "", "", err
	}
	return strings.TrimSpace(secondary.ReplaceAllString(conninfo, "")), config.Password, nil
}

// OpenSourceDatabase connects to the primary for SQL. Whether the replication user is let into a database is for its
// pg_hba.conf.
func OpenSourceDatabase(ctx context.Context, conninfo string) (*Source, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	conn, err := connectUpstream(ctx, conninfo, withDatabase)
	if err != nil {
		return nil, err
	}
	return &Source{&upstream{conn: conn}}, nil
}

// checkpointTimeout is for a checkpoint of a busy server.
const checkpointTimeout = 10 * time.Minute

// Checkpoint makes the primary's control file show its timeline, which pg_rewind reads there. A user that may not order
// a checkpoint waits for one.
func (s *Source) Checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	const doing = "a checkpoint on the primary"
	conn := s.upstream.conn
	if _, err := conn.Exec(ctx, "SET statement_timeout = 0").ReadAll(); err != nil {
		return classify(err, doing)
	}
	_, err := conn.Exec(ctx, "CHECKPOINT").ReadAll()
	if err == nil || ClassOf(classify(err, doing)) != Permission {
		return classify(err, doing)
	}
	for {
		row, err := s.upstream.row(ctx, sqlTimelineShown, doing)
		if err != nil || string(row[0]) == "t" {
			return err
		}
		select {
		case <-ctx.Done():
			return classify(ctx.Err(), doing)
		case <-time.After(time.Second):
		}
	}
}
