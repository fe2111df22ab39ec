package reconcile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// This file decides about the crash hint: whether Pacemaker is told at once that this host's primary has crashed, before
// its next monitor sees that. Whatever is not sure is a reason not to: then the monitor will see it.

// HintFresh is how old a look may be that justifies a hint.
const HintFresh = time.Second

// Verdict is whether something may be done, and why not.
type Verdict struct {
	OK  bool
	Why string // "" if OK
}

// Crash is what was found where this host's postmaster has ended.
type Crash struct {
	End model.PostmasterEnd
	Age time.Duration // of the look at the end and at the cluster
}

// Hint decides whether the end of this host's postmaster is a crash of the primary, and whether Pacemaker, once it is
// told, will promote another host.
func (w Who) Hint(c Crash) Verdict {
	end := c.End
	switch {
	case end.Problem != "":
		return no("how the postmaster ended is not known: %s", end.Problem)
	case end.Told:
		return no("the postmaster was told to stop")
	case end.Replaced:
		return no("another postmaster has the data folder")
	case end.State != model.InProduction:
		return no("the control file says %q, not %q", end.State, model.InProduction)
	case c.Age > HintFresh:
		return no("the look took %s, and what was seen may have changed", c.Age.Round(time.Millisecond))
	}
	return w.HintNow()
}

// HintNow decides whether a crash of this host's PostgreSQL would be told to Pacemaker, as far as the cluster is
// concerned.
func (w Who) HintNow() Verdict {
	if w.Cluster == nil {
		return no("the cluster is not known: %s", w.ClusterProblem)
	}
	for _, guard := range []func() Verdict{w.hintWanted, w.hintHeeded, w.crashedPrimary, w.hintLeft, w.heirs} {
		if v := guard(); !v.OK {
			return v
		}
	}
	return Verdict{OK: true}
}

func no(format string, args ...any) Verdict { return Verdict{Why: fmt.Sprintf(format, args...)} }

// hintWanted: pgrex is to do this, and this look says who is who.
func (w Who) hintWanted() Verdict {
	switch {
	case !w.Policy.CrashHint:
		return no("%s is not true", model.MetaCrashHint)
	case w.Policy.Paused:
		return no("%s is true", model.MetaPaused)
	case !w.fit:
		return no("this host's name, or the policy, is not known for sure: see the other findings")
	case w.Cluster.Version.ConfigurationOlder(w.Newest):
		return no("the CIB is older than one already seen")
	}
	return Verdict{OK: true}
}

// hintHeeded: Pacemaker reacts to failures of the database here, and nobody else works on it.
func (w Who) hintHeeded() Verdict {
	_, token, _ := w.Cluster.Token(w.Clone.Primitive)
	switch {
	case !w.Cluster.Quorate:
		return no("this partition has no quorum")
	case w.Cluster.DC == "":
		return no("the cluster has no DC")
	case w.Cluster.Maintenance || w.Here.Maintenance:
		return no("the cluster or this node is in maintenance")
	case !w.Clone.Managed:
		return no("%s is unmanaged", w.Clone.ID)
	case token:
		return no("an operation holds the database")
	case w.Operation != nil && w.Operation.Operation != "":
		return no("the operation %s was begun here", w.Operation.Operation)
	}
	return Verdict{OK: true}
}

// underWayActions are the reasons why an instance is unsettled that end by themselves.
var underWayActions = []model.Unsettled{
	model.UnsettledStarting, model.UnsettledPromoting, model.UnsettledDemoting, model.UnsettledStopping, model.UnsettledMigrating,
	model.UnsettledPending,
}

// crashedPrimary: this host is the primary by every sign, and is to stay it. No action on the database is under way.
func (w Who) crashedPrimary() Verdict {
	switch {
	case w.claims != nil:
		return no("no primary is confirmed: %s", w.claims.Text)
	case !w.Is(w.Primary):
		return no("this host is not the primary")
	case w.Here.Standby:
		return no("this node is in standby")
	case w.toEnd():
		return no("target-role is %s", w.Clone.Meta["target-role"])
	}
	if id, barred := w.barred(w.Self); barred {
		return no("the constraint %s keeps this host from being promoted", id)
	}
	for _, member := range w.Policy.Members {
		if why, unsettled := w.Clone.UnsettledOn(member); unsettled && slices.Contains(underWayActions, why) {
			return no("to Pacemaker the database on %s is %s", member, why)
		}
	}
	return Verdict{OK: true}
}

// hintLeft: a failure leads to a demotion or a restart, and is not to do something else, which is the operator's choice.
// That is so for every monitor: after a hint not the promoted instance fails, but the demoted one. And the promoted
// instance is monitored, and actions under way show.
func (w Who) hintLeft() Verdict {
	switch watched := w.Clone.Watched; {
	case watched.ByRule:
		return no("a rule sets on-fail of a monitor, which pgrex does not evaluate")
	case watched.Unrecorded:
		return no("record-pending is off, so that actions under way do not show")
	case watched.Unmonitored:
		return no("the promoted instance has no monitor, or one that may be disabled")
	default:
		for _, value := range watched.OnFail {
			if value != "restart" && value != "demote" {
				return no("on-fail of a monitor is %s", value)
			}
		}
	}
	return Verdict{OK: true}
}

// heirs: Pacemaker can promote another host at once.
func (w Who) heirs() Verdict {
	var states []string
	for _, member := range w.Others {
		why := w.noHeir(member)
		if why == "" {
			return Verdict{OK: true}
		}
		states = append(states, member+": "+why)
	}
	return no("no other host may be promoted now (%s)", orNone(states))
}

// noHeir returns why Pacemaker cannot promote another member at once; "" if it can.
func (w Who) noHeir(member string) string {
	n := w.NodeOf(member)
	barred := w.heirBarred(member)
	switch {
	case !n.Online || n.Pending:
		return "offline"
	case n.Unclean:
		return "unclean"
	case n.Standby:
		return "in standby"
	case n.Maintenance:
		return "in maintenance"
	case w.RoleOf(member) != model.RoleUnpromoted || w.WithoutServer(member):
		return w.RoleText(member)
	case barred:
		return "kept from it by a constraint"
	case w.givenUp(n):
		return "has failed there"
	case !positive(w.scoreOf(n)):
		return "promotion score " + w.scoreText(n)
	}
	return ""
}

// heirBarred reports whether a constraint keeps a host from being promoted, or may do so: where it has a lifetime, as
// crm_resource --ban --lifetime makes one, a rule has the node and the score. pgrex does not evaluate it; the name tells
// the node.
func (w Who) heirBarred(member string) bool {
	if _, barred := w.barred(member); barred {
		return true
	}
	return slices.ContainsFunc(w.Clone.Locations, func(l model.Location) bool {
		suffix := "-on-" + strings.ToLower(member)
		banned := strings.HasPrefix(l.ID, "cli-ban-") && strings.HasSuffix(strings.ToLower(l.ID), suffix)
		return l.Node == "" && (banned || strings.EqualFold(l.Role, "Promoted") || strings.EqualFold(l.Role, "Master"))
	})
}

// positive reports whether a promotion score lets Pacemaker promote a host.
func positive(score string) bool {
	text := strings.TrimPrefix(score, "+")
	n, err := strconv.Atoi(text)
	return strings.EqualFold(text, "INFINITY") || err == nil && n > 0
}

// toEnd reports whether target-role keeps the database from being promoted.
func (w Who) toEnd() bool {
	role := w.Clone.Meta["target-role"]
	return strings.EqualFold(role, "Stopped") || strings.EqualFold(role, "Unpromoted") || strings.EqualFold(role, "Slave")
}

// WithoutServer reports whether a host's database is unpromoted to Pacemaker, though the agent has stopped its server.
// This is the state after a demotion without a stop, for example after a crash hint, until Pacemaker's next monitor
// there. The agent's status alone proves nothing: it may be left over from before a start.
func (w Who) WithoutServer(host string) bool {
	n := w.NodeOf(host)
	return w.RoleOf(host) == model.RoleUnpromoted && n.Attribute(w.Clone.Primitive+statusSuffix) == statusStopped &&
		!strings.HasPrefix(n.Attribute(DataStatus(w.Clone)), dataStreaming) && (!w.Is(host) || w.Instance.State != model.ServerUp)
}

// crashHint reports that a crash was told to Pacemaker, until PostgreSQL runs here again and may be promoted; and that a
// crash could not be seen.
func (v *view) crashHint() {
	up := v.Instance.State == model.ServerUp
	if v.Policy.CrashHint && up && v.Unwatched != "" {
		v.say(model.CodeCrashUnwatched, model.Warning, v.Self, "%s is true, but PostgreSQL here is not watched, and Pacemaker would "+
			"not be told of a crash at once: %s", model.MetaCrashHint, v.Unwatched)
	}
	c := v.Crash
	if c == nil {
		return
	}
	crashed := fmt.Sprintf("PostgreSQL here (process %d) crashed at %s", c.PID, c.At.UTC().Format(time.RFC3339))
	switch {
	case up:
		if (c.Given || c.Unanswered) && v.RoleOf(v.Self) == model.RolePromoted && !positive(v.scoreOf(v.Here)) {
			v.say(model.CodeCrashHint, model.Warning, v.Self,
				"%s, and Pacemaker was told; PostgreSQL is promoted here again, but the promotion score of this host is still %s; "+
					"type: crm_resource --refresh --resource %s --node %s", crashed, v.scoreText(v.Here), v.Clone.ID, v.Self)
		}
	case c.Given:
		v.say(model.CodeCrashHint, model.Warning, v.Self,
			"%s; Pacemaker was told at once: the promotion score of this host is -INFINITY; until its next monitor here Pacemaker shows "+
				"the database as unpromoted", crashed)
	case c.Unanswered:
		v.say(model.CodeCrashHint, model.Warning, v.Self, "%s; %s", crashed, c.Why)
	case c.Failed:
		v.say(model.CodeCrashHint, model.Warning, v.Self, "%s; Pacemaker could not be told, and its next monitor has to see it: %s",
			crashed, c.Why)
	}
}
