package fakes

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

// LocalName and the others implement the controller's Pacemaker.
func (n named) LocalName(context.Context) (string, error)       { return string(n), nil }
func (n named) Tools(context.Context) (cib.Tools, error)        { return cib.Tools{Version: "3.0.0"}, nil }
func (n named) AgentVersion(_ context.Context, _ string) string { return "" }

// Roles are what Pacemaker says for certain of a clone.
type Roles = map[string]model.Role

// Unsettled are the instances of which it says nothing for certain, and why.
type Unsettled = map[string]model.Unsettled

// Trio is a cluster of three whose pm01 is the primary, as far as the agent says, on a host whose data folder is there.
type Trio struct {
	Data    string
	Clone   model.Clone
	Off     string // the node that is offline and unclean
	Standby string // the node in Pacemaker's standby mode
}

// NewTrio makes a trio in which everything is as it should be.
func NewTrio(t *testing.T) *Trio {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Trio{Data: folder, Clone: model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
		Parameters: map[string]string{
			"rep_mode": "sync", "node_list": "pm01 pm02 pm03", "pgdata": folder, "tmpdir": folder, "replication_slot_name": "pgrex",
		},
		Roles: Roles{"pm01": model.RolePromoted, "pm02": model.RoleUnpromoted, "pm03": model.RoleUnpromoted},
	}}
}

// Read implements the controller's reader of the cluster.
func (c *Trio) Read(context.Context) (model.Cluster, error) {
	cluster := model.Cluster{Quorate: true, DC: "pm01", Clones: []model.Clone{c.Clone}}
	for _, name := range []string{"pm01", "pm02", "pm03"} {
		n := model.Node{Name: name, Online: name != c.Off, Unclean: name == c.Off, Standby: name == c.Standby}
		if name == "pm01" {
			n.Transient = map[string]string{"pgsql-status": "PRI"}
			n.Permanent = map[string]string{"pgsql-data-status": "LATEST"}
		}
		cluster.Nodes = append(cluster.Nodes, n)
	}
	return cluster, nil
}

// On is an observer of a host whose server, if it is the primary, has a walsender for each of the others.
func (c *Trio) On(node, called string) *controller.Observer {
	return &controller.Observer{Node: node, Clusters: c, Pacemaker: named(called), Connect: func(controller.Target) controller.Server {
		return Primary{Slots: func() []model.Slot {
			return []model.Slot{
				{Name: "pgrex_pm02", Type: model.SlotPhysical, Active: true, ActivePID: 7},
				{Name: "pgrex_pm03", Type: model.SlotPhysical, Active: true, ActivePID: 8},
			}
		}}
	}}
}

// Tools are Pacemaker's tools that only note what they are told (Typed), and fail where that begins with an option.
func Tools(t *testing.T, fails string) (ran func() string) {
	t.Helper()
	folder := t.TempDir()
	log := filepath.Join(folder, "log")
	for _, tool := range []string{"crm_resource", "crm_attribute", "cibadmin"} {
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

// ClusterOf reads a cluster that may change.
type ClusterOf func() model.Cluster

// Read implements the controller's reader of the cluster.
func (c ClusterOf) Read(context.Context) (model.Cluster, error) { return c(), nil }

// Primary is a primary with the slots that it has just now.
type Primary struct {
	controller.Server
	Slots func() []model.Slot
}

// Observe implements the controller's server.
func (p Primary) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerUp, Version: 150000, WALSegmentSize: 16 << 20, Slots: p.Slots()}, nil
}

// Programs gives a folder of PostgreSQL's programs that run as the user that the test's servers run as.
func Programs(t *testing.T, server *pgserver.Server) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"pg_ctl", "pg_controldata", "pg_waldump", "postgres"} {
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
