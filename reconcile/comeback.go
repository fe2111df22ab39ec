package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// This file decides whether a host comes back without a person (pgrex-auto-rejoin).

// Act is what is done without a person.
type Act string

// The acts.
const (
	ActNothing Act = ""
	ActRejoin  Act = "rejoin" // as "pgrex rejoin" does, up to the dearest way that is allowed
	ActStart   Act = "start"  // as "pgrex start" does without --force: this host becomes the primary
)

// Comeback is what is done without a person, or why this host is left alone.
type Comeback struct {
	Act     Act
	Dearest model.Dearest // the dearest way that may be taken
	Why     string
	// Again is when a host that is left alone is worth another look though nothing has changed; zero for never.
	Again time.Time
}

// Comeback decides whether this host is to come back without a person, now. It leaves the host alone unless everything
// speaks for it.
func (w Who) Comeback(now time.Time) Comeback {
	c := Comeback{Dearest: w.Policy.AutoRejoin}
	for _, guard := range []func() string{w.notAllowed, w.notFit, w.bounded, w.keptAway, w.busy, w.restless} {
		if c.Why = guard(); c.Why != "" {
			return c
		}
	}
	act, why := w.comesBack()
	if act == ActNothing {
		c.Why = why
		return c
	}
	if r := w.remembered(); !r.Due(now) {
		c.Again = r.Next
		c.Why = fmt.Sprintf("the next try is at %s: %s", r.Next.UTC().Format(time.RFC3339), r.Problem)
		return c
	}
	c.Act, c.Why = act, why
	return c
}

func (w Who) remembered() model.AutoRejoin {
	if w.AutoRejoin == nil {
		return model.AutoRejoin{}
	}
	return *w.AutoRejoin
}

// notAllowed is why nothing may be done without a person at all; "" if it may.
func (w Who) notAllowed() string {
	switch {
	case w.Cluster == nil:
		return "the cluster is not known: " + w.ClusterProblem
	case !w.Policy.AutoRejoin.Allows(string(model.DearestStart)):
		return model.MetaAutoRejoin + " is " + string(model.DearestNone)
	case w.Policy.Paused:
		return model.MetaPaused + " is true"
	}
	return ""
}

// notFit is why this look justifies nothing; "" if it does.
func (w Who) notFit() string {
	switch {
	case !w.fit:
		return "the cluster's configuration, or this host's name, is in doubt: see the findings of pgrex status"
	case w.Cluster.Version.ConfigurationOlder(w.Newest):
		return "the CIB is older than one already seen"
	case !w.Here.Online || w.Here.Pending || w.Here.Unclean:
		return "this node is not online in the cluster"
	case !w.Cluster.Quorate:
		return "this partition has no quorum"
	case w.Cluster.DC == "":
		return "the cluster has no DC yet"
	}
	return ""
}

// bounded is why there are no more tries until a person has looked; "" if there may be.
func (w Who) bounded() string {
	r := w.remembered()
	switch {
	case r.Failed():
		return fmt.Sprintf("%d tries in a row have failed; the last one: %s", r.Tries, r.Problem)
	case r.Flaps():
		return fmt.Sprintf("it has come back %d times within an hour", model.MaxReturns)
	}
	return ""
}

// StillAllowed is why an operation that was begun here without a person, by a way, must not go on; "" if it may: a person
// may have spoken meanwhile. own: that operation itself may keep the database stopped.
func (w Who) StillAllowed(way string, own bool) string {
	switch why := w.notAllowed(); {
	case why != "":
		return why
	case !w.fit:
		return w.notFit()
	case !w.Policy.AutoRejoin.Allows(way):
		return fmt.Sprintf("%s is %s now, which does not allow %s", model.MetaAutoRejoin, w.Policy.AutoRejoin, way)
	}
	return w.keptAwayHere(own)
}

func (w Who) keptAway() string { return w.keptAwayHere(w.isOwnLeft()) }

// keptAwayHere is how a person keeps the database from this host, or Pacemaker from acting on it; "" if nobody does. own:
// what pgrex itself keeps stopped is that of an operation that was begun here without a person.
func (w Who) keptAwayHere(own bool) string {
	switch role := w.Clone.Meta["target-role"]; {
	case w.Cluster.Maintenance || w.Here.Maintenance:
		return "the cluster or this node is in maintenance"
	case w.Cluster.StopAll:
		return "stop-all-resources is true, or a rule may set it"
	case !w.Clone.Managed:
		return "the database is unmanaged"
	case w.Here.Standby:
		return "this node is in standby mode"
	case role != "" && !strings.EqualFold(role, "Started") && !strings.EqualFold(role, "Promoted") && !strings.EqualFold(role, "Master"):
		return "target-role is " + role
	case w.Clone.KeptStopped(w.Here.Name) && !own:
		return "pgrex keeps the database here stopped, as after pgrex stop"
	}
	return w.keptAwayBy(own)
}

// keptAwayBy is how a location constraint keeps the database from this host, or may; "" if none does. With own, pgrex's
// does not count.
func (w Who) keptAwayBy(own bool) string {
	for _, l := range w.Clone.Locations {
		switch {
		case own && l.ID == model.StopConstraint(w.Clone.Primitive, w.Here.Name):
		case l.BarsPromotion() && model.SameNode(l.Node, w.Here.Name), l.TimedBanOf(w.Here.Name):
			return "the constraint " + l.ID + " keeps the database, or its promotion, from this node"
		case l.ByRule():
			return "the constraint " + l.ID + " may keep the database from this node: it has a rule, which pgrex does not evaluate"
		}
	}
	return ""
}

// isOwnLeft reports whether the operation that was left on this host was begun without a person. It is gone on with.
func (w Who) isOwnLeft() bool {
	return w.Operation.Left() && w.Operation.Who == model.AutoRejoinWho &&
		(w.Operation.Operation == string(ActRejoin) || w.Operation.Operation == string(ActStart))
}

// busy is which operation is under way or unfinished, but for one of this host's own; "" if there is none.
func (w Who) busy() string {
	if w.Operation != nil && w.Operation.Running {
		return "an operation is under way here: " + w.Operation.Operation
	}
	own := w.isOwnLeft()
	if _, there, err := w.Cluster.Token(w.Clone.Primitive); there && err != nil {
		return "an operation holds the database, and its token is not understood"
	}
	mine := func(host string) bool { return own && w.Is(host) }
	if t := w.token; t != nil && !mine(t.Host) {
		return begunBy(*t).String() + " is under way or unfinished"
	}
	for _, n := range w.Cluster.Nodes {
		if what := w.leftOn(n); what != "" && !mine(n.Name) {
			return fmt.Sprintf("the %s that was begun on %s is unfinished", what, n.Name)
		}
	}
	return ""
}

// restless is what Pacemaker has under way; "" if it is at rest.
func (w Who) restless() string {
	for _, n := range w.Cluster.Nodes {
		if n.Pending || n.Unclean {
			return n.Name + " is joining or leaving the cluster, or is to be fenced"
		}
	}
	ended := []model.Unsettled{model.UnsettledFailed, model.UnsettledBlocked, model.UnsettledOrphaned}
	for _, member := range w.Policy.Members {
		why, unsettled := w.Clone.UnsettledOn(member)
		if unsettled && (w.Is(member) || !slices.Contains(ended, why)) {
			return fmt.Sprintf("to Pacemaker the database on %s is %s", member, why)
		}
	}
	return ""
}

// comesBack is what brings this host back now that Pacemaker is at rest, or why nothing has to, or may.
func (w Who) comesBack() (Act, string) {
	switch {
	case w.isOwnLeft() && w.isBack():
		return Act(w.Operation.Operation), "this host is back, and the operation that brought it back has not ended"
	case w.Is(w.Primary):
		return ActNothing, "this host is the primary"
	case w.Primary == "" && (w.claims == nil || w.claims.Code != model.CodeOutage):
		return ActNothing, "no host is confirmed as primary yet"
	case w.Instance.State != model.ServerDown:
		return ActNothing, "PostgreSQL here is " + string(w.Instance.State)
	}
	stays := w.comesByItself
	if w.isOwnLeft() { // it keeps the database stopped, or has removed what kept it from starting
		stays = w.unknownFailure
	}
	if why := stays(); why != "" {
		return ActNothing, why
	}
	if w.Primary != "" {
		return ActRejoin, fmt.Sprintf("the database here does not come back by itself, and %s is the primary", w.Primary)
	}
	if underWay := w.underWay(); underWay != "" {
		return ActNothing, "no host is the primary, but " + underWay
	}
	switch newest := w.newest(); {
	case len(newest) > 1:
		return ActNothing, "more than one host's data are said to be the newest: " + strings.Join(newest, ", ")
	case len(newest) == 1 && !w.Is(newest[0]):
		return ActNothing, "no host is the primary, and " + newest[0] + " is said to have the newest data"
	}
	return ActStart, "no host is the primary, and Pacemaker promotes none"
}

// isBack reports whether the operation that was left here has brought this host back: then only its end is missing. A
// start may have followed a primary.
func (w Who) isBack() bool {
	if w.Operation.Operation == string(ActStart) && w.Is(w.Primary) {
		return true
	}
	return w.Primary != "" && !w.Is(w.Primary) && w.Instance.State == model.ServerUp && w.Instance.InRecovery &&
		w.Instance.Receiver.Streaming() && w.Instance.Receiver.SlotName == w.OwnSlot()
}

// comesByItself is why Pacemaker may still start the database here, or why it does not for a reason that only a person
// knows; "" if it has given the database up for a reason that is known.
//
// After a power-on, the agent's start fails on PGSQL.lock, which counts as INFINITY. After the promotion score of a
// crashed primary was taken away, that host is unpromoted without a server until the next monitor sees it.
func (w Who) comesByItself() string {
	switch role := w.RoleOf(w.Self); {
	case role == model.RoleUnpromoted && w.Lock != "":
	case role == model.RoleUnpromoted:
		return "PostgreSQL has ended, and Pacemaker has yet to see it"
	case role != model.RoleStopped:
		return "to Pacemaker the database here is " + w.RoleText(w.Self)
	case !w.givenUp(w.Here):
		return "Pacemaker has not given the database here up, and starts it by itself"
	}
	return w.unknownFailure()
}

// unknownFailure names a failure of the database here whose reason is not known; "" if there is none. Known are a
// failed monitor, by which Pacemaker sees that the server has ended, and a failed start with the agent's lock there. An
// operation of this host's own may have removed that lock.
func (w Who) unknownFailure() string {
	for _, name := range slices.Sorted(maps.Keys(w.Here.Transient)) {
		value := w.Here.Transient[name]
		_, action, _ := strings.Cut(name, "#")
		switch action, _, _ = strings.Cut(action, "_"); {
		case !isFailCount(name, w.Clone.Primitive) || value == "0" || action == "monitor":
		case action == "start" && (w.Lock != "" || w.isOwnLeft()):
		case action == "start":
			return "a start has failed here, and the agent's PGSQL.lock is not the reason: see PostgreSQL's log"
		default:
			return fmt.Sprintf("an action has failed here (%s=%s), and the reason is not known", name, value)
		}
	}
	return ""
}

// autoRejoin reports that nothing is done without a person though it should be.
func (v *view) autoRejoin() {
	if v.Cluster == nil || v.AutoRejoin == nil || v.Policy.AutoRejoin == model.DearestNone || !v.fit {
		return
	}
	const until = "nothing more is done without a person until somebody types sudo pgrex rejoin on %s"
	r := v.remembered()
	switch {
	case r.Failed():
		v.say(model.CodeAutoRejoinFailed, model.Critical, v.Self, "%d tries in a row to bring the database here back have failed; the last one: %s; "+until,
			r.Tries, r.Problem, v.Self)
	case r.Flaps():
		v.say(model.CodeFlapping, model.Critical, v.Self, "the database here has come back without a person %d times within an hour: something makes "+
			"it fail again and again; see PostgreSQL's log and the hardware; "+until, model.MaxReturns, v.Self)
	case r.Refused && v.isOwnLeft():
		v.say(model.CodeAutoRejoinFailed, model.Critical, v.Self, "the %s that was begun on %s without a person is unfinished, and cannot go on without a person: %s; "+
			"until it has ended, no other operation can begin, no other host comes back without a person, and no crash hint is given",
			v.Operation.Operation, v.Self, r.Problem)
	}
	if !r.Running {
		unit := "pgrex-rejoin"
		if len(databasesOf(*v.Cluster)) > 1 {
			unit += "@" + v.Clone.Primitive
		}
		v.say(model.CodeAutoRejoinOff, model.Warning, v.Self, "%s is %s, but %s.service does not run here: type: sudo systemctl enable --now %[3]s",
			model.MetaAutoRejoin, v.Policy.AutoRejoin, unit)
	}
}
