package service

import (
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
)

// asked asks a server of that kind as pm02's.
func asked(t *testing.T, s fakes.Speaks, change func(q *question)) (m other) {
	t.Helper()
	conninfo, address := s.At(t)
	q := question{local: oursHere().LocalData, conninfo: conninfo, member: "pm02"}
	q.here.Names, q.here.Self = map[string]string{"pm01": "pgrex_pm01", "pm02": "pgrex_pm02"}, "pm01"
	q.local.Segment = 16 << 20
	if change != nil {
		change(&q)
	}
	m.Host = "pm02"
	m.ask(t.Context(), q, address)
	return m
}

// stands answers what a standby on timeline 2 does, up to a position.
func stands(flushed string) fakes.Speaks {
	return fakes.Speaks{
		"IDENTIFY_SYSTEM": {"7", "2", flushed, "NULL"}, "READ_REPLICATION_SLOT": {"NULL", "NULL", "NULL"},
		"SHOW synchronized_standby_slots": {""}, "TIMELINE_HISTORY 2": {"00000002.history", "1\t0/100\tno recovery target\n"},
		"TIMELINE_HISTORY 3": {"ERROR", "58P01"},
	}
}

// Trap 48: a member whose WAL goes on into a segment that was never here has more than this host. Only what lies
// before the end here can have been removed.
func TestTrap48FurtherThanTheFilesHere(t *testing.T) {
	const end = 2 << 24
	for flushed, gone := range map[string]bool{"0/2000010": false, "0/2000000": true, "0/1800000": true} {
		m := asked(t, stands(flushed), func(q *question) { q.local.End = end })
		o := oursHere()
		o.End = end
		if m.Said == nil {
			t.Fatalf("%s: %s", flushed, m.Problem)
		}
		if got := o.judge(m); m.Said.Gone != gone || got.OK != gone {
			t.Errorf("%s: gone %t, %+v", flushed, m.Said.Gone, got)
		}
	}
}

// Trap 48: a server that lets this host in, and then fails or falls silent, runs: what the CIB says of a stopped member
// proves nothing. Another host's server at that address is no sign of the member.
func TestTrap48AnswersHalf(t *testing.T) {
	others := stands("0/180")
	others["READ_REPLICATION_SLOT"] = []string{"physical", "0/100", "2"}
	for name, test := range map[string]struct {
		s     fakes.Speaks
		heard bool
	}{
		"ends":             {fakes.Speaks{}, true},
		"ends later":       {fakes.Speaks{"IDENTIFY_SYSTEM": {"7", "2", "0/180", "NULL"}}, true},
		"another's server": {others, false},
	} {
		m := asked(t, test.s, nil)
		m.DataStatus, m.Node.Online = "DISCONNECT", true
		if got := oursHere().judge(m); m.Said != nil || m.Heard != test.heard || got.OK == test.heard {
			t.Errorf("%s: said %v, heard %t, %+v; %s", name, m.Said, m.Heard, got, m.Problem)
		}
	}
}

// Trap 48: a standby that was restarted while no host is the primary says how far it has replayed, and may have more.
// Where this host was not the last primary, its answer counts once it cannot have more.
func TestTrap48Replays(t *testing.T) {
	const received = "SELECT coalesce(pg_catalog.pg_last_wal_receive_lsn()"
	for name, test := range map[string]struct {
		adds    fakes.Speaks
		says    string // why it may have more
		trusted bool   // this host was the last primary
	}{
		"asked for more":             {adds: fakes.Speaks{received: {"0/180"}}},
		"asked from the segment on":  {adds: fakes.Speaks{received: {"0/100"}}},
		"has not asked for more":     {adds: fakes.Speaks{received: {"0/0"}}, says: "has not asked for more yet"},
		"more, of a newer timeline":  {adds: fakes.Speaks{received: {"0/1C0"}}, says: "it has received WAL up to 0/1C0"},
		"the last primary's":         {adds: fakes.Speaks{received: {"0/0"}}, trusted: true},
		"no database":                {adds: fakes.Speaks{"SHOW restore_command": {""}, "SHOW recovery_min_apply_delay": {"0"}, "SHOW max_standby_archive_delay": {"10ms"}}},
		"no database, delayed":       {adds: fakes.Speaks{"SHOW restore_command": {""}, "SHOW recovery_min_apply_delay": {"5min"}, "SHOW max_standby_archive_delay": {"0"}}, says: "recovery_min_apply_delay is 5min"},
		"no database, held up":       {adds: fakes.Speaks{"SHOW restore_command": {""}, "SHOW recovery_min_apply_delay": {"0"}, "SHOW max_standby_archive_delay": {"-1"}}, says: "max_standby_archive_delay is -1"},
		"no database, and it moves":  {adds: fakes.Speaks{"SHOW restore_command": {""}, "SHOW recovery_min_apply_delay": {"0"}, "SHOW max_standby_archive_delay": {"0"}, fakes.Moves: {}}, says: "it moves: it was at 0/181, and is at 0/182"},
		"no database, an archive":    {adds: fakes.Speaks{"SHOW restore_command": {"cp /archive/%f %p"}}, says: "it may be waiting for its restore_command (let the replication user into the database postgres"},
		"no database, and no answer": {adds: fakes.Speaks{}, says: "it does not answer"},
	} {
		s := stands("0/180")
		for begins, row := range test.adds {
			s[begins] = row
		}
		m := asked(t, s, func(q *question) { q.wary, q.watch = !test.trusted, 10*time.Millisecond })
		got := "it does not answer"
		if m.Said != nil {
			got = m.Said.Replays
		}
		if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %q, want %q; %s", name, got, test.says, m.Problem)
		}
	}
}

func TestHeldUp(t *testing.T) {
	for settings, want := range map[[2]string]time.Duration{
		{"0", "30s"}: 30 * time.Second, {"0", "0"}: 0, {"0", "1min"}: time.Minute, {"0", "500ms"}: time.Second / 2,
		{"0", "2min"}: -1, {"0", "1d"}: -1, {"0", "-1"}: -1, {"1s", "0"}: -1,
	} {
		if held, why := heldUp(settings[0], settings[1]); (why != "") != (want < 0) || why == "" && held != want {
			t.Errorf("%v: %s, %q", settings, held, why)
		}
	}
}
