package postgres_test

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestArchive: how archiving goes: nothing is archived, it works, it fails and WAL waits, and a standby that archives
// nothing.
func TestArchive(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	standby := primary.Standby()
	a := adapter(t, primary)
	if got := observe(t, a).Archive; got != nil {
		t.Errorf("archive_mode is off, and archiving is said to be %+v", got)
	}
	primary.Configure("archive_mode = on", "archive_command = 'true'")
	primary.Stop("fast")
	primary.Start()
	archived := func(is func(model.Archive) bool) func() bool {
		return func() bool {
			got := observe(t, a).Archive
			return got != nil && is(*got)
		}
	}
	primary.SQL("SELECT pg_switch_wal()")
	primary.Await("it works", archived(func(got model.Archive) bool { return got.Waiting == 0 && !got.Failing }))
	primary.Configure("archive_command = 'false'")
	for range 3 {
		primary.SQL("SELECT pg_logical_emit_message(true, '', 'x')")
		primary.SQL("SELECT pg_switch_wal()")
	}
	primary.Await("it fails, and three segments wait", archived(func(got model.Archive) bool {
		return got.Failing && got.Waiting == 3*16*model.MiB && len(got.FailedWAL) == 24 && got.Since > 0
	}))
	primary.Configure("archive_command = 'true'")
	primary.SQL("SELECT pg_switch_wal()")
	primary.Await("it works again", archived(func(got model.Archive) bool { return got.Waiting == 0 && !got.Failing }))

	standby.Configure("archive_mode = on", "archive_command = 'false'")
	standby.Stop("fast")
	standby.Start()
	if got := observe(t, adapter(t, standby)).Archive; got != nil {
		t.Errorf("a standby archives nothing with archive_mode = on, and archiving is said to be %+v", got)
	}
}

// TestSlowListing: with very much WAL its listing takes longer than a look may. All else is seen, at once and in
// time, and
// why the WAL is not known is said.
func TestSlowListing(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "archive_mode = on", "archive_command = 'true'")
	a := adapter(t, server)
	// No function of the server's own can be made slow, but what is asked beside them.
	server.SQL(`SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_stat_archiver AS
		SELECT s.archived_count, s.last_archived_wal, s.last_archived_time, s.failed_count, s.last_failed_wal, s.last_failed_time, s.stats_reset
		FROM pg_stat_get_archiver() AS s (archived_count, last_archived_wal, last_archived_time, failed_count, last_failed_wal,
			last_failed_time, stats_reset), LATERAL (SELECT s.archived_count FROM pg_sleep(5)) AS slow`)
	for range 3 {
		seen := observe(t, a)
		if seen.State != model.ServerUp || seen.SystemID == "" || seen.WALSpace != nil || !strings.Contains(seen.WALProblem, "statement timeout") {
			t.Errorf("%s, %q", seen.State, seen.WALProblem)
		}
	}
	if n := server.SQL("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrex'"); n != "1" {
		t.Errorf("%s sessions", n)
	}
}
