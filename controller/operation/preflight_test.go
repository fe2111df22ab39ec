package operation

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// named is a Pacemaker that calls this host by a name.
type named string

func (n named) LocalName(context.Context) (string, error)       { return string(n), nil }
func (n named) Tools(context.Context) (cib.Tools, error)        { return cib.Tools{Version: "3.0.0"}, nil }
func (n named) AgentVersion(_ context.Context, _ string) string { return "" }

type roles = map[string]model.Role
type unsettled = map[string]model.Unsettled

// trio is a cluster of three whose pm01 is the primary, as far as the agent says, on a host whose data folder is there.
type trio struct {
	data  string
	clone model.Clone
	off   string // the node that is unclean
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &trio{data: folder, clone: model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
		Parameters: map[string]string{
			"rep_mode": "sync", "node_list": "pm01 pm02 pm03", "pgdata": folder, "tmpdir": folder, slotParameter: "pgrex",
		},
		Roles: roles{"pm01": model.RolePromoted, "pm02": model.RoleUnpromoted, "pm03": model.RoleUnpromoted},
	}}
}

func (c *trio) Read(context.Context) (model.Cluster, error) {
	cluster := model.Cluster{Quorate: true, Clones: []model.Clone{c.clone}}
	for _, name := range []string{"pm01", "pm02", "pm03"} {
		n := model.Node{Name: name, Online: name != c.off, Unclean: name == c.off}
		if name == "pm01" {
			n.Transient = map[string]string{"pgsql-status": "PRI"}
			n.Permanent = map[string]string{"pgsql-data-status": "LATEST"}
		}
		cluster.Nodes = append(cluster.Nodes, n)
	}
	return cluster, nil
}

// on is an observer of a host whose server, if it is the primary, has a walsender for each of the others.
func (c *trio) on(node, called string) *controller.Observer {
	return &controller.Observer{Node: node, Clusters: c, Pacemaker: named(called), Connect: func(controller.Target) controller.Server {
		return primaryOf{slots: func() []model.Slot {
			return []model.Slot{
				{Name: "pgrex_pm02", Type: model.SlotPhysical, Active: true, ActivePID: 7},
				{Name: "pgrex_pm03", Type: model.SlotPhysical, Active: true, ActivePID: 8},
			}
		}}
	}}
}

// Trap 36: no operation acts under another host's name.
func TestTrap36NoOperationUnderAnotherName(t *testing.T) {
	c := newTrio(t)
	for _, variable := range []string{"CIB_file", "CIB_shadow"} {
		t.Setenv(variable, "")
	}
	for name, begin := range map[string]func(o *controller.Observer) error{
		"stop":   func(o *controller.Observer) error { _, err := (&Service{o}).Stop(t.Context(), false, true); return err },
		"start":  func(o *controller.Observer) error { _, err := (&Service{o}).Start(t.Context(), true); return err },
		"rejoin": func(o *controller.Observer) error { _, err := (&Rejoin{Observer: o}).Look(t.Context()); return err },
		"adopt":  func(o *controller.Observer) error { _, err := (&Handover{Observer: o}).Adopt(t.Context()); return err },
		"release": func(o *controller.Observer) error {
			_, err := (&Handover{Observer: o}).Release(t.Context())
			return err
		},
		"switchover": func(o *controller.Observer) error {
			_, err := (&Switchover{Observer: o}).Steps(t.Context())
			return err
		},
		"prune": func(o *controller.Observer) error { _, err := (&Archive{Observer: o}).Prune(t.Context()); return err },
	} {
		err := begin(c.on("pm01", "pm03"))
		if err == nil || !strings.Contains(err.Error(), "Pacemaker calls this host pm03, and pgrex takes it for pm01") {
			t.Errorf("%s: %v", name, err)
		}
	}
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

// Trap 46: what a refresh would forget is put right before the slots are handed over; otherwise nobody could tell afterwards that all
// is as before, and maintenance-mode would stay.
func TestTrap46NoHandoverWhileUnsettled(t *testing.T) {
	for _, why := range []model.Unsettled{model.UnsettledFailed, model.UnsettledBlocked, model.UnsettledStarting} {
		c := newTrio(t)
		c.clone.Unsettled = unsettled{"pm03": why}
		_, err := (&Handover{Observer: c.on("pm01", "pm01")}).Adopt(t.Context())
		if err == nil || !strings.Contains(err.Error(), "to Pacemaker the database on pm03 is "+string(why)) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if steps, err := (&Handover{Observer: newTrio(t).on("pm01", "pm01")}).Adopt(t.Context()); err != nil || len(steps) == 0 {
		t.Errorf("with nothing unsettled: %v, %v", steps, err)
	}
}

// Trap 46: a database is stopped when Pacemaker says so for certain, and not while it is being stopped, or was never looked at.
func TestTrap46Stopped(t *testing.T) {
	for name, test := range map[string]struct {
		roles     roles
		unsettled unsettled
		stopped   bool
	}{
		"stopped":        {roles{"pm01": "stopped"}, nil, true},
		"being stopped":  {roles{}, unsettled{"pm01": "stopping"}, false},
		"blocked":        {roles{"pm01": "unpromoted"}, unsettled{"pm01": "blocked"}, false},
		"nothing known":  {roles{}, nil, false},
		"runs":           {roles{"pm01": "unpromoted"}, nil, false},
		"others unclear": {roles{"pm01": "stopped"}, unsettled{"pm02": "failed"}, true},
	} {
		c := newTrio(t)
		c.clone.Roles, c.clone.Unsettled = test.roles, test.unsettled
		if err := (place{data: c.data}).stopped(t.Context(), c.on("pm01", "pm01")); (err == nil) != test.stopped {
			t.Errorf("%s: %v", name, err)
		}
	}
}
