package operation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
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

// Trap 48: a host that may be the primary is stopped only by force while others run, or may run; and so it is where Pacemaker has
// seen it fail, or acts on it.
func TestTrap48StopOfWhatMayBeThePrimary(t *testing.T) {
	for name, test := range map[string]struct {
		roles     roles
		unsettled unsettled
		refused   string // by which hosts
	}{
		"settled":           {roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "stopped"}, nil, "pm02 would see it fail"},
		"the last":          {roles{"pm01": "promoted", "pm02": "stopped", "pm03": "stopped"}, nil, ""},
		"failed":            {roles{"pm01": "promoted", "pm02": "unpromoted"}, unsettled{"pm01": "failed"}, "pm02 would see it fail"},
		"blocked":           {roles{"pm01": "promoted", "pm02": "unpromoted"}, unsettled{"pm01": "blocked"}, "pm02 would see it fail"},
		"demoting":          {roles{"pm02": "unpromoted"}, unsettled{"pm01": "demoting"}, "pm02 would see it fail"},
		"promoting":         {roles{"pm02": "unpromoted", "pm03": "unpromoted"}, unsettled{"pm01": "promoting"}, "pm02, pm03 would see it fail"},
		"a standby failed":  {roles{"pm01": "promoted", "pm02": "unpromoted"}, unsettled{"pm02": "failed"}, "pm02 would see it fail"},
		"a standby starts":  {roles{"pm01": "promoted", "pm03": "stopped"}, unsettled{"pm02": "starting"}, "pm02 would see it fail"},
		"a standby, failed": {roles{"pm01": "unpromoted", "pm02": "promoted"}, unsettled{"pm01": "failed"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t)
			c.clone.Roles, c.clone.Unsettled = test.roles, test.unsettled
			_, err := (&Service{c.on("pm01", "pm01")}).Stop(t.Context(), false, false)
			refused := err != nil && strings.Contains(err.Error(), "would see it fail")
			if refused != (test.refused != "") || refused && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

// Trap 48: no host starts as the primary, not even by force, while another one may be it.
func TestTrap48NoStartBesideWhatMayBeThePrimary(t *testing.T) {
	for name, why := range map[string]model.Unsettled{
		"unclean": "promoted", "unclean, and nobody knows": "unknown", "failed": "failed", "blocked": "blocked",
		"being demoted": "demoting", "being promoted": "promoting",
	} {
		c := newTrio(t)
		c.clone.Roles, c.clone.Unsettled = roles{"pm01": "promoted", "pm02": "stopped", "pm03": "stopped"}, unsettled{"pm01": why}
		if why == model.UnsettledPromoted || why == model.UnsettledUnknown {
			c.off = "pm01"
			delete(c.clone.Roles, "pm01")
		}
		for _, force := range []bool{false, true} {
			_, err := (&Service{c.on("pm02", "pm02")}).Start(t.Context(), force)
			if err == nil || !strings.Contains(err.Error(), "the signs of the primary do not agree yet (pm01: ") {
				t.Errorf("%s, --force=%t: %v", name, force, err)
			}
		}
		if err := (&Service{c.on("pm02", "pm02")}).noPrimary(t.Context()); err == nil {
			t.Errorf("%s: there is no primary", name)
		}
	}
}
