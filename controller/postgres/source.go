package postgres

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgrex/pgrex/model"
)

// ErrNoWAL says that the primary no longer has the WAL that it was asked for.
var ErrNoWAL = errors.New("the primary no longer has it")

const codeNoFile = "58P01" // undefined_file

// Source is the primary as a host sees it that is to come back: over the replication protocol, with the credentials of the
// host's own primary_conninfo. Its methods give an *Error, without anything of the connection string but host, port and
// user.
type Source struct{ upstream *upstream }

// OpenSource connects to the primary.
func OpenSource(ctx context.Context, conninfo string) (*Source, error) {
	return OpenStandby(ctx, conninfo, "")
}

// OpenStandby connects to a standby at its own address, with the credentials that are used for the primary.
func OpenStandby(ctx context.Context, conninfo, address string) (*Source, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	u, err := openUpstream(ctx, conninfo, address)
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

// Identify asks who the server is, and for slots.
func (s *Source) Identify(ctx context.Context, slots ...string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	u, err := s.upstream.identify(ctx)
	for _, name := range slots {
		if err != nil {
			break
		}
		var answer model.UpstreamSlot
		answer, err = s.upstream.slot(ctx, name)
		u.Slots = append(u.Slots, answer)
	}
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

// Knows reports whether the server has the history file of a timeline. A promotion makes that file before anything
// else.
func (s *Source) Knows(ctx context.Context, timeline uint32) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	_, err := s.upstream.row(ctx, "TIMELINE_HISTORY "+strconv.Itoa(int(timeline)), "TIMELINE_HISTORY at the server")
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == codeNoFile {
		return false, nil
	}
	return err == nil, err
}

// Received asks a standby's database for the end of the WAL that it has received since its start. It is 0 until the
// standby first asks a primary for WAL, which it does only once it has replayed all that it had (RequestXLogStreaming).
func (s *Source) Received(ctx context.Context) (model.LSN, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	const doing = "ask the standby for the end of the WAL that it has received"
	row, err := s.upstream.row(ctx, sqlReceived, doing)
	if err != nil {
		return 0, err
	}
	received, err := model.ParseLSN(string(row[0]))
	if err != nil {
		return 0, &Error{Class: Unknown, Doing: doing, Err: err}
	}
	return received, nil
}

// Setting asks for a setting, as the server prints it (SHOW).
func (s *Source) Setting(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	row, err := s.upstream.row(ctx, "SHOW "+name, "SHOW "+name+" at the server")
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// Answered reports whether an error comes from a server. Then a server runs there, but does not let pgrex in.
func Answered(err error) bool {
	_, ok := errors.AsType[*pgconn.PgError](err)
	return ok
}

// Has tells whether the primary can send WAL of a timeline from a position on: no error if so, or why not. It begins to
// replicate there, without a slot, and ends at the first WAL that comes, of which there must be some; or, to measure the
// rate, goes on to a position that the primary has flushed, for a short while. The rate is in bytes a second, 0 if there was
// too little. The connection is of no further use then.
func (s *Source) Has(ctx context.Context, from model.LSN, timeline uint32, measureTo model.LSN) (rate uint64, err error) {
	var m meter
	err = s.stream(ctx, from, timeline, func(begin model.LSN, wal []byte) bool { return m.enough(begin, wal, measureTo) })
	return m.rate(), err
}

// WAL reads WAL of a timeline, up to a position that the primary has flushed; less if the timeline ends before. For errors and
// the connection what Has says holds.
func (s *Source) WAL(ctx context.Context, from, to model.LSN, timeline uint32) ([]byte, error) {
	var all []byte
	length := from.BytesTo(to)
	err := s.stream(ctx, from, timeline, func(_ model.LSN, wal []byte) bool {
		all = append(all, wal...)
		return uint64(len(all)) >= length
	})
	return all[:min(uint64(len(all)), length)], err
}

// stream replicates until enough has come, or all of an older timeline.
func (s *Source) stream(ctx context.Context, from model.LSN, timeline uint32, enough func(begin model.LSN, wal []byte) bool) error {
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
			if len(message.Data) > walHeader && message.Data[0] == 'w' &&
				enough(model.LSN(binary.BigEndian.Uint64(message.Data[1:])), message.Data[walHeader:]) {
				return nil
			}
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return nil // all of an older timeline was sent already
		case *pgproto3.ErrorResponse:
			err = errors.New(oneLine(message.Message))
			if message.Code == codeNoFile {
				err = fmt.Errorf("%w: %w", ErrNoWAL, err)
			}
			return &Error{Class: classOfCode(message.Code), Doing: doing, Err: err}
		}
	}
}

// ErrSquatted says that a slot of this host's name is not one for a standby.
var ErrSquatted = errors.New("there is a logical slot of that name, which somebody else needs: drop that one, or set " + model.MetaSlotPrefix)

// walHeader is what comes before the WAL in a message: its kind, where the WAL begins and ends, and the time.
const walHeader = 1 + 3*8

// meter measures the rate at which WAL comes.
type meter struct {
	begin, last time.Time // of the first message, and of the last
	bytes       uint64    // since then, the first message left out
}

// measuring is how long the rate is measured at most. It has to be enough for several messages, of 128 kB each, over a
// slow link.
const measuring = time.Second

// enough counts what came, and tells whether that will do.
func (m *meter) enough(begin model.LSN, wal []byte, to model.LSN) bool {
	const much = 64 << 20
	m.last = time.Now()
	length := uint64(len(wal))
	if m.begin.IsZero() {
		m.begin = m.last
	} else {
		m.bytes += length
	}
	return begin+model.LSN(length) >= to || m.bytes >= much || m.last.Sub(m.begin) >= measuring
}

// rate is 0 if little came in a short time. That little may have waited in a buffer.
func (m *meter) rate() uint64 {
	const least = 1 << 20
	took := m.last.Sub(m.begin)
	if m.bytes < least && took < measuring || took == 0 {
		return 0
	}
	return uint64(float64(m.bytes) / took.Seconds())
}

// MakeSlot makes the host's slot on the primary anew, reserved, unless it is reserved already. It must not be in use. A logical
// slot of that name is another's, and stays.
func (s *Source) MakeSlot(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	if err := validName(name); err != nil {
		return &Error{Class: Configuration, Doing: "make a slot", Err: err}
	}
	seen, err := s.upstream.slot(ctx, name)
	switch {
	case err != nil || seen.RestartLSN.IsValid():
		return err
	case seen.Logical:
		return &Error{Class: Configuration, Doing: "make the slot " + name + " at the primary", Err: ErrSquatted}
	}
	commands := []string{`CREATE_REPLICATION_SLOT "` + name + `" PHYSICAL RESERVE_WAL`}
	if seen.Exists {
		commands = append([]string{`DROP_REPLICATION_SLOT "` + name + `"`}, commands...)
	}
	for _, command := range commands {
		_, err := s.upstream.conn.Exec(ctx, command).ReadAll()
		// The primary's own pgrex may have been faster.
		if err = classify(err, command+" at the primary"); err != nil && ClassOf(err) != AlreadyDone {
			return err
		}
	}
	return nil
}

// OpenSourceDatabase connects to the primary for SQL. Whether the replication user is let into a database is for its
// pg_hba.conf.
func OpenSourceDatabase(ctx context.Context, conninfo string) (*Source, error) {
	return OpenStandbyDatabase(ctx, conninfo, "")
}

// OpenStandbyDatabase does the same for a standby at its own address.
func OpenStandbyDatabase(ctx context.Context, conninfo, address string) (*Source, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	conn, err := connectUpstream(ctx, conninfo, address, withDatabase)
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
	if _, err := conn.Exec(ctx, sqlNoTimeout).ReadAll(); err != nil {
		return classify(err, doing)
	}
	_, err := conn.Exec(ctx, sqlCheckpoint).ReadAll()
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

// filesTimeout is for looking at all of a server's files. The server gives up earlier (sqlFilesTimeout).
const filesTimeout = time.Minute

// Unreadable returns the server's error about a file of its data folder that it cannot read. pg_rewind and
// pg_basebackup would fail at that file. It is "" if there is no such file, or if this user may not ask.
func (s *Source) Unreadable(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	const doing = "look for files that the primary cannot read"
	if row, err := s.upstream.row(ctx, sqlMayReadFiles, doing); err != nil || string(row[0]) != "t" {
		return "", err
	}
	if _, err := s.upstream.conn.Exec(ctx, sqlFilesTimeout).ReadAll(); err != nil {
		return "", classify(err, doing)
	}
	_, err := s.upstream.row(ctx, sqlReadFiles, doing)
	if ClassOf(err) == Permission {
		return err.Error(), nil
	}
	return "", err
}

// HasFile returns the first of some names that the primary has in its data folder; "" if it has none, or if this user
// may not ask.
func (s *Source) HasFile(ctx context.Context, names []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	const doing = "look for files of the primary"
	if row, err := s.upstream.row(ctx, sqlMayReadFiles, doing); err != nil || string(row[0]) != "t" {
		return "", err
	}
	if len(names) == 0 {
		return "", nil
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteLiteral(name)
	}
	row, err := s.upstream.row(ctx, fmt.Sprintf(sqlFirstFile, strings.Join(quoted, ", ")), doing)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// FileSizes are the sizes of the primary's files as pg_rewind looks at them, in bytes.
type FileSizes struct {
	Whole     uint64            `json:"whole"`     // of files that it copies whole
	Databases map[string]uint64 `json:"databases"` // of relations, by the folder of their database in the data folder
}

// FileSizes measures the primary's files. It is nil if this user may not ask.
func (s *Source) FileSizes(ctx context.Context) (*FileSizes, error) {
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	const doing = "measure the files of the primary"
	if row, err := s.upstream.row(ctx, sqlMayReadFiles, doing); err != nil || string(row[0]) != "t" {
		return nil, err
	}
	if _, err := s.upstream.conn.Exec(ctx, sqlFilesTimeout).ReadAll(); err != nil {
		return nil, classify(err, doing)
	}
	row, err := s.upstream.row(ctx, sqlFiles, doing)
	if err != nil {
		return nil, err
	}
	var f FileSizes
	if err := json.Unmarshal(row[0], &f); err != nil {
		return nil, &Error{Class: Unknown, Doing: doing, Err: err}
	}
	return &f, nil
}
