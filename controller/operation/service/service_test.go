package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// TestFirst: a host is not the first to start where a rewind was begun, or nobody can tell how new its data are. Force
// does not help.
func TestFirst(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	server.Stop("fast")
	h := self{place: datadir.Place{Data: filepath.Join(server.Dir, "data"), Tmp: t.TempDir(), Bin: fakes.Programs(t, server)}}
	refused := func(why string) {
		t.Helper()
		if _, err := new(Service).first(t.Context(), h, true); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("not refused because %s: %v", why, err)
		}
	}
	if err := os.Mkdir(h.place.Marker(), 0o700); err != nil {
		t.Fatal(err)
	}
	refused("a rewind is unfinished")
	if err := os.Remove(h.place.Marker()); err != nil {
		t.Fatal(err)
	}
	wal := filepath.Join(h.place.Data, "pg_wal")
	if err := os.Rename(wal, wal+"_away"); err != nil {
		t.Fatal(err)
	}
	refused("not known how new")
}

// Trap 48: a host that may be the primary is stopped only by force while others run, or may run; and so it is where
// Pacemaker has seen it fail, or acts on it.
func TestTrap48StopOfWhatMayBeThePrimary(t *testing.T) {
	for name, test := range map[string]struct {
		roles     fakes.Roles
		unsettled fakes.Unsettled
		refused   string // by which hosts
	}{
		"settled":           {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "stopped"}, nil, "its standbys run (pm02)"},
		"the last":          {fakes.Roles{"pm01": "promoted", "pm02": "stopped", "pm03": "stopped"}, nil, ""},
		"failed":            {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted"}, fakes.Unsettled{"pm01": "failed"}, "its standbys run (pm02)"},
		"blocked":           {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted"}, fakes.Unsettled{"pm01": "blocked"}, "its standbys run (pm02)"},
		"demoting":          {fakes.Roles{"pm02": "unpromoted"}, fakes.Unsettled{"pm01": "demoting"}, "its standbys run (pm02)"},
		"promoting":         {fakes.Roles{"pm02": "unpromoted", "pm03": "unpromoted"}, fakes.Unsettled{"pm01": "promoting"}, "its standbys run (pm02, pm03)"},
		"a standby failed":  {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted"}, fakes.Unsettled{"pm02": "failed"}, "its standbys run (pm02)"},
		"a standby starts":  {fakes.Roles{"pm01": "promoted", "pm03": "stopped"}, fakes.Unsettled{"pm02": "starting"}, "its standbys run (pm02)"},
		"a standby, failed": {fakes.Roles{"pm01": "unpromoted", "pm02": "promoted"}, fakes.Unsettled{"pm01": "failed"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := fakes.NewTrio(t)
			c.Clone.Roles, c.Clone.Unsettled = test.roles, test.unsettled
			_, err := (&Service{Observer: c.On("pm01", "pm01")}).Stop(t.Context(), false, false)
			refused := err != nil && strings.Contains(err.Error(), "so a stop would be a failover")
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
		c := fakes.NewTrio(t)
		c.Clone.Roles, c.Clone.Unsettled = fakes.Roles{"pm01": "promoted", "pm02": "stopped", "pm03": "stopped"}, fakes.Unsettled{"pm01": why}
		if why == model.UnsettledPromoted || why == model.UnsettledUnknown {
			c.Off = "pm01"
			delete(c.Clone.Roles, "pm01")
		}
		for _, force := range []bool{false, true} {
			_, err := (&Service{Observer: c.On("pm02", "pm02")}).Start(t.Context(), force)
			if err == nil || !strings.Contains(err.Error(), "the signs of the primary do not agree yet (pm01: ") {
				t.Errorf("%s, --force=%t: %v", name, force, err)
			}
		}
		if err := (&Service{Observer: c.On("pm02", "pm02")}).noPrimary(t.Context()); err == nil {
			t.Errorf("%s: there is no primary", name)
		}
	}
}
