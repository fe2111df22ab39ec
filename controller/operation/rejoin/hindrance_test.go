package rejoin

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
)

// Only a file that the primary may not read speaks against a rewind and a copy. That the primary could not say so in
// time, or at all, is a warning.
func TestUnreadableOrUnsure(t *testing.T) {
	t.Parallel()
	for code, blocks := range map[string]bool{"42501": true, "57014": false, "XX000": false, "": false} {
		s := fakes.Speaks{
			"SELECT pg_catalog.bool_and": {"t"}, "SET statement_timeout": {""}, "WITH RECURSIVE entry": {"ERROR", code},
		}
		if code == "" { // it falls silent
			delete(s, "WITH RECURSIVE entry")
		}
		c := &Case{Primary: "pm01", Place: datadir.Place{Data: t.TempDir()}}
		c.Conninfo, _ = s.At(t)
		if err := c.hindrances(t.Context()); err != nil {
			t.Fatalf("%q: %v", code, err)
		}
		warns := len(c.unsure) == 1 && strings.Contains(c.unsure[0], "look for files that the primary cannot read")
		if (c.Return.NoFiles != "") != blocks || warns == blocks {
			t.Errorf("%q: %q, unsure %q", code, c.Return.NoFiles, c.unsure)
		}
	}
}
