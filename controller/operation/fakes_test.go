package operation

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
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

// fakeTools are Pacemaker's tools that only note what they are told, and fail where that begins with an option.
func fakeTools(t *testing.T, fails string) (ran func() string) {
	t.Helper()
	folder := t.TempDir()
	log := filepath.Join(folder, "log")
	for _, tool := range []string{"crm_resource", "crm_attribute"} {
		script := "#!/bin/sh\necho " + tool + " \"$@\" >>" + log + "\ncase $1 in " + fails + ") exit 1;; esac\n"
		if err := os.WriteFile(filepath.Join(folder, tool), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
}

// clusterOf reads a cluster that may change.
type clusterOf func() model.Cluster

func (c clusterOf) Read(context.Context) (model.Cluster, error) { return c(), nil }

// primaryOf is a primary with the slots that it has just now.
type primaryOf struct {
	controller.Server
	slots func() []model.Slot
}

func (p primaryOf) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerUp, Version: 150000, WALSegmentSize: 16 << 20, Slots: p.slots()}, nil
}

// programsAsOwner gives a folder of PostgreSQL's programs that run as the user that the test's servers run as.
func programsAsOwner(t *testing.T, server *pgserver.Server) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"pg_ctl", "pg_controldata", "pg_waldump"} {
		path := server.Command(t.Context(), name).Path
		script := "#!/bin/sh\nexec " + path + " \"$@\"\n"
		if os.Geteuid() == 0 {
			script = "#!/bin/sh\ncd / && exec runuser -u postgres -- " + path + " \"$@\"\n"
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}
