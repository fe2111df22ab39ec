package postgres_test

import (
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
