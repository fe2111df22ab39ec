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

// TestMain makes 1,000 random inputs the default, the same in every run; -rapid.checks asks for another number, and
// -rapid.seed=0 for others each time. A failure prints the seed that leads to it again, and leaves no file.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.seed": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

// invariants are those of the design, by its names. Each judges a plan made for a random input.
var invariants = []struct {
	name  string
	holds func(w *judge)
}{
	{"I1 never touch a slot that is not provably ours", func(w *judge) { w.eachStep(w.touchesOurs) }},
	{"I2 never drop or reset an active slot", func(w *judge) { w.eachStep(w.touchesIdle) }},
	{"I3 no step lets go of what a slot holds but an advance", func(w *judge) { w.eachStep(w.letsGoOfNothing) }},
	{"I4 nothing destructive in doubt", (*judge).doubtDestroysNothing},
	{"I5 no slot passes its owner or the own redo", func(w *judge) { w.eachStep(w.advancesInBounds) }},
	{"I6 after a plan there is nothing to do", func(w *judge) { w.settlesAfter(len(w.plan.Steps)) }},
	{"I7 after any part of a plan, planning again gets there", func(w *judge) {
		for n := range w.plan.Steps {
			w.settlesAfter(n)
		}
	}},
	{"I8 the order of the input never matters", (*judge).orderDoesNotMatter},
	{"I9 what is as it should be costs no write", (*judge).restCostsNothing},
	{"a finding has one severity for each code and subject", (*judge).findingsAgree},
	{"rule 7: the budget fits, is enough to run, and an operator's own stays", (*judge).budgetIsSound},
}

// TestInvariants holds I1 to I9 over random clusters, slots, policies and doubts. What the inputs have led to is
// counted, so that inputs which lead to nothing cannot pass.
func TestInvariants(t *testing.T) {
	for _, invariant := range invariants {
		t.Run(invariant.name, func(t *testing.T) {
			seen := map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				w := newJudge(t, drawInput(t))
				seen[string(w.plan.Standing)]++
				for _, step := range w.plan.Steps {
					seen[step.Kind()]++
				}
				for _, f := range w.plan.Findings {
					seen[string(f.Code)]++
				}
				invariant.holds(w)
			})
			t.Logf("met: %v", seen)
			for _, what := range []string{
				"CreateSlot", "ReleaseXMin", "TouchSlot", "AdvanceSlot", "ResetSlot", "DropSlot", "SetPrimarySlotName", "SetWALBudget",
				"PublishAttribute", string(model.CodeOperationUnderWay), string(model.CodeOperationUnfinished),
				"BudgetSpent", "BudgetPinned", "WALSpaceShort", "DiskNearlyFull",
				string(model.Primary), string(model.Standby), string(model.InTransition),
			} {
				if seen[what] == 0 {
					t.Errorf("the random inputs never led to %s: this proves nothing about it", what)
				}
			}
		})
	}
}

type judge struct {
	t      *rapid.T
	in     reconcile.Input
	plan   model.Plan
	policy model.Policy
	names  map[string]string
}

func newJudge(t *rapid.T, in reconcile.Input) *judge {
	w := &judge{t: t, in: in}
	w.plan = w.replan(in)
	w.policy, _ = model.PolicyOf(in.Cluster.Clones[0])
	w.names = w.policy.SlotNames()
	return w
}

// eachStep judges the steps one by one, each with the slot that it changes, if it is there.
func (w *judge) eachStep(holds func(step model.Step, name string, slot *model.Slot)) {
	for _, step := range w.plan.Steps {
		name := changes(step)
		if name == "" {
			continue
		}
		i := slices.IndexFunc(w.in.Instance.Slots, func(s model.Slot) bool { return s.Name == name })
		if i < 0 {
			holds(step, name, nil)
		} else {
			holds(step, name, &w.in.Instance.Slots[i])
		}
	}
}

// changes is the slot that a step changes, if it does.
func changes(step model.Step) string {
	switch s := step.(type) {
	case model.CreateSlot:
		return s.Slot
	case model.ReleaseXMin:
		return s.Slot
	case model.TouchSlot:
		return s.Slot
	case model.AdvanceSlot:
		return s.Slot
	case model.ResetSlot:
		return s.Slot
	case model.DropSlot:
		return s.Slot
	case model.SetPrimarySlotName, model.SetWALBudget, model.PublishAttribute:
	}
	return ""
}

func (w *judge) touchesOurs(step model.Step, name string, slot *model.Slot) {
	_, creates := step.(model.CreateSlot)
	switch {
	case !w.policy.OwnsName(name):
		w.t.Fatalf("%s %s, which is not under the prefix %s", step.Kind(), name, w.policy.SlotPrefix)
	case creates != (slot == nil):
		w.t.Fatalf("%s %s, and there is %v", step.Kind(), name, slot)
	case slot != nil && (slot.Type != model.SlotPhysical || slot.Temporary):
		w.t.Fatalf("%s %s, which is %s, temporary: %t", step.Kind(), name, slot.Type, slot.Temporary)
	}
}

func (w *judge) touchesIdle(step model.Step, name string, slot *model.Slot) {
	if slot != nil && slot.Active {
		w.t.Fatalf("%s %s, which is in use", step.Kind(), name)
	}
}

func (w *judge) letsGoOfNothing(step model.Step, name string, slot *model.Slot) {
	redo := w.in.Instance.ReservesFrom()
	switch step.(type) {
	case model.ReleaseXMin:
		old := w.policy.XMinAge > 0 && slot.XMinAge >= w.policy.XMinAge
		if !slot.HoldsXMin() || !slot.Reserved() || w.plan.Standing != model.Standby && !old {
			w.t.Fatalf("releases the xmin of %+v on a %s", *slot, w.plan.Standing)
		}
	case model.TouchSlot:
		if !slot.Reserved() || slot.Idle == 0 {
			w.t.Fatalf("touches %+v", *slot)
		}
	case model.ResetSlot:
		if slot.Reserved() && (w.plan.Standing == model.Primary || slot.RestartLSN <= redo) {
			w.t.Fatalf("resets %s, which holds WAL from %s on, on a %s with the redo %s", name, slot.RestartLSN, w.plan.Standing, redo)
		}
	case model.DropSlot:
		for member, its := range w.names {
			if w.plan.Standing == model.Primary && its == name && member != strings.ToLower(w.in.Node) {
				w.t.Fatalf("drops %s of the member %s on the primary", name, member)
			}
		}
	case model.AdvanceSlot:
		if w.plan.Standing != model.Standby {
			w.t.Fatalf("advances %s on a %s", name, w.plan.Standing)
		}
	case model.CreateSlot, model.SetPrimarySlotName, model.SetWALBudget, model.PublishAttribute:
	}
}

func (w *judge) advancesInBounds(step model.Step, name string, slot *model.Slot) {
	s, ok := step.(model.AdvanceSlot)
	if !ok {
		return
	}
	switch {
	case s.To > w.in.Instance.Redo:
		w.t.Fatalf("%s passes this host's own redo %s: %s", name, w.in.Instance.Redo, s.To)
	case s.To <= slot.RestartLSN || s.From != slot.RestartLSN:
		w.t.Fatalf("%s is moved from %s to %s, but is at %s", name, s.From, s.To, slot.RestartLSN)
	case s.Member == w.primary():
		return
	}
	role, _ := w.in.Cluster.Clones[0].Role(s.Member)
	node, _ := w.in.Cluster.Node(s.Member)
	if status := node.Attribute("pgsql-data-status"); role != model.RoleUnpromoted || status == "DISCONNECT" {
		w.t.Fatalf("%s is moved while %s, being %q and %q, cannot have confirmed anything", name, s.Member, role, status)
	}
	if owner, _ := w.in.Upstream.Slot(name); !owner.RestartLSN.IsValid() || s.To > owner.RestartLSN {
		w.t.Fatalf("%s passes what %s has confirmed, %s: %s", name, s.Member, owner.RestartLSN, s.To)
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

// settlesAfter: with the first n steps done, planning again once leads to where nothing is left to do.
func (w *judge) settlesAfter(n int) {
	now := w.in
	for _, s := range w.plan.Steps[:n] {
		now = after(now, s)
	}
	again := w.replan(now)
	if n == len(w.plan.Steps) && len(again.Steps) > 0 {
		w.t.Fatalf("after\n%s there is more to do:\n%s", w.plan, again)
	}
	for _, s := range again.Steps {
		now = after(now, s)
	}
	if last := w.replan(now); len(last.Steps) > 0 {
		w.t.Fatalf("after %d steps of\n%s planning again does not get there:\n%s\n%s", n, w.plan, again, last)
	}
}

// restCostsNothing: where everything has been done, WAL that is written within a segment is no reason to do anything,
// nor are other files that come and go. Only a budget that pgrex has not set itself may stand at the very edge of what
// is left alone.
func (w *judge) restCostsNothing() {
	now := w.in
	for _, s := range w.plan.Steps {
		now = after(now, s)
	}
	size := model.LSN(now.Instance.WALSegmentSize)
	within := func(l model.LSN) model.LSN {
		return l - l%size + model.LSN(rapid.IntRange(1, int(size)-1).Draw(w.t, "within the segment"))
	}
	now.Instance.Redo = within(now.Instance.Redo)
	if (now.Instance.Current+1)%size != 0 {
		now.Instance.Current++
	}
	others := func(in reconcile.Input) reconcile.Input {
		if space := w.in.Instance.WALSpace; space != nil {
			s := *space
			s.Free -= uint64(rapid.IntRange(0, int(s.Free/100)).Draw(w.t, "other files"))
			in.Instance.WALSpace = &s
		}
		return in
	}
	now = others(now)
	if now.Upstream != nil {
		u := *now.Upstream
		u.Slots = slices.Clone(u.Slots)
		for i, s := range u.Slots {
			if s.RestartLSN.IsValid() {
				u.Slots[i].RestartLSN = within(s.RestartLSN)
			}
		}
		now.Upstream = &u
	}
	if !slices.ContainsFunc(w.plan.Steps, setsBudget) {
		if again := w.replan(now); slices.ContainsFunc(again.Steps, setsBudget) {
			now = others(after(now, again.Steps[slices.IndexFunc(again.Steps, setsBudget)]))
		}
	}
	if again := w.replan(now); len(again.Steps) > 0 {
		w.t.Fatalf("at rest, and with WAL written within a segment, there is this to do:\n%s", again)
	}
}

func setsBudget(step model.Step) bool {
	_, ok := step.(model.SetWALBudget)
	return ok
}

func (w *judge) replan(in reconcile.Input) model.Plan {
	plan, err := reconcile.Plan(in)
	if err != nil {
		w.t.Fatalf("a valid input gives no plan: %v", err)
	}
	return plan
}

func (w *judge) orderDoesNotMatter() {
	in := w.in
	c := *in.Cluster
	c.Nodes = rapid.Permutation(c.Nodes).Draw(w.t, "nodes in another order")
	in.Cluster = &c
	in.Instance.Slots = rapid.Permutation(in.Instance.Slots).Draw(w.t, "slots in another order")
	if again := w.replan(in); again.String() != w.plan.String() {
		w.t.Fatalf("another order gives another plan:\n%s\n%s", w.plan, again)
	}
}

// doubtDestroysNothing: whatever is doubtful, nothing is dropped, reset, released or advanced.
func (w *judge) doubtDestroysNothing() {
	in := w.in
	c := *in.Cluster
	clone := c.Clones[0]
	doubt := rapid.SampledFrom([]string{"no quorum", "no DC", "maintenance", "unmanaged", "stale", "timeline", "system", "second primary", "paused"}).Draw(w.t, "doubt")
	switch doubt {
	case "no quorum":
		c.Quorate = false
	case "no DC":
		c.DC = ""
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
		if b, ok := s.(model.SetWALBudget); ok && (b.Reset || b.To >= 0 && b.To < b.From && fits(in.Instance, b.From)) {
			w.t.Fatalf("in doubt (%s) it lowers a budget that the disk can give: %s", doubt, s.Text())
		}
		switch s.(type) {
		case model.AdvanceSlot, model.ReleaseXMin, model.ResetSlot, model.DropSlot:
			w.t.Fatalf("in doubt (%s) it does %s %s", doubt, s.Kind(), s.Text())
		default:
			if p, ok := s.(model.PublishAttribute); ok && doubt != "paused" && p.Name == model.OperationAttribute("pgsql") {
				continue // says nothing about slots
			}
			if doubt == "paused" || doubt == "system" || doubt == "second primary" {
				w.t.Fatalf("in doubt (%s) it does %s %s", doubt, s.Kind(), s.Text())
			}
		}
	}
}

// budgetIsSound judges the step that sets the budget, if there is one, by what the disk has, what PostgreSQL needs, and
// what slots hold once the steps before it are done. Any of those may fail: then slots hold more.
func (w *judge) budgetIsSound() {
	i := w.in.Instance
	now := w.in
	for _, step := range w.plan.Steps {
		s, ok := step.(model.SetWALBudget)
		if !ok {
			now = after(now, step)
			continue
		}
		segment := int64(i.WALSegmentSize >> 20) // PostgreSQL counts whole ones
		floor := (max(i.Budget.MaxWALSize, i.Budget.WALKeepSize) + segment - 1) / segment * segment
		switch room := int64((i.WALSpace.Free + i.WALSpace.WAL) >> 20); {
		case i.Budget.CommandLine || i.Budget.Pinned != "" && !s.Reset:
			w.t.Fatalf("an operator's own budget is changed: %s", s.Text())
		case s.Reset || s.To == model.Unlimited:
		case s.To < floor:
			w.t.Fatalf("%s, but PostgreSQL needs %d MB to run", s.Text(), floor)
		case s.To+i.Budget.MaxWALSize > room && s.To > floor:
			w.t.Fatalf("%s, and %d MB for a checkpoint, but the disk has %d MB for WAL", s.Text(), i.Budget.MaxWALSize, room)
		case s.From >= floor && max(s.From-s.To, s.To-s.From)*10 <= s.From:
			w.t.Fatalf("%s is not worth a write", s.Text())
		case (s.From < 0 || s.To < s.From) && s.To > floor && within(now.Instance, (room-i.Budget.MaxWALSize)/segment*segment) > uint64(s.To)<<20:
			w.t.Fatalf("%s costs a slot what the disk can give", s.Text())
		case s.From < 0 && held(now.Instance) > uint64(s.To)<<20 && int64(i.WALSpace.Free>>20) >= i.Budget.MaxWALSize/2:
			w.t.Fatalf("%s is the first budget, and costs a slot, though the disk does not end", s.Text())
		case s.From >= 0 && s.To > s.From && s.To+i.Budget.MaxWALSize > room:
			w.t.Fatalf("%s, and %d MB for a checkpoint, but the disk has %d MB for WAL", s.Text(), i.Budget.MaxWALSize, room)
		case s.From > s.To && s.From+i.Budget.MaxWALSize <= room && held(now.Instance) > uint64(s.To)<<20/4*3:
			w.t.Fatalf("%s, while slots hold %d bytes, and the disk can give more", s.Text(), held(now.Instance))
		case s.Lossless != (held(now.Instance) <= uint64(s.To)<<20 && (s.From < 0 || s.From > s.To && s.From+i.Budget.MaxWALSize <= room)):
			w.t.Fatalf("%s, lossless: %t, while slots hold %d bytes", s.Text(), s.Lossless, held(now.Instance))
		}
	}
}

// fits reports whether the disk can give a budget in MB.
func fits(i model.Instance, budget int64) bool {
	return i.WALSpace == nil || budget >= 0 && budget+i.Budget.MaxWALSize <= int64((i.WALSpace.Free+i.WALSpace.WAL)>>20)
}

// within is held of the slots that a budget in MB costs nothing.
func within(i model.Instance, budget int64) (most uint64) {
	for _, s := range i.Slots {
		if bytes := i.Held(s) + i.WALSegmentSize; s.Reserved() && budget >= 0 && bytes <= uint64(budget)<<20 {
			most = max(most, bytes)
		}
	}
	return most
}

// held is the most that a slot holds, in bytes. PostgreSQL keeps whole segments: one more is sure to be enough.
func held(i model.Instance) (most uint64) {
	for _, s := range i.Slots {
		if s.Reserved() {
			most = max(most, i.Held(s)+i.WALSegmentSize)
		}
	}
	return most
}

// findingsAgree: otherwise the daemon would take it for one that changes at every look.
func (w *judge) findingsAgree() {
	said := map[string]model.Severity{}
	for _, f := range w.plan.Findings {
		key := string(f.Code) + " " + f.Subject
		if before, ok := said[key]; ok && before != f.Severity {
			w.t.Fatalf("%s is %s and %s", key, before, f.Severity)
		}
		said[key] = f.Severity
	}
}
