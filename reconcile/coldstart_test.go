package reconcile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// TestNotFirst: who may be the first to start while there is no primary. This host is pm01.
func TestNotFirst(t *testing.T) {
	for _, c := range []struct {
		name             string
		pm01, pm02, pm03 Claim
		want             string // a part of why not
	}{
		{"the newest", Claim{DataStatus: "LATEST"}, Claim{DataStatus: "DISCONNECT"}, Claim{DataStatus: "STREAMING|SYNC"}, ""},
		{"stale", Claim{DataStatus: "DISCONNECT"}, Claim{DataStatus: "LATEST"}, Claim{DataStatus: "DISCONNECT"}, "pm02 has the newest data"},
		{"synchronous, but there is a newest", Claim{DataStatus: "STREAMING|SYNC"}, Claim{DataStatus: "LATEST"}, Claim{}, "pm02 has the newest data"},
		{"synchronous, and no newest", Claim{DataStatus: "STREAMING|SYNC"}, Claim{DataStatus: "DISCONNECT"}, Claim{}, "no host has the data status LATEST"},
		{"asynchronous, and no newest", Claim{DataStatus: "STREAMING|ASYNC"}, Claim{DataStatus: "DISCONNECT"}, Claim{}, "no host has the data status LATEST"},
		{"two newest", Claim{DataStatus: "LATEST"}, Claim{DataStatus: "LATEST"}, Claim{}, "more than one"},
		{"the first start ever", Claim{}, Claim{}, Claim{}, ""},
		{"unknown where others are known", Claim{}, Claim{DataStatus: "DISCONNECT"}, Claim{}, "pm01: no data status, pm02: DISCONNECT"},
		{"one that runs has more", Claim{DataStatus: "LATEST"}, Claim{DataStatus: "DISCONNECT", Location: 101}, Claim{}, "pm02 runs and has data up to 0/65"},
		{"one that runs has as much", Claim{DataStatus: "LATEST"}, Claim{DataStatus: "DISCONNECT", Location: 100}, Claim{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.pm01.Host, c.pm02.Host, c.pm03.Host = "pm01", "pm02", "pm03"
			got := NotFirst("PM01", 100, []Claim{c.pm01, c.pm02, c.pm03})
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	nodes := []model.Node{
		{Name: "PM01", Permanent: map[string]string{"pgsql-data-status": "LATEST"}},
		{Name: "pm02", Permanent: map[string]string{"pgsql-data-status": "STREAMING|ASYNC"}, Transient: map[string]string{"pgsql-xlog-loc": "0000000103000148"}},
		{Name: "pm03", Transient: map[string]string{"pgsql-master-baseline": "0000000103000100"}},
	}
	clone := model.Clone{
		Primitive: "pgsql", Parameters: map[string]string{"node_list": "PM01 pm02 pm03", "rep_mode": "async"},
		Roles: map[string]model.Role{"PM01": model.RolePromoted, "pm02": model.RoleUnpromoted},
	}
	want := []Claim{{"pm01", "LATEST", 0}, {"pm02", "STREAMING|ASYNC", 0x103000148}, {"pm03", "", 0x103000100}}
	if d := cmp.Diff(want, whoOf(clone, nodes...).Claims()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"pm02"}, whoOf(clone, nodes...).Successors()); d != "" {
		t.Error(d)
	}
	clone.Parameters["rep_mode"] = "sync"
	if got := whoOf(clone, nodes...).Successors(); len(got) > 0 {
		t.Errorf("%v may take over", got)
	}
}

// whoOf is a look at a cluster without nodes.
func whoOf(clone model.Clone, nodes ...model.Node) Who {
	w := Who{Input: Input{Cluster: &model.Cluster{Nodes: nodes}}, Clone: clone}
	w.Policy, _ = model.PolicyOf(clone)
	w.Names = w.Policy.SlotNames()
	return w
}
