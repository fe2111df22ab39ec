package postgres_test

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestOperate: a checkpoint and a restartpoint move the redo; a commit is taken by a primary and refused by a standby.
func TestOperate(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	for _, server := range []*pgserver.Server{primary, standby} {
		a := adapter(t, server)
		before := observe(t, a).Redo
		primary.WriteWAL(1)
		if server == standby {
			primary.SQL("CHECKPOINT")
			end := primary.SQL("SELECT pg_current_wal_lsn()")
			standby.Await("all is replayed", func() bool { return standby.SQL("SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t" })
		}
		if err := a.Checkpoint(t.Context()); err != nil {
			t.Errorf("checkpoint: %v", err)
		}
		if after := observe(t, a).Redo; after <= before {
			t.Errorf("the redo was %s, and is %s", before, after)
		}
	}
	if err := adapter(t, primary).Commit(t.Context()); err != nil {
		t.Errorf("commit on the primary: %v", err)
	}
	if err := adapter(t, standby).Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "during recovery") {
		t.Errorf("commit on a standby: %v", err)
	}
}
