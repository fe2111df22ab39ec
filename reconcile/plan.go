package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// When to look at everything again: soon while something is awaited, else as often as the CIB is polled.
const (
	recheckSoon = time.Second
	recheckIdle = 10 * time.Second
)

// The oldest supported server, and the first that tells a slot's position over the replication protocol.
const oldestVersion = 130000

// maxMembers bounds the work of a plan, whatever is given as a cluster. Corosync is made for 32 nodes at most.
const maxMembers = 256

// view is one plan in the making: the input, what follows from it, and what has been found so far.
type view struct {
	in         Input
	self       string // this host, lower-cased as members are
	clone      model.Clone
	policy     model.Policy
	names      map[string]string // slot names by member
	others     []string          // the other members that are nodes of the cluster, in order
	slots      []model.Slot      // the local slots, in order of name
	primary    string            // the confirmed primary, lower-cased
	mayDestroy bool              // nothing forbids to drop, reset or advance
	waiting    bool              // something is expected to change by itself soon

	creates, releases, touches, advances, resets, drops, settings []model.Step

	findings []model.Finding
}

// Plan decides what differs from what should be on in.Node: rules 1 to 8 of the design. The error is an
// *InputError; then there is no plan.
func Plan(in Input) (model.Plan, error) {
	v := &view{in: in, self: strings.ToLower(in.Node)}
	if in.Cluster == nil {
		v.say(model.CodeClusterUnknown, model.Warning, "", "%s", cmp.Or(in.ClusterProblem, "there is no CIB"))
		return v.plan(model.InTransition), nil
	}
	var err error
	if v.clone, err = Database(*in.Cluster, in.Resource); err != nil {
		return model.Plan{}, err
	}
	if _, ok := in.Cluster.Node(in.Node); !ok {
		return model.Plan{}, inputErrorf("this host, %s, is no node of the cluster (%s): name it with --node",
			in.Node, nodeNames(*in.Cluster))
	}
	if !v.readPolicy() || !v.serverUsable() {
		return v.plan(model.InTransition), nil
	}
	standing := v.standing()
	if standing == model.InTransition {
		v.waiting = true
		return v.plan(standing), nil
	}
	if standing == model.Standby && !v.upstreamUsable() {
		return v.plan(standing), nil
	}
	v.mayDestroy = v.nothingForbids(standing)
	v.decide(standing)
	p := v.plan(standing)
	p.Complete = true
	return p, nil
}

// decide applies the rules to a host of known standing.
func (v *view) decide(standing model.Standing) {
	for _, member := range v.others {
		if standing == model.Primary {
			v.primarySlot(member)
		} else {
			v.standbySlot(member)
		}
	}
	if timeout := v.in.Instance.IdleSlotTimeout; timeout > 0 {
		v.say(model.CodeIdleTimeout, model.Info, "idle_replication_slot_timeout",
			"PostgreSQL invalidates slots that nobody uses for %.0f s: pgrex uses those of members that are away in time, but cannot "+
				"while it is down, paused or makes no plan; max_slot_wal_keep_size limits what they hold", timeout)
	}
	v.ownSlot()
	v.orphans()
	if standing == model.Primary {
		v.primarySetting()
	} else {
		v.standbySetting()
	}
	v.fitCapacity()
	v.outlooks()
	v.budget()
}

// plan puts the steps in order: create, release, touch, advance, reset, drop, settings, attributes. Only where the new slots need
// the room of the dropped ones do the drops come first, and the attribute only where it takes something back.
func (v *view) plan(standing model.Standing) model.Plan {
	p := model.Plan{Host: v.self, Standing: standing, RecheckAfter: recheckIdle}
	first, last := &v.creates, &v.drops
	if len(v.creates) > v.freeSlots() {
		first, last = last, first
	}
	steps := slices.Concat(*first, v.releases, v.touches, v.advances, v.resets, *last, v.settings)
	if v.policy.Paused {
		v.paused(steps)
	}
	p.Forecast = v.forecast(standing)
	if !v.policy.Paused {
		takesBack, publishes := v.publish(standing, p.Forecast)
		p.Steps = slices.Concat(takesBack, steps, publishes)
	}
	p.Findings = v.findings
	if v.waiting || len(p.Steps) > 0 {
		p.RecheckAfter = recheckSoon
	}
	return p
}

// paused says what waits for the end of the pause. No slot is made until then: what the forecast says is without it.
func (v *view) paused(waiting []model.Step) {
	const until = model.MetaPaused + "=true: nothing is done until it is removed"
	v.creates, v.resets = nil, nil
	if len(waiting) == 0 {
		v.say(model.CodePaused, model.Info, v.clone.ID, until)
		return
	}
	var texts []string
	for _, s := range waiting {
		texts = append(texts, s.Kind()+" "+s.Text())
	}
	v.say(model.CodePaused, model.Warning, v.clone.ID, "%s, though there is something to do: %s", until, strings.Join(texts, "; "))
}

// freeSlots is how many more slots max_replication_slots allows. Every slot counts, logical and temporary ones too.
func (v *view) freeSlots() int { return max(0, v.in.Instance.MaxSlots-len(v.slots)) }

// fitCapacity leaves out the new slots that there is no room for even when the drops are done.
func (v *view) fitCapacity() {
	room := v.freeSlots() + len(v.drops)
	if short := len(v.creates) - room; short > 0 {
		v.say(model.CodeCapacityShort, model.Critical, "max_replication_slots",
			"%d of %d slots are in use and %d more are needed: raise max_replication_slots to %d or more and restart "+
				"PostgreSQL, or drop slots that nobody uses",
			len(v.slots), v.in.Instance.MaxSlots, len(v.creates), len(v.slots)-len(v.drops)+len(v.creates))
		v.creates = v.creates[:room]
	}
}

// readPolicy reads the meta attributes and the agent's parameters. False: no step can be justified.
func (v *view) readPolicy() bool {
	policy, problems := model.PolicyOf(v.clone)
	v.policy = policy
	for _, p := range problems {
		v.say(model.CodeInvalidPolicy, model.Critical, v.clone.ID, "%s", p)
	}
	for _, name := range v.clone.Conditional {
		if slices.Contains([]string{"node_list", "rep_mode", "replication_slot_name"}, name) || strings.HasPrefix(name, model.MetaPrefix) {
			problems = append(problems, name)
			v.say(model.CodeAmbiguousParameter, model.Critical, name,
				"%s is set by a rule, which pgrex does not evaluate: set it without a rule", name)
		}
	}
	if policy.RepMode != "sync" && policy.RepMode != "async" {
		v.say(model.CodeNotReplicated, model.Warning, v.clone.Primitive,
			"the agent's rep_mode is %q: pgrex works with sync and async", policy.RepMode)
		return false
	}
	return v.readMembers() && len(problems) == 0
}

func (v *view) readMembers() bool {
	if n := len(v.policy.Members); n > maxMembers {
		v.say(model.CodeInvalidPolicy, model.Critical, "node_list", "node_list names %d hosts; pgrex takes %d at most", n, maxMembers)
		return false
	}
	v.names = v.policy.SlotNames()
	for _, m := range v.policy.Members {
		if _, ok := v.in.Cluster.Node(m); !ok {
			v.say(model.CodeUnknownMember, model.Warning, m,
				"node_list names %s, which is no node of the cluster: no slot is made for it", m)
		} else if m != v.self {
			v.others = append(v.others, m)
		}
	}
	if !slices.Contains(v.policy.Members, v.self) {
		v.say(model.CodeNotMember, model.Warning, v.self, "this host is not in the agent's node_list (%s): nothing is done",
			strings.Join(v.policy.Members, " "))
		return false
	}
	return true
}

// serverUsable tells whether the local server can be planned for at all.
func (v *view) serverUsable() bool {
	i := v.in.Instance
	if i.State != model.ServerUp {
		severity := model.Info
		if i.State == model.ServerUnreachable {
			severity = model.Critical
		}
		v.say(model.CodeServerDown, severity, v.self, "PostgreSQL is %s: %s", i.State, i.Problem)
		return false
	}
	if i.Version < oldestVersion {
		v.say(model.CodeUnsupportedVersion, model.Critical, v.self,
			"PostgreSQL here is version %d; pgrex needs 13 or newer (15 for slots on standbys): nothing is done", i.Version/10000)
		return false
	}
	v.slots = slices.SortedFunc(slices.Values(i.Slots), func(a, b model.Slot) int { return strings.Compare(a.Name, b.Name) })
	return true
}

// upstreamUsable tells whether a standby knows the server it replicates from, and that both are one system.
func (v *view) upstreamUsable() bool {
	v.waiting = true
	u := v.in.Upstream
	if u == nil {
		v.say(model.CodeUpstreamUnknown, model.Warning, v.primary,
			"the primary cannot be asked for its slots, so that nothing is changed here: %s", v.in.UpstreamProblem)
		return false
	}
	if u.InRecovery {
		v.say(model.CodeUpstreamUnknown, model.Warning, v.primary,
			"the server at %s is itself a standby, so that its slots say nothing: nothing is changed here", u.Address)
		return false
	}
	if u.SystemID != v.in.Instance.SystemID {
		v.say(model.CodeOtherSystem, model.Critical, v.self,
			"the system identifier here is %s, but %s at the upstream %s: these are different databases, nothing is done; "+
				"this host needs a copy of the right one", v.in.Instance.SystemID, u.SystemID, u.Address)
		return false
	}
	v.waiting = false
	return true
}

// nothingForbids tells whether slots may be dropped, reset or advanced. Each doubt is said.
func (v *view) nothingForbids(standing model.Standing) bool {
	before := len(v.findings)
	c := v.in.Cluster
	node, _ := c.Node(v.in.Node)
	const held = "no slot is dropped, reset or advanced"
	if !c.Quorate {
		v.say(model.CodeNoQuorum, model.Warning, v.self, "this partition has no quorum: %s", held)
	}
	switch {
	case c.Maintenance || node.Maintenance:
		v.say(model.CodeMaintenance, model.Info, v.self, "the cluster or this node is in maintenance: %s", held)
	case !v.clone.Managed:
		v.say(model.CodeUnmanaged, model.Info, v.clone.ID, "%s is unmanaged: %s", v.clone.ID, held)
	}
	if c.Version.ConfigurationOlder(v.in.Newest) {
		v.say(model.CodeCIBStale, model.Warning, v.self,
			"the CIB (%d.%d) is older than one already seen (%d.%d): %s; if it was restored on purpose, restart pgrex",
			c.Version.AdminEpoch, c.Version.Epoch, v.in.Newest.AdminEpoch, v.in.Newest.Epoch, held)
	}
	if own, _ := v.in.Upstream.Slot(v.names[v.primary]); standing == model.Standby && own.Exists && v.names[v.primary] != v.names[v.self] {
		v.waiting = true
		v.say(model.CodePrimaryDiffers, model.Warning, v.primary,
			"the server at %s has a slot for %s, which the CIB says is the primary; no primary has one for itself, so that it may be "+
				"another host: %s until they agree, or pgrex on %s has dropped it", v.in.Upstream.Address, v.primary, held, v.primary)
	}
	if u := v.in.Upstream; standing == model.Standby && u.Timeline != v.in.Instance.RedoTimeline {
		v.say(model.CodeTimelineDiffers, model.Info, v.self,
			"the last restartpoint is on timeline %d, the primary on %d: %s until a restartpoint on the same timeline",
			v.in.Instance.RedoTimeline, u.Timeline, held)
	}
	return len(v.findings) == before
}

func (v *view) say(code model.Code, severity model.Severity, subject, format string, args ...any) {
	v.findings = append(v.findings, model.Finding{Code: code, Severity: severity, Subject: subject, Text: fmt.Sprintf(format, args...)})
}

func (v *view) guard() model.Guard {
	i := v.in.Instance
	return model.Guard{SystemID: i.SystemID, InRecovery: i.InRecovery, RedoTimeline: i.RedoTimeline}
}

func nodeNames(c model.Cluster) string {
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return orNone(names)
}
