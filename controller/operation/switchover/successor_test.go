package switchover

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// whoOf is a look at a cluster without nodes.
func whoOf(clone model.Clone, nodes ...model.Node) reconcile.Who {
	w := reconcile.Who{Input: reconcile.Input{Cluster: &model.Cluster{Nodes: nodes}}, Clone: clone}
	w.Policy, _ = model.PolicyOf(clone)
	w.Names = w.Policy.SlotNames()
	return w
}

// healthy is a cluster of three whose pm01 is the primary.
func healthy(mode string) candidates {
	status := map[string]string{"pm01": "LATEST", "pm02": "STREAMING|SYNC", "pm03": "STREAMING|POTENTIAL"}
	sync := map[string]string{"pm02": "sync", "pm03": "potential"}
	if mode == "async" {
		status["pm02"], status["pm03"] = "STREAMING|ASYNC", "STREAMING|ASYNC"
		sync["pm02"], sync["pm03"] = "async", "async"
	}
	s := candidates{Who: whoOf(model.Clone{
		ID: "msPostgresql", Primitive: "pgsql", Managed: true,
		Parameters: map[string]string{"node_list": "pm01 pm02 PM03", "rep_mode": mode},
		Roles:      map[string]model.Role{"pm01": model.RolePromoted, "pm02": model.RoleUnpromoted, "pm03": model.RoleUnpromoted},
	})}
	s.Primary = "pm01"
	for _, host := range []string{"pm01", "pm02", "pm03"} {
		s.Cluster.Nodes = append(s.Cluster.Nodes, model.Node{
			Name: host, Online: true, Permanent: map[string]string{"pgsql-data-status": status[host]}, Transient: map[string]string{},
		})
		if host != "pm01" {
			s.Standbys = append(s.Standbys, model.Replication{Name: host, State: "streaming", SyncState: sync[host], Address: "192.168.77.12"})
		}
	}
	return s
}

func TestSuccessor(t *testing.T) {
	pm01, pm02, pm03 := 0, 1, 2
	for _, test := range []struct {
		name, mode, to string
		change         func(s *candidates)
		want           string // the node, or what the error says
	}{
		{name: "the synchronous one", mode: "sync", want: "pm02"},
		{name: "asked for", mode: "async", to: "PM03", want: "pm03"},
		{name: "the first that can", mode: "async", change: func(s *candidates) { s.Cluster.Nodes[pm02].Standby = true }, want: "pm03"},
		{name: "none can", mode: "sync", change: func(s *candidates) { s.Cluster.Nodes[pm02].Online = false }, want: "pm02 is offline, pm03 is not the synchronous"},
		{name: "potential", mode: "sync", to: "pm03", want: "not the synchronous standby (potential)"},
		{name: "no member", mode: "sync", to: "pm04", want: "not in the agent's node_list: pm01, pm02, pm03"},
		{name: "no node", mode: "async", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes = s.Cluster.Nodes[:1] }, want: "pm02 is not a node"},
		{name: "the primary", mode: "sync", to: "Pm01", want: "pm01 is the primary already"},
		{name: "standby", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm02].Standby = true }, want: "in standby"},
		{name: "maintenance", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm02].Maintenance = true }, want: "pm02 is in maintenance"},
		{name: "the primary's maintenance", mode: "sync", change: func(s *candidates) { s.Cluster.Nodes[pm01].Maintenance = true }, want: "primary pm01 is in maintenance"},
		{name: "the primary's standby", mode: "sync", change: func(s *candidates) { s.Cluster.Nodes[pm01].Standby = true }, want: "primary pm01 is in standby"},
		{name: "somebody joins", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm03].Pending = true }, want: "pm03 is joining or leaving"},
		{name: "somebody is to be fenced", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm03].Unclean = true }, want: "pm03 is joining or leaving"},
		{name: "stopped", mode: "sync", to: "pm02", change: func(s *candidates) { s.Clone.Roles["pm02"] = model.RoleStopped }, want: "the database on pm02 is stopped"},
		{name: "unknown", mode: "sync", to: "pm02", change: func(s *candidates) { delete(s.Clone.Roles, "pm02") }, want: "does not know"},
		{name: "unsettled", mode: "sync", to: "pm02", want: "the database on pm02 is blocked", change: func(s *candidates) {
			s.Clone.Unsettled = map[string]model.Unsettled{"pm02": model.UnsettledBlocked}
		}},
		{name: "failed", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm02].Transient["fail-count-pgsql#start_0"] = "INFINITY" }, want: "--cleanup --resource pgsql --node pm02"},
		{name: "the primary failed", mode: "sync", to: "pm02", change: func(s *candidates) { s.Cluster.Nodes[pm01].Transient["fail-count-pgsql#monitor_3000"] = "1" }, want: "--node pm01"},
		{name: "another resource failed", mode: "sync", want: "pm02", change: func(s *candidates) {
			s.Cluster.Nodes[pm02].Transient["fail-count-pgsql-vip#start_0"] = "1"
			s.Cluster.Nodes[pm02].Transient["fail-count-pgsql#start_0"] = "0"
		}},
		{name: "left by crm_resource", mode: "sync", want: "crm_resource --clear --resource msPostgresql", change: func(s *candidates) {
			s.Clone.Locations = []model.Location{{ID: "cli-prefer-msPostgresql", Node: "pm01", Score: "INFINITY"}}
		}},
		{name: "kept away", mode: "sync", to: "pm02", want: "the constraint never keeps", change: func(s *candidates) {
			s.Clone.Locations = []model.Location{{ID: "never", Node: "pm02", Role: "Master", Score: "-INFINITY"}}
		}},
		{name: "kept stopped", mode: "sync", to: "pm02", want: "pm02 is kept stopped by pgrex: type there sudo pgrex start", change: func(s *candidates) {
			s.Clone.Locations = []model.Location{{ID: "pgrex-stop-pgsql-pm02", Node: "pm02", Score: "-INFINITY"}}
		}},
		{name: "the primary is being stopped", mode: "sync", want: "primary pm01 is being stopped", change: func(s *candidates) {
			s.Clone.Locations = []model.Location{{ID: "pgrex-stop-pgsql-pm01", Node: "pm01", Score: "-INFINITY"}}
		}},
		{name: "preferred", mode: "sync", to: "pm02", want: "pm02", change: func(s *candidates) {
			s.Clone.Locations = []model.Location{{ID: "rather", Node: "pm02", Score: "100"}}
		}},
		{name: "no stream", mode: "sync", to: "pm02", change: func(s *candidates) { s.Standbys = s.Standbys[1:] }, want: "pm02 does not stream"},
		{name: "catches up", mode: "sync", to: "pm02", change: func(s *candidates) { s.Standbys[0].State = "catchup" }, want: "its state is catchup"},
		{name: "behind", mode: "sync", to: "pm02", change: func(s *candidates) { s.Standbys[0].Behind = maxBehind + 1 }, want: "to replay yet"},
		{name: "nearly there", mode: "sync", to: "pm02", change: func(s *candidates) { s.Standbys[0].Behind = maxBehind }, want: "pm02"},
		{name: "no address", mode: "sync", to: "pm02", change: func(s *candidates) { s.Standbys[0].Address = "" }, want: "unix socket"},
		{name: "the agent has not seen it yet", mode: "sync", to: "pm02", want: `its pgsql-data-status is "DISCONNECT"`, change: func(s *candidates) {
			s.Cluster.Nodes[pm02].Permanent["pgsql-data-status"] = "DISCONNECT"
		}},
		{name: "async under sync", mode: "sync", to: "pm02", want: "would not promote pm02", change: func(s *candidates) {
			s.Cluster.Nodes[pm02].Permanent["pgsql-data-status"] = "STREAMING|ASYNC"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := healthy(test.mode)
			if test.change != nil {
				test.change(&s)
			}
			node, err := s.successor(test.to)
			if err == nil && node != test.want || err != nil && (len(test.want) == 4 || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%q, %v; wanted %q", node, err, test.want)
			}
		})
	}
}

func TestMissingSlots(t *testing.T) {
	w := whoOf(model.Clone{Parameters: map[string]string{"node_list": "pm01 pm02 pm03"}})
	said := model.Upstream{Slots: []model.UpstreamSlot{
		{Name: "pgrex_pm01", Exists: true, RestartLSN: 0x1000000}, {Name: "pgrex_pm02"}, {Name: "pgrex_pm03", Exists: true},
	}}
	if missing := missingSlots(w, "PM02", said); strings.Join(missing, " ") != "pgrex_pm03" {
		t.Errorf("missing: %v", missing)
	}
	if missing := missingSlots(w, "pm02", model.Upstream{}); len(missing) != 2 {
		t.Errorf("missing where nothing was said: %v", missing)
	}
}
