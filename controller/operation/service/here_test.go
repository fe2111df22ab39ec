package service

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Whom a stop leaves, in each case.
func TestLeaves(t *testing.T) {
	const sync = "STREAMING|SYNC"
	for name, test := range map[string]struct {
		roles     fakes.Roles
		unsettled fakes.Unsettled
		status    map[string]string // pgsql-data-status
		says      string
	}{
		"stopped already":          {fakes.Roles{"pm01": "stopped", "pm02": "promoted", "pm03": "stopped"}, nil, nil, ""},
		"a standby of two":         {fakes.Roles{"pm01": "unpromoted", "pm02": "promoted", "pm03": "unpromoted"}, nil, nil, ""},
		"the only standby":         {fakes.Roles{"pm01": "unpromoted", "pm02": "promoted", "pm03": "stopped"}, nil, nil, "pm02 has no other standby"},
		"the last, a standby":      {fakes.Roles{"pm01": "unpromoted", "pm02": "stopped", "pm03": "stopped"}, nil, nil, "the last that runs"},
		"a standby without":        {fakes.Roles{"pm01": "unpromoted", "pm02": "unpromoted", "pm03": "stopped"}, nil, nil, ""},
		"the last, the primary":    {fakes.Roles{"pm01": "promoted", "pm02": "stopped", "pm03": "stopped"}, nil, nil, "this is the last host that runs: the database is down then"},
		"a failover to one":        {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "unpromoted"}, nil, map[string]string{"pm03": sync}, "this is a failover: pm03 takes over"},
		"a failover to either":     {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "unpromoted"}, nil, map[string]string{"pm02": sync, "pm03": sync}, "a failover: pm02 or pm03 takes over"},
		"a failover to nobody":     {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted", "pm03": "stopped"}, nil, map[string]string{"pm02": "STREAMING|ASYNC", "pm03": sync}, "none may take over"},
		"a failover to who fails":  {fakes.Roles{"pm01": "promoted", "pm02": "unpromoted"}, fakes.Unsettled{"pm02": "failed"}, map[string]string{"pm02": sync}, "none may take over"},
		"beside who is unclean":    {fakes.Roles{"pm01": "unpromoted", "pm03": "stopped"}, fakes.Unsettled{"pm02": model.UnsettledUnknown}, nil, "pm02 has no other standby"},
		"beside a standby unclean": {fakes.Roles{"pm01": "unpromoted", "pm03": "promoted"}, fakes.Unsettled{"pm02": model.UnsettledUnpromoted}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := fakes.NewTrio(t)
			c.Clone.Roles, c.Clone.Unsettled = test.roles, test.unsettled
			cluster, err := c.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range cluster.Nodes {
				if status := test.status[cluster.Nodes[i].Name]; status != "" {
					cluster.Nodes[i].Permanent = map[string]string{"pgsql-data-status": status}
				}
			}
			who, err := reconcile.ResolveCluster(reconcile.Input{Node: "pm01", Cluster: &cluster})
			if err != nil {
				t.Fatal(err)
			}
			h := here{who}
			standbys := h.standbys()
			got := strings.Join(h.leaves(h.isPrimary() && len(standbys) > 0, standbys), "\n")
			if !strings.Contains(got, test.says) || (got == "") != (test.says == "") {
				t.Errorf("it says %q", got)
			}
		})
	}
}
