package reconcile_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestMain makes 1,000 random inputs the default; -rapid.checks asks for another number.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "1000"); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestInvariants holds I1 to I9 of the design over random clusters, slots, policies and doubts.
func TestInvariants(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		plan, err := reconcile.Plan(in)
		if err != nil {
			t.Fatalf("a valid input gives no plan: %v", err)
		}
		w := &judge{t: t, in: in, plan: plan}
		w.policy, _ = model.PolicyOf(in.Cluster.Clones[0])
		w.names = w.policy.SlotNames()
		for _, step := range plan.Steps {
			seen[step.Kind()]++
			w.step(step)
		}
		seen[string(plan.Standing)]++
		w.settles()
		w.orderDoesNotMatter()
		w.doubtDestroysNothing()
	})
	for _, what := range []string{
		"CreateSlot", "ReleaseXMin", "TouchSlot", "AdvanceSlot", "ResetSlot", "DropSlot", "SetPrimarySlotName",
		string(model.Primary), string(model.Standby), string(model.InTransition),
	} {
		if seen[what] == 0 {
			t.Errorf("the random inputs never led to %s: this proves nothing about it", what)
		}
	}
	t.Logf("met: %v", seen)
}

type judge struct {
	t      *rapid.T
	in     reconcile.Input
	plan   model.Plan
	policy model.Policy
	names  map[string]string
}

func (w *judge) slot(name string) (model.Slot, bool) {
	i := slices.IndexFunc(w.in.Instance.Slots, func(s model.Slot) bool { return s.Name == name })
	if i < 0 {
		return model.Slot{}, false
	}
	return w.in.Instance.Slots[i], true
}

// step judges one step by I1, I2, I3 and I5.
func (w *judge) step(step model.Step) {
	t := w.t
	switch s := step.(type) {
	case model.CreateSlot:
		if _, ok := w.slot(s.Slot); ok {
			t.Fatalf("creates %s, which is there", s.Slot)
		}
		w.ours(s.Slot)
	case model.AdvanceSlot:
		w.mayTouch(s.Slot)
		old, _ := w.slot(s.Slot)
		switch {
		case w.plan.Standing != model.Standby:
			t.Fatalf("advances %s on a %s", s.Slot, w.plan.Standing)
		case s.To > w.in.Instance.Redo:
			t.Fatalf("I5: %s passes this host's own redo %s: %s", s.Slot, w.in.Instance.Redo, s.To)
		case s.To <= old.RestartLSN || s.From != old.RestartLSN:
			t.Fatalf("%s is moved from %s to %s, but is at %s", s.Slot, s.From, s.To, old.RestartLSN)
		}
		if s.Member != w.primary() {
			owner, _ := w.in.Upstream.Slot(s.Slot)
			role, _ := w.in.Cluster.Clones[0].Role(s.Member)
			node, _ := w.in.Cluster.Node(s.Member)
			if status := node.Attribute("pgsql-data-status"); role != model.RoleUnpromoted || status == "DISCONNECT" {
				t.Fatalf("I5: %s is moved while %s, being %q and %q, cannot have confirmed anything", s.Slot, s.Member, role, status)
			}
			if !owner.RestartLSN.IsValid() || s.To > owner.RestartLSN {
				t.Fatalf("I5: %s passes what %s has confirmed, %s: %s", s.Slot, s.Member, owner.RestartLSN, s.To)
			}
		}
	case model.ReleaseXMin:
		w.mayTouch(s.Slot)
		if old, _ := w.slot(s.Slot); !old.HoldsXMin() || w.plan.Standing != model.Standby {
			t.Fatalf("releases the xmin of %+v on a %s", old, w.plan.Standing)
		}
	case model.TouchSlot:
		w.mayTouch(s.Slot)
		if old, _ := w.slot(s.Slot); !old.Reserved() || old.Idle == 0 {
			t.Fatalf("touches %+v", old)
		}
	case model.ResetSlot:
		w.mayTouch(s.Slot)
		if old, _ := w.slot(s.Slot); old.Reserved() && (w.plan.Standing == model.Primary || old.RestartLSN <= w.in.Instance.Redo) {
			t.Fatalf("I3: resets %s, which holds WAL from %s on, on a %s with the redo %s", s.Slot, old.RestartLSN, w.plan.Standing, w.in.Instance.Redo)
		}
	case model.DropSlot:
		w.mayTouch(s.Slot)
		if w.plan.Standing == model.Primary {
			for member, name := range w.names {
				if name == s.Slot && member != strings.ToLower(w.in.Node) {
					t.Fatalf("I3: drops %s of the member %s on the primary", s.Slot, member)
				}
			}
		}
	case model.SetPrimarySlotName:
		if s.To != "" && s.To != w.names[strings.ToLower(w.in.Node)] {
			t.Fatalf("sets primary_slot_name to %s, which is not this host's", s.To)
		}
	default:
		t.Fatalf("unknown step %T", step)
	}
}

// ours is I1 for names.
func (w *judge) ours(name string) {
	if !w.policy.OwnsName(name) {
		w.t.Fatalf("I1: touches %s, which is not under the prefix %s", name, w.policy.SlotPrefix)
	}
}

// mayTouch is I1 and I2 for a slot that is there.
func (w *judge) mayTouch(name string) {
	w.ours(name)
	s, ok := w.slot(name)
	switch {
	case !ok:
		w.t.Fatalf("changes %s, which is not there", name)
	case s.Type != model.SlotPhysical || s.Temporary:
		w.t.Fatalf("I1: touches %s, which is %s, temporary %t", name, s.Type, s.Temporary)
	case s.Active:
		w.t.Fatalf("I2: touches %s, which is active", name)
	}
}

func (w *judge) primary() string {
	for node, role := range w.in.Cluster.Clones[0].Roles {
		if role == model.RolePromoted {
			return strings.ToLower(node)
		}
	}
	return ""
}

// settles is I6 and I7 (and with them I9): after the plan nothing is left, after any prefix planning again gets there.
func (w *judge) settles() {
	for n := range len(w.plan.Steps) + 1 {
		now := w.in
		for _, s := range w.plan.Steps[:n] {
			now = after(now, s)
		}
		again := w.replan(now)
		if n == len(w.plan.Steps) && len(again.Steps) > 0 {
			w.t.Fatalf("I6: after\n%s there is more to do:\n%s", w.plan, again)
		}
		for _, s := range again.Steps {
			now = after(now, s)
		}
		if last := w.replan(now); len(last.Steps) > 0 {
			w.t.Fatalf("I7: after %d steps of\n%s planning again does not get there:\n%s\n%s", n, w.plan, again, last)
		}
	}
}

func (w *judge) replan(in reconcile.Input) model.Plan {
	plan, err := reconcile.Plan(in)
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// orderDoesNotMatter is I8.
func (w *judge) orderDoesNotMatter() {
	in := w.in
	c := *in.Cluster
	c.Nodes = rapid.Permutation(c.Nodes).Draw(w.t, "nodes in another order")
	in.Cluster = &c
	in.Instance.Slots = rapid.Permutation(in.Instance.Slots).Draw(w.t, "slots in another order")
	if again := w.replan(in); again.String() != w.plan.String() {
		w.t.Fatalf("I8: another order gives another plan:\n%s\n%s", w.plan, again)
	}
}

// doubtDestroysNothing is I4: whatever is doubtful, nothing is dropped, reset or advanced.
func (w *judge) doubtDestroysNothing() {
	in := w.in
	c := *in.Cluster
	clone := c.Clones[0]
	doubt := rapid.SampledFrom([]string{"no quorum", "maintenance", "unmanaged", "stale", "timeline", "system", "second primary", "paused"}).Draw(w.t, "doubt")
	switch doubt {
	case "no quorum":
		c.Quorate = false
	case "maintenance":
		c.Maintenance = true
	case "unmanaged":
		clone.Managed = false
	case "stale":
		in.Newest.Epoch = c.Version.Epoch + 1
	case "timeline", "system":
		if w.plan.Standing == model.Primary {
			return // only a standby has another server to differ from
		}
		if in.Upstream != nil {
			u := *in.Upstream
			if doubt == "system" {
				u.SystemID += "0"
			} else {
				u.Timeline++
			}
			in.Upstream = &u
		}
	case "second primary":
		c.Nodes = slices.Clone(c.Nodes)
		for i, n := range c.Nodes {
			if strings.ToLower(n.Name) != w.primary() {
				c.Nodes[i].Online = true
				c.Nodes[i].Transient = map[string]string{"pgsql-status": "PRI"}
				break
			}
		}
	case "paused":
		clone.Meta = map[string]string{model.MetaPaused: "true"}
	}
	c.Clones = []model.Clone{clone}
	in.Cluster = &c
	for _, s := range w.replan(in).Steps {
		switch s.(type) {
		case model.AdvanceSlot, model.ReleaseXMin, model.ResetSlot, model.DropSlot:
			w.t.Fatalf("I4: in doubt (%s) it does %s %s", doubt, s.Kind(), s.Text())
		default:
			if doubt == "paused" || doubt == "system" || doubt == "second primary" {
				w.t.Fatalf("I4: in doubt (%s) it does %s %s", doubt, s.Kind(), s.Text())
			}
		}
	}
}

// drawInput is a random host of a random cluster, mostly one of a known standing.
func drawInput(t *rapid.T) reconcile.Input {
	hosts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-cA-C][-.]?[0-9]{1,2}`), 2, 16, strings.ToLower).Draw(t, "hosts")
	members := hosts[:rapid.IntRange(2, len(hosts)).Draw(t, "members")]
	primary := rapid.SampledFrom(members).Draw(t, "primary")
	self := rapid.SampledFrom(members).Draw(t, "self")
	cluster := drawCluster(t, hosts, members, primary)
	policy, _ := model.PolicyOf(cluster.Clones[0])
	in := reconcile.Input{
		Node: self, Cluster: &cluster, Newest: cluster.Version,
		Instance: model.Instance{
			State: model.ServerUp, Version: 150000, SystemID: "7", InRecovery: self != primary,
			Redo: drawLSN(t, "redo"), RedoTimeline: 1, WALSegmentSize: 16 << 20,
			MaxSlots: rapid.IntRange(1, 40).Draw(t, "max_replication_slots"), IdleSlotTimeout: 60,
		},
	}
	in.Instance.Current = in.Instance.Redo + model.LSN(rapid.IntRange(0, 64<<20).Draw(t, "since redo"))
	names := policy.SlotNames()
	in.Instance.Slots = drawSlots(t, policy, names)
	in.Instance.MaxSlots = max(in.Instance.MaxSlots, len(in.Instance.Slots))
	var ownNames []string
	for _, m := range policy.Members {
		ownNames = append(ownNames, names[m])
		if rapid.Bool().Draw(t, "sends") {
			in.Instance.Senders = append(in.Instance.Senders, model.WALSender{ApplicationName: m, PID: 5, State: "streaming"})
		}
	}
	in.Instance.PrimarySlotName = rapid.SampledFrom(append(ownNames, "", "other")).Draw(t, "primary_slot_name")
	if self != primary {
		in.Upstream = drawUpstream(t, ownNames)
		if rapid.Bool().Draw(t, "streams") {
			in.Instance.Receiver = &model.WALReceiver{Status: "streaming", SlotName: in.Instance.PrimarySlotName}
		}
	}
	return in
}

func drawCluster(t *rapid.T, hosts, members []string, primary string) model.Cluster {
	clone := model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: rapid.IntRange(0, 9).Draw(t, "managed") > 0,
		Parameters: map[string]string{"rep_mode": "sync", "node_list": strings.Join(members, " ")},
		Meta: map[string]string{
			model.MetaOrphans:      rapid.SampledFrom([]string{"report", "drop"}).Draw(t, "orphans"),
			model.MetaStandbySlots: rapid.SampledFrom([]string{"keep", "keep", "none"}).Draw(t, "standby slots"),
			model.MetaSlotNaming:   rapid.SampledFrom([]string{"host", "host", "pair"}).Draw(t, "naming"),
		},
		Roles: map[string]model.Role{},
	}
	if rapid.IntRange(0, 4).Draw(t, "agent's slots") == 0 {
		clone.Parameters["replication_slot_name"] = "rex"
	}
	c := model.Cluster{Quorate: rapid.IntRange(0, 9).Draw(t, "quorum") > 0, Version: model.Version{Epoch: 10}}
	for _, h := range hosts {
		n := model.Node{Name: h, Online: h == primary || rapid.IntRange(0, 3).Draw(t, "online") > 0}
		if h != primary {
			clone.Roles[h] = model.RoleStopped
			if n.Online && rapid.IntRange(0, 3).Draw(t, "runs") > 0 {
				clone.Roles[h] = model.RoleUnpromoted
			}
			n.Permanent = map[string]string{"pgsql-data-status": rapid.SampledFrom(
				[]string{"STREAMING|SYNC", "STREAMING|ASYNC", "CATCHUP|ASYNC", "DISCONNECT"}).Draw(t, "data status")}
		}
		if h == primary {
			clone.Roles[h] = model.RolePromoted
			n.Permanent = map[string]string{"pgsql-data-status": rapid.SampledFrom([]string{"LATEST", "LATEST", "LATEST", "DISCONNECT"}).Draw(t, "data status")}
			n.Transient = map[string]string{"pgsql-status": "PRI"}
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.Clones = []model.Clone{clone}
	return c
}

// drawLSN is near others in number of segments, so that they meet.
func drawLSN(t *rapid.T, label string) model.LSN {
	return model.LSN(rapid.IntRange(1, 12).Draw(t, label+" segment")<<24 + rapid.IntRange(0, 1<<24-1).Draw(t, label+" offset"))
}

func drawSlots(t *rapid.T, policy model.Policy, names map[string]string) []model.Slot {
	candidates := []string{"barman", policy.SlotPrefix, policy.SlotPrefix + "_gone", policy.SlotPrefix + "x"}
	for _, m := range policy.Members {
		candidates = append(candidates, names[m])
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	var slots []model.Slot
	for i, name := range candidates {
		if !rapid.Bool().Draw(t, "has "+name) {
			continue
		}
		s := model.Slot{Name: name, Type: model.SlotPhysical, RestartLSN: drawLSN(t, name), WALStatus: "reserved"}
		switch rapid.IntRange(0, 9).Draw(t, "kind of "+name) {
		case 0:
			s.Type = model.SlotLogical
		case 1:
			s.Temporary = true
		case 2:
			s.WALStatus, s.RestartLSN = "lost", 0
		case 3:
			s.WALStatus = "lost"
		case 4:
			s.WALStatus, s.RestartLSN = "", 0
		case 5:
			s.XMin = 700
		case 6:
			s.Active, s.ActivePID = true, 100+i
		case 7:
			s.Idle = float64(rapid.IntRange(0, 100).Draw(t, "idle "+name))
		}
		slots = append(slots, s)
	}
	return slots
}

func drawUpstream(t *rapid.T, names []string) *model.Upstream {
	u := &model.Upstream{Address: "192.0.2.1:5432", SystemID: "7", Timeline: 1}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		s := model.UpstreamSlot{Name: name}
		switch rapid.IntRange(0, 3).Draw(t, "upstream "+name) {
		case 0:
		case 1:
			s.Exists = true
		default:
			s.Exists, s.RestartLSN = true, drawLSN(t, "upstream "+name)
		}
		u.Slots = append(u.Slots, s)
	}
	return u
}
