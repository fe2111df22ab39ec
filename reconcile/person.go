package reconcile

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// This file finds what a person has to do, and on which host. Every host says the same.

// How long nobody may be the primary, in seconds, before that is an outage: between two actions of Pacemaker's
// nothing is
// under way for a moment; and what is under way may never come to an end.
const (
	betweenActions = 10
	failoverEnds   = 300
)

// noPrimary returns the finding for a cluster in which no host claims to be the primary: InTransition for a while, if
// one may still come by itself (underWay), and otherwise an Outage, which only a person can end.
func (w Who) noPrimary() *model.Finding {
	f := model.Finding{Code: model.CodeInTransition, Severity: model.Warning, Subject: w.Clone.ID}
	underWay, since := w.underWay(), w.WithoutPrimary
	switch {
	case underWay != "" && since < failoverEnds:
		f.Text = "no host is promoted: nothing is done until one is; " + underWay
		return &f
	case since > 0 && since < betweenActions:
		f.Text = "no host is promoted: nothing is done until one is"
		return &f
	}
	f.Code, f.Severity = model.CodeOutage, model.Critical
	var states []string
	for _, c := range w.Claims() {
		states = append(states, w.stateOf(c))
	}
	all := strings.Join(states, "; ")
	if underWay != "" {
		f.Text = fmt.Sprintf("no host is the primary for %s, though %s (%s): see crm_mon, and Pacemaker's log, for "+
			"what keeps it from being promoted",
			model.FormatSeconds(since), underWay, all)
		return &f
	}
	f.Text = fmt.Sprintf("no host is the primary, and Pacemaker promotes none (%s): %s", all, w.endOfOutage())
	return &f
}

// underWay returns why a primary may still come by itself, or why that cannot be known; "" if none will come.
func (w Who) underWay() string {
	switch {
	case w.Cluster.DC == "":
		return "the cluster has no DC yet"
	case !w.Cluster.HasQuorum():
		return "this partition has no quorum, and another one may have the primary"
	}
	for _, member := range w.Policy.Members {
		n := w.NodeOf(member)
		why, unsettled := w.Clone.UnsettledOn(member)
		switch {
		case n.Unclean || n.Pending:
			return n.Name + " is joining or leaving the cluster"
		case unsettled && why != model.UnsettledFailed && why != model.UnsettledBlocked && why != model.UnsettledOrphaned:
			return fmt.Sprintf("to Pacemaker the database on %s is %s", member, why)
		case w.MayTakeOver(member):
			return "the agent lets " + member + " be the primary"
		}
	}
	return ""
}

// MayTakeOver reports whether the agent lets a running standby become the primary, now or when one of its next monitors
// raises the score (have_master_right). It does so if the data is in step or the newest, or if there never was a
// primary.
func (w Who) MayTakeOver(member string) bool {
	if w.Cluster.Maintenance || !w.Clone.Managed {
		return false // nobody is promoted before that ends
	}
	n := w.NodeOf(member)
	status := n.Permanent[DataStatus(w.Clone)]
	inStep := status == "" || status == DataSync || status == DataLatest || status == dataAsync && w.Policy.RepMode == modeAsync
	_, barred := w.barred(member)
	return n.Online && !n.Standby && w.RoleOf(member) == model.RoleUnpromoted && !w.WithoutServer(member) && inStep && !barred
}

// barred is the constraint that keeps a host from being promoted, if there is one.
func (w Who) barred(member string) (id string, is bool) {
	for _, l := range w.Clone.Locations {
		if model.SameNode(l.Node, member) && l.BarsPromotion() {
			return l.ID, true
		}
	}
	return "", false
}

func (w Who) scoreOf(n model.Node) string { return n.Attribute(PromotionScore(w.Clone)) }

func (w Who) scoreText(n model.Node) string { return cmp.Or(w.scoreOf(n), "none") }

// PromotionScore is the name of the transient node attribute with a host's promotion score (crm_attribute --promotion).
func PromotionScore(clone model.Clone) string { return "master-" + clone.Primitive }

// stateOf returns a text with what is known of a member that is not the primary.
func (w Who) stateOf(c Claim) string {
	n := w.NodeOf(c.Host)
	var words []string
	switch {
	case !n.Online:
		words = append(words, "offline")
	case n.Standby:
		words = append(words, "in standby")
	}
	if n.Online {
		words = append(words, "database "+w.RoleText(c.Host))
	}
	words = append(words, "data "+dataStatusText(c.DataStatus), "score "+w.scoreText(n))
	if c.Location.IsValid() {
		words = append(words, "up to "+c.Location.String())
	}
	if w.Clone.KeptStopped(c.Host) {
		words = append(words, "kept stopped by pgrex")
	} else if id, barred := w.barred(c.Host); barred {
		words = append(words, "kept from it by the constraint "+id)
	}
	if failures(n, w.Clone.Primitive) {
		words = append(words, "has failed there")
	}
	if w.Is(c.Host) && w.Lock != "" {
		words = append(words, w.Lock+" exists")
	}
	return c.Host + ": " + strings.Join(words, ", ")
}

// endOfOutage returns a text with what a person has to do to end an outage.
func (w Who) endOfOutage() string {
	if w.toEnd() {
		return fmt.Sprintf("target-role of %s is %s; when the database is to run, type: crm_resource --resource "+
			"%[1]s --meta --delete-parameter target-role",
			w.Clone.ID, w.Clone.Meta["target-role"])
	}
	if by := w.maintainedBy(); by != "" {
		return "the cluster is in maintenance because of " + by + ", which has to end first"
	}
	if w.Cluster.Maintenance || !w.Clone.Managed {
		return "the cluster is in maintenance, or the database is unmanaged; end that first"
	}
	newest := w.newest()
	if len(newest) != 1 {
		return "the data status of the hosts does not show which one has the newest data; find out (sudo pgrex " +
			"start --force --dry-run on a host says how far its data go), and on that host, type: sudo pgrex start"
	}
	host := newest[0]
	n := w.NodeOf(host)
	start := fmt.Sprintf("on %s, type: sudo pgrex start", host)
	if w.RoleOf(host) == model.RoleUnpromoted {
		start = fmt.Sprintf("on %s, type: sudo pgrex stop, then sudo pgrex start", host)
	}
	if n.Online {
		return fmt.Sprintf("%s has the newest data; %s, which checks this with the other hosts and says what proof "+
			"is missing", host, start)
	}
	return fmt.Sprintf("%s has the newest data and is offline; bring it back, and on %[1]s, type: sudo pgrex start; "+
		"if it never comes back, the data that only it has is lost: on %s, type: sudo pgrex stop, then sudo pgrex "+
		"start --force", host, w.nextNewest())
}

// nextNewest names the running standbys with the newest data, if the agent says where their data end.
func (w Who) nextNewest() string {
	var hosts []string
	var furthest model.LSN
	for _, c := range w.Claims() {
		switch {
		case w.RoleOf(c.Host) != model.RoleUnpromoted || w.WithoutServer(c.Host) || c.Location < furthest:
		case c.Location > furthest:
			furthest, hosts = c.Location, []string{c.Host}
		default:
			hosts = append(hosts, c.Host)
		}
	}
	if !furthest.IsValid() {
		return "the host with the next newest data"
	}
	return fmt.Sprintf("%s, which has the next newest data (up to %s)", strings.Join(hosts, " or "), furthest)
}

// newest returns the hosts whose data is said to be the newest: the last primary, or else, of the hosts that had all
// that it acknowledged, those that are furthest.
func (w Who) newest() []string {
	var latest, inStep []string
	var furthest model.LSN
	for _, c := range w.Claims() {
		switch {
		case c.DataStatus == DataLatest:
			latest = append(latest, c.Host)
		case c.DataStatus != DataSync || c.Location < furthest:
		case c.Location > furthest:
			furthest, inStep = c.Location, []string{c.Host}
		default:
			inStep = append(inStep, c.Host)
		}
	}
	if len(latest) > 0 {
		return latest
	}
	return inStep
}

// failures reports whether Pacemaker counts failures of a primitive on a node.
func failures(n model.Node, primitive string) bool {
	for name, value := range n.Transient {
		if isFailCount(name, primitive) && value != "0" {
			return true
		}
	}
	return false
}

// givenUp reports whether Pacemaker counts so many failures of the database on a node that it does not start it there
// again
// (migration-threshold; a start that fails counts as INFINITY).
func (w Who) givenUp(n model.Node) bool {
	threshold, err := strconv.Atoi(w.Clone.Meta["migration-threshold"])
	if err != nil || threshold <= 0 {
		threshold = math.MaxInt
	}
	all := 0 // Pacemaker adds up those of all actions
	for name, value := range n.Transient {
		if !isFailCount(name, w.Clone.Primitive) {
			continue
		}
		count, err := strconv.Atoi(value)
		if strings.EqualFold(value, "INFINITY") || err == nil && count >= model.Infinity {
			return true
		}
		all += count
	}
	return all >= threshold
}

// isFailCount reports whether Pacemaker counts failures of a primitive in that attribute, of one operation or of all.
func isFailCount(name, primitive string) bool {
	rest, ok := strings.CutPrefix(name, "fail-count-"+primitive)
	return ok && (rest == "" || rest[0] == '#')
}

// toBringBack reports the hosts that only a person can bring back: Pacemaker has given the database up there, or
// somebody has told it to keep the database stopped.
func (v *view) toBringBack(forecasts []model.Forecast) {
	if v.Primary == "" || v.Cluster.Maintenance || !v.Clone.Managed {
		return
	}
	for _, member := range v.Policy.Members {
		n := v.NodeOf(member)
		if !n.Online || n.Maintenance || v.RoleOf(member) != model.RoleStopped {
			continue
		}
		switch {
		case v.Clone.KeptStopped(member):
			v.say(model.CodeStopped, model.Info, member, "pgrex keeps the database on %s stopped; on %[1]s, type: "+
				"sudo pgrex start", member)
		case n.Standby:
			v.say(model.CodeStopped, model.Info, member, "the database on %s is stopped, and its node is in "+
				"standby; on %[1]s, type: sudo pgrex start", member)
		case v.keptAway(member):
			v.sayKeptAway(member)
		case v.givenUp(n):
			v.say(model.CodeRejoinNeeded, model.Warning, member, "the database on %s has failed, and Pacemaker does "+
				"not start it again%s; on %[1]s, type: sudo pgrex rejoin",
				member, comesBackBy(forecasts, member))
		}
	}
}

// keptAway reports whether somebody keeps the database from a host: Pacemaker then does not start it, whatever it
// counts.
func (v *view) keptAway(member string) bool {
	return strings.EqualFold(v.Clone.Meta["target-role"], "Stopped") || slices.ContainsFunc(v.Clone.Locations, func(l model.Location) bool {
		return model.SameNode(l.Node, member) && l.Bars()
	})
}

// sayKeptAway reports the constraint of somebody else's that keeps the database from a host. Not only people type
// crm_resource --ban: the agent bans a host whose data went further than the new primary's.
func (v *view) sayKeptAway(member string) {
	for _, l := range v.Clone.Locations {
		switch {
		case !model.SameNode(l.Node, member) || !l.Bars():
		case l.ByTool():
			v.say(model.CodeStopped, model.Info, member, "the constraint %s of crm_resource keeps the database on %s stopped; on %[2]s, type: "+
				"sudo pgrex rejoin, which removes it", l.ID, member)
			return
		default:
			v.say(model.CodeStopped, model.Info, member, "the constraint %s keeps the database on %s stopped; change it when the database is "+
				"to run there", l.ID, member)
			return
		}
	}
}

// comesBackBy returns the forecast for a host as part of a sentence, "" if there is none.
func comesBackBy(forecasts []model.Forecast, member string) string {
	for _, f := range forecasts {
		if f.Host == member && f.Way != model.WayUnknown {
			return fmt.Sprintf("; if the primary stays, it comes back by %s", f.Way)
		}
	}
	return ""
}
