package reconcile

import (
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

// maxMembers bounds the work of a plan, whatever is given as a cluster. Corosync is made for 32 nodes at most.
const maxMembers = 256

// view is one plan in the making: a look with who is who in it, and what has been found so far.
type view struct {
	Who
	slots      []model.Slot // the local slots, in order of name
	mayDestroy bool         // nothing forbids to drop, reset or advance
	waiting    bool         // something is expected to change by itself soon

	creates, releases, touches, advances, resets, drops, settings []model.Step

	findings []model.Finding
}

// Plan decides what differs from what should be on in.Node: rules 1 to 8 of the design. The error is an
// *InputError; then there is no plan.
func Plan(in Input) (model.Plan, error) {
	who, err := Resolve(in)
	if err != nil {
		return model.Plan{}, err
	}
	return who.Plan(), nil
}

// Plan is Plan of a look that is resolved already.
func (w Who) Plan() model.Plan {
	v := &view{Who: w, waiting: w.waiting, findings: slices.Clone(w.Findings)}
	if w.Standing == model.InTransition {
		return v.plan(w.Standing)
	}
	v.slots = slices.SortedFunc(slices.Values(w.Instance.Slots), func(a, b model.Slot) int { return strings.Compare(a.Name, b.Name) })
	if w.Standing == model.Standby && !v.upstreamUsable() {
		if w.Upstream == nil || w.Upstream.SystemID == w.Instance.SystemID {
			v.budget() // protects the disk, whoever the primary is
		}
		return v.plan(w.Standing)
	}
	v.mayDestroy = v.nothingForbids(w.Standing)
	v.decide(w.Standing)
	p := v.plan(w.Standing)
	p.Complete = true
	return p
}

// decide applies the rules to a host of known standing.
func (v *view) decide(standing model.Standing) {
	for _, member := range v.Others {
		if standing == model.Primary {
			v.primarySlot(member)
		} else {
			v.standbySlot(member)
		}
	}
	if timeout := v.Instance.IdleSlotTimeout; timeout > 0 {
		v.say(model.CodeIdleTimeout, model.Info, "idle_replication_slot_timeout",
			"PostgreSQL invalidates slots that nobody uses for %.0f s: pgrex uses those of members that are away in time, but cannot "+
				"while it is down, paused or makes no plan; max_slot_wal_keep_size limits what they hold", timeout)
	}
	v.promotion()
	v.ownSlot()
	v.orphans()
	if standing == model.Primary {
		v.primarySetting()
		v.awaited()
	} else {
		v.standbySetting()
	}
	v.fitCapacity()
	v.outlooks()
	v.archiving()
	v.budget()
}

// promotion reports the agent's parameters that can cost data or a copy at a failover.
func (v *view) promotion() {
	if keeps, _ := model.ParseBool(v.Clone.Parameters[model.ParamRestartOnPromote]); keeps {
		v.say(model.CodeTimelineKept, model.Warning, model.ParamRestartOnPromote, "the agent restarts the new primary "+
			"instead of promoting it, "+
			"and the timeline stays: pg_rewind cannot bring back an old primary that has written more, which needs a copy; "+
			"set it to false")
	}
	if v.Clone.Parameters[model.ParamXlogCheckCount] == "0" && v.Policy.RepMode == modeAsync && len(v.Policy.Members) > 2 {
		v.say(model.CodeNewestUnchecked, model.Info, model.ParamXlogCheckCount, "at 0 the agent promotes the first "+
			"standby that it looks at, even if "+
			"another one has newer data, which is then lost; set it to 1 or more: each count takes one monitor interval")
	}
}

// plan puts the steps in order: create, release, touch, advance, reset, drop, settings, attributes. Only where the new
// slots need the room of the dropped ones do the drops come first, and the forecast only where it takes something back.
// The attribute about an operation depends on no other step.
func (v *view) plan(standing model.Standing) model.Plan {
	p := model.Plan{Host: v.Self, Standing: standing, RecheckAfter: recheckIdle}
	first, last := &v.creates, &v.drops
	if len(v.creates) > v.freeSlots() {
		first, last = last, first
	}
	steps := slices.Concat(*first, v.releases, v.touches, v.advances, v.resets, *last, v.settings)
	if v.Policy.Paused {
		v.paused(steps)
	}
	p.Forecast = v.forecast(standing)
	v.toBringBack(p.Forecast)
	v.crashHint()
	if !v.Policy.Paused {
		takesBack, publishes := v.publish(standing, p.Forecast)
		p.Steps = slices.Concat(v.publishLeft(), takesBack, steps, publishes)
	}
	v.autoRejoin()
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
		v.say(model.CodePaused, model.Info, v.Clone.ID, until)
		return
	}
	var texts []string
	for _, s := range waiting {
		texts = append(texts, s.Kind()+" "+s.Text())
	}
	v.say(model.CodePaused, model.Warning, v.Clone.ID, "%s, though there is something to do: %s", until, strings.Join(texts, "; "))
}

// freeSlots is how many more slots max_replication_slots allows. Every slot counts, logical and temporary ones too.
func (v *view) freeSlots() int { return max(0, v.Instance.MaxSlots-len(v.slots)) }

// fitCapacity leaves out the new slots that there is no room for even when the drops are done.
func (v *view) fitCapacity() {
	room := v.freeSlots() + len(v.drops)
	if short := len(v.creates) - room; short > 0 {
		v.say(model.CodeCapacityShort, model.Critical, "max_replication_slots",
			"%d of %d slots are in use and %d more are needed: raise max_replication_slots to %d or more and restart "+
				"PostgreSQL, or drop slots that nobody uses",
			len(v.slots), v.Instance.MaxSlots, len(v.creates), len(v.slots)-len(v.drops)+len(v.creates))
		v.creates = v.creates[:room]
	}
}

// upstreamUsable tells whether a standby knows the server it replicates from, and that both are one system.
func (v *view) upstreamUsable() bool {
	v.waiting = true
	u := v.Upstream
	if u == nil {
		v.say(model.CodeUpstreamUnknown, model.Warning, v.Primary,
			"the primary cannot be asked for its slots, so that nothing is changed here: %s", v.UpstreamProblem)
		return false
	}
	if u.InRecovery {
		v.say(model.CodeUpstreamUnknown, model.Warning, v.Primary,
			"the server at %s is itself a standby, so that its slots say nothing: nothing is changed here", u.Address)
		return false
	}
	if u.SystemID != v.Instance.SystemID {
		v.say(model.CodeOtherSystem, model.Critical, v.Self,
			"the system identifier here is %s, but %s at the upstream %s: these are different databases, nothing is done; "+
				"this host needs a copy of the right one", v.Instance.SystemID, u.SystemID, u.Address)
		return false
	}
	v.waiting = false
	return true
}

// nothingForbids tells whether slots may be dropped, reset or advanced. Each doubt is said.
func (v *view) nothingForbids(standing model.Standing) bool {
	before := len(v.findings)
	c := v.Cluster
	const held = "no slot is dropped, reset or advanced"
	switch {
	case c.DC == "":
		v.say(model.CodeNoQuorum, model.Warning, v.Self, "the cluster has no DC yet, so its quorum is not known: %s", held)
	case !c.Quorate:
		v.say(model.CodeNoQuorum, model.Warning, v.Self, "this partition has no quorum: %s", held)
	}
	switch {
	case v.maintainedBy() != "":
		const because = "the cluster is in maintenance because of %s: %s"
		v.say(model.CodeMaintenance, model.Info, v.Self, because, v.maintainedBy(), held)
	case c.Maintenance || v.Here.Maintenance:
		v.say(model.CodeMaintenance, model.Info, v.Self, "the cluster or this node is in maintenance: %s", held)
	case !v.Clone.Managed:
		v.say(model.CodeUnmanaged, model.Info, v.Clone.ID, "%s is unmanaged: %s", v.Clone.ID, held)
	}
	if c.Version.ConfigurationOlder(v.Newest) {
		v.say(model.CodeCIBStale, model.Warning, v.Self,
			"the CIB (%d.%d) is older than one already seen (%d.%d): %s; if it was restored on purpose, make it the newest, "+
				"on one host: cibadmin --modify --xml-text '<cib admin_epoch=\"%d\"/>'",
			c.Version.AdminEpoch, c.Version.Epoch, v.Newest.AdminEpoch, v.Newest.Epoch, held, v.Newest.AdminEpoch+1)
	}
	if own, _ := v.Upstream.Slot(v.Names[v.Primary]); standing == model.Standby && own.Exists && v.Names[v.Primary] != v.Names[v.Self] {
		v.waiting = true
		v.say(model.CodePrimaryDiffers, model.Warning, v.Primary,
			"the server at %s has a slot for %s, which the CIB says is the primary; no primary has one for itself, so that it may be "+
				"another host: %s until they agree, or pgrex on %s has dropped it", v.Upstream.Address, v.Primary, held, v.Primary)
	}
	if u := v.Upstream; standing == model.Standby && u.Timeline != v.Instance.RedoTimeline {
		v.say(model.CodeTimelineDiffers, model.Info, v.Self,
			"the last restartpoint is on timeline %d, the primary on %d: %s until a restartpoint on the same timeline",
			v.Instance.RedoTimeline, u.Timeline, held)
	}
	return len(v.findings) == before
}

func (v *view) say(code model.Code, severity model.Severity, subject, format string, args ...any) {
	v.findings = append(v.findings, model.Finding{Code: code, Severity: severity, Subject: subject, Text: fmt.Sprintf(format, args...)})
}

func (v *view) guard() model.Guard {
	i := v.Instance
	return model.Guard{SystemID: i.SystemID, InRecovery: i.InRecovery, RedoTimeline: i.RedoTimeline}
}
