package datadir_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestEndAmongZeros: PostgreSQL makes segments for WAL to come, which are all zeros until they are written to.
// Whichever file the file system lists first, the end of the WAL is found.
func TestEndAmongZeros(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	server.WriteWAL(1)
	end, err := model.ParseLSN(server.SQL("SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	server.Stop("immediate")
	p := datadir.Place{Data: filepath.Join(server.Dir, "data"), Bin: fakes.Programs(t, server)}
	wal := filepath.Join(p.Data, "pg_wal")
	owner, err := os.Stat(wal)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(40) { // one of them is listed first
		path := filepath.Join(wal, datadir.SegmentName(1, 100+n, 16<<20))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 16<<20); err != nil {
			t.Fatal(err)
		}
		stat := owner.Sys().(*syscall.Stat_t)
		if err := os.Chown(path, int(stat.Uid), int(stat.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := p.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	local, err := p.WAL(t.Context(), c)
	if err != nil || local.End < end || local.End > end+1<<20 { // the server itself writes now and then
		t.Errorf("the WAL ends at %s, and was written up to %s: %v", local.End, end, err)
	}
}
