package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// BenchmarkPlan plans for a standby with a slot to advance for each other host: the most work there is. Slots that are
// nobody's come on top: the cost has to be linear in them.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ hosts, foreign int }{{3, 0}, {16, 0}, {32, 0}, {3, 10}, {3, 100}, {3, 1000}} {
		b.Run(fmt.Sprintf("%d hosts, %d more slots", size.hosts, size.foreign), func(b *testing.B) {
			in := busyStandby(size.hosts)
			for i := range size.foreign {
				in.Instance.Slots = append(in.Instance.Slots, model.Slot{Name: fmt.Sprint("backup_", i), Type: model.SlotPhysical, Active: true})
			}
			if plan, err := reconcile.Plan(in); err != nil || len(plan.Steps) != size.hosts { // the last one publishes the forecast
				b.Fatalf("%v, %v", plan, err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reconcile.Plan(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// busyStandby is the second of so many hosts.
func busyStandby(hosts int) reconcile.Input {
	var names []string
	for i := range hosts {
		names = append(names, fmt.Sprintf("pm%02d", i+1))
	}
	clone := model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true, Roles: map[string]model.Role{},
		Parameters: map[string]string{"rep_mode": "async", "node_list": strings.Join(names, " ")},
	}
	cluster := model.Cluster{Quorate: true, DC: "pm01"}
	up := &model.Upstream{SystemID: "7", Timeline: 1}
	in := reconcile.Input{Node: names[1], Cluster: &cluster, Upstream: up, Instance: model.Instance{
		State: model.ServerUp, Version: 150000, SystemID: "7", InRecovery: true, Redo: 0x9000000, RedoTimeline: 1,
		WALSegmentSize: 16 << 20, MaxSlots: 64, PrimarySlotName: "pgrex_" + names[1],
		Receiver: &model.WALReceiver{Status: "streaming", SlotName: "pgrex_" + names[1]},
	}}
	for i, name := range names {
		n := model.Node{Name: name, Online: true, Permanent: map[string]string{"pgsql-data-status": "STREAMING|ASYNC"}}
		clone.Roles[name] = model.RoleUnpromoted
		if i == 0 {
			clone.Roles[name] = model.RolePromoted
			n.Transient = map[string]string{"pgsql-status": "PRI"}
			n.Permanent = map[string]string{"pgsql-data-status": "LATEST"}
		}
		if i != 1 {
			in.Instance.Slots = append(in.Instance.Slots, model.Slot{Name: "pgrex_" + name, Type: model.SlotPhysical, RestartLSN: 0x1000000})
		}
		if i != 0 {
			up.Slots = append(up.Slots, model.UpstreamSlot{Name: "pgrex_" + name, Exists: true, RestartLSN: 0x8000000})
		}
		cluster.Nodes = append(cluster.Nodes, n)
	}
	cluster.Clones = []model.Clone{clone}
	return in
}

// FuzzSnapshot: whatever is given as a snapshot, it is decoded or refused, and what is decoded can be planned from.
func FuzzSnapshot(f *testing.F) {
	whole, err := reconcile.Snapshot{Input: busyStandby(3)}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"pgrex_snapshot": 1}`))
	f.Add([]byte(`{"pgrex_snapshot": 1, "input": {"cluster": {"clones": [{"agent": "ocf:heartbeat:pgsql"}], "nodes": [{}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := reconcile.DecodeSnapshot(data)
		if err != nil {
			return
		}
		first, err := reconcile.Plan(doc.Input)
		if err != nil {
			return
		}
		if second, err := reconcile.Plan(doc.Input); err != nil || first.String() != second.String() {
			t.Errorf("the same input gives two plans: %v\n%s\n%s", err, first, second)
		}
	})
}
