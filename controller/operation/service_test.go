package operation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestFirst: a host is not the first to start where a rewind was begun, or nobody can tell how new its data are. Force does
// not help.
func TestFirst(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	server.Stop("fast")
	h := self{place: place{data: filepath.Join(server.Dir, "data"), tmp: t.TempDir(), bin: programsAsOwner(t, server)}}
	refused := func(why string) {
		t.Helper()
		if _, err := new(Service).first(t.Context(), h, true); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("not refused because %s: %v", why, err)
		}
	}
	if err := os.Mkdir(h.place.marker(), 0o700); err != nil {
		t.Fatal(err)
	}
	refused("a rewind was begun")
	if err := os.Remove(h.place.marker()); err != nil {
		t.Fatal(err)
	}
	wal := filepath.Join(h.place.data, "pg_wal")
	if err := os.Rename(wal, wal+"_away"); err != nil {
		t.Fatal(err)
	}
	refused("not known how new")
}
