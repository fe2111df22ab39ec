package service

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// While no host is the primary, this file decides whether it is proven that no other member has newer data than this
// host. It decides about each member separately: by what its server answers or, if no server runs there, by what the
// agent last wrote about its data.

// ours is what this host has, and what the CIB here can prove about members that do not answer.
type ours struct {
	reconcile.LocalData
	// Doubt is why the data here are not known to be those of the last primary; "" if they are. Then the data status of
	// this host is LATEST: a host that is promoted makes every other one DISCONNECT before it takes writes
	// (pgsql_promote), so by this CIB this host was the last primary. And the data are those that it had then.
	Doubt string
	// Unsure is why the data status of another member proves nothing about it; "" if it does. Without Doubt, it does. It
	// also does if no host is LATEST, and the data here are those of which the data status of this host says
	// STREAMING|SYNC: nobody was promoted since, and this host had all that the last primary acknowledged.
	Unsure string
	Async  bool // rep_mode is async: the agent also promotes a standby that was asynchronous
	// Overlooks is why the CIB here may lack the promotion of a host that is offline; "" if it cannot lack it.
	Overlooks string
}

// disconnected is the data status that a promotion gives every other host.
const disconnected = "DISCONNECT"

// notLatest is the doubt where the data status of this host is not LATEST.
const notLatest = "this host was not the last primary"

// other is what is known of another member.
type other struct {
	reconcile.Claim // what the agent keeps in the CIB
	Node            model.Node
	// State is the state of its database in Pacemaker's words, if the database may run; "" if it is stopped, or the
	// host is offline.
	State string
	Next  bool // the agent lets it become the primary by itself

	Said    *answer // what its server answers; nil if it does not
	Heard   bool    // a server is there, but did not let pgrex in, or did not answer all questions
	Problem string  // why there is no answer
}

// answer is what a member's server says over the replication protocol.
type answer struct {
	model.Upstream
	Timelines []model.Timeline // up to the one that it is on
	Later     bool             // it knows the timeline that comes after this host's newest one
	// Same: on this host's newest timeline, its last WAL is the same as the WAL at that position here, byte by byte.
	// What this host wrote last may be half a record; the standby may have received that half.
	Same bool
	Gone bool // the WAL at that position is no longer here
	// Replays is why it may have more WAL than it says; "" if it cannot, or if all that it has came from this host.
	Replays string
	// Commit is when the last transaction in that WAL was committed; "" if that is not known.
	Commit string
}

// verdict is the decision about a member. OK: it is proven that the member has nothing newer. Otherwise Why says what
// is missing, and what to do.
type verdict struct {
	OK  bool
	Why string
}

func older(format string, args ...any) verdict   { return verdict{true, fmt.Sprintf(format, args...)} }
func missing(format string, args ...any) verdict { return verdict{false, fmt.Sprintf(format, args...)} }

// judge decides about one member. What its server answers counts more than what the CIB says, because the CIB only says
// how the member's data were when the last primary looked.
func (o ours) judge(m other) verdict {
	switch {
	case m.DataStatus == reconcile.DataLatest:
		return missing("%s has the data status %s: start that host first", m.Host, m.DataStatus)
	case m.Node.Unclean || m.Node.Pending:
		return missing("%s is joining or leaving the cluster, or is to be fenced: wait until crm_mon shows it "+
			"online or offline",
			m.Host)
	case m.Next:
		return missing("%s runs, and with its data status (%s) the agent promotes it by itself: wait; if it does "+
			"not, see crm_mon -A", m.Host, cmp.Or(m.DataStatus, "none"))
	case m.Said != nil:
		return o.judgeAnswer(m, *m.Said)
	case m.Heard, m.State != "":
		return missing("the server on %s (to Pacemaker: %s) does not say what it has: %s; let it answer this host, "+
			"as for pgrex rejoin, or end it with sudo pgrex stop there",
			m.Host, cmp.Or(m.State, string(model.RoleStopped)), m.Problem)
	}
	return o.judgeStatus(m)
}

// judgeAnswer compares a server's timelines and the end of its WAL with those here. Where that proves nothing, the data
// status may, as for a member whose server does not run.
func (o ours) judgeAnswer(m other, a answer) verdict {
	name := m.Host
	mine, its := o.Timelines, a.Timelines
	newest := mine[len(mine)-1]
	shared := 0
	for shared < min(len(mine), len(its)) && mine[shared] == its[shared] {
		shared++
	}
	switch {
	case a.SystemID != o.SystemID:
		return missing("%s has another database: its system identifier is %s, here it is %s; find out which is the "+
			"right one",
			name, a.SystemID, o.SystemID)
	case !a.InRecovery:
		return missing("the server on %s is a primary that Pacemaker does not know: stop it, or let Pacemaker look "+
			"again (crm_resource --refresh)", name)
	case shared == len(mine) && shared < len(its):
		return missing("%s is on the newer timeline %d, which began at %s, and the data here end at %s on timeline "+
			"%d: let %[1]s be the primary, then type sudo pgrex rejoin here",
			name, its[len(its)-1].ID, its[shared].Begin, o.End, newest.ID)
	case a.Later:
		return missing("%s knows a timeline after %d, the newest here: another host was promoted; let that one be the "+
			"primary, then type sudo pgrex rejoin here", name, newest.ID)
	case shared < len(its):
		return missing("%s is on timeline %d, which is none of those that led to timeline %d here: find out which "+
			"data are the right ones", name, its[len(its)-1].ID, newest.ID)
	case shared < len(mine) && a.Flushed > mine[shared].Begin && (o.Doubt != "" || m.DataStatus != disconnected):
		// This host may have been promoted by hand, or restored to a point in time, while the others went on.
		return missing("%s has WAL up to %s on timeline %d, which the timelines here left at %s: that may be newer, "+
			"because %s; let %[1]s be the primary, or find out which data are the right ones",
			name, a.Flushed, a.Timeline, mine[shared].Begin,
			cmp.Or(o.Doubt, fmt.Sprintf("its data status is %s, and not %s, as after a promotion here by the agent",
				cmp.Or(m.DataStatus, "none"), disconnected)))
	case shared < len(mine) && a.Replays != "", a.Replays != "" && a.Same:
		return o.statusOr(m, missing("%s says that it has WAL up to %s on timeline %d, and may still replay: %s; since "+
			"%s, that proves nothing: wait", name, a.Flushed, a.Timeline, a.Replays, o.Doubt))
	case shared < len(mine) && a.Flushed > mine[shared].Begin:
		return older("%s answers: it is on the older timeline %d up to %s, which the timelines here left at %s; "+
			"what it has beyond that was given up then, and it needs sudo pgrex rejoin",
			name, a.Timeline, a.Flushed, mine[shared].Begin)
	case shared < len(mine):
		return older("%s answers: it is on the older timeline %d up to %s", name, a.Timeline, a.Flushed)
	case !a.Same && a.Flushed > o.End:
		return missing("%s has WAL up to %s, which is %s more than here (%s): let %[1]s be the primary", name, a.Flushed,
			model.FormatBytes(o.End.BytesTo(a.Flushed)), o.End)
	case a.Gone && o.Doubt != "":
		return o.statusOr(m, missing("%s has WAL up to %s, and the WAL at that position is no longer here to compare it "+
			"with; since %s, that proves nothing", name, a.Flushed, o.Doubt))
	case a.Gone:
		return older("%s answers: it has WAL up to %s, %s less than here", name, a.Flushed,
			model.FormatBytes(a.Flushed.BytesTo(o.End)))
	case !a.Same:
		return missing("the last WAL of %s, up to %s, differs from that here, though both are on timeline %d: find "+
			"out which data are the right ones", name, a.Flushed, newest.ID)
	}
	commit := ""
	if a.Commit != "" {
		commit = ", last commit at " + a.Commit
	}
	return older("%s answers: it has the same WAL up to %s, %s less than here%s", name, a.Flushed,
		model.FormatBytes(a.Flushed.BytesTo(o.End)), commit)
}

// statusOr decides by the data status of a member whose answer proves nothing. If that does not prove it either, the
// verdict is what the answer lacks.
func (o ours) statusOr(m other, lacks verdict) verdict {
	if v := o.judgeStatus(m); v.OK {
		return v
	}
	return lacks
}

// judgeStatus decides by the data status of a member whose server does not run, or whose answer proves nothing. That
// status proves that the member has nothing newer if all of this holds:
//
//   - The status of this host is LATEST: no other host was promoted since this one was. So all that the member received
//     since, it received from here, where WAL is flushed before it is sent. Or no host is LATEST, and the status of this
//     host is STREAMING|SYNC: the last primary acknowledged nothing that is not here, and no host was promoted since, or
//     it would have made this one DISCONNECT. In both cases, the data here are those that were here then, and not a
//     backup that was restored since.
//   - The status is one with which the agent promotes nobody: DISCONNECT, which the primary writes for a host that it no
//     longer sees, or that of a standby that was not yet in step (POTENTIAL, CATCHUP; ASYNC with rep_mode=sync). A host
//     that was in step (SYNC, QUORUM; ASYNC with rep_mode=async), or that has no status yet, may be promoted without
//     anybody's order, and its promotion may be what the CIB here lacks.
//   - The CIB cannot lack that promotion: the host is online in this partition, and has the same CIB; or more than half
//     of all nodes are here, so that one of those here belonged to every partition with quorum. That does not hold where
//     a partition without quorum may promote (no-quorum-policy=ignore; freeze or demote without fencing), and where the
//     CIB is known to be old.
//
// The status of a member may be out of date. That does no harm: what counts is not how far the member was, but that it
// was not promoted.
func (o ours) judgeStatus(m other) verdict {
	where := "is stopped"
	switch {
	case m.Said != nil:
		where = "runs"
	case !m.Node.Online:
		where = "is offline"
	}
	bring := "bring it back, so that its server answers, or take it out of node_list if it never comes back"
	switch {
	case o.Unsure != "":
		return missing("%s %s, and since %s, nothing but an answer shows what %[1]s has: %s", m.Host, where, o.Unsure,
			bring)
	case m.DataStatus == "":
		return missing("%s %s, and the agent has never written a data status for it: %s", m.Host, where, bring)
	case o.mayTakeOver(m.DataStatus):
		return missing("%s %s, and was in step when it was last seen (%s), so it may have been promoted since: %s",
			m.Host, where, m.DataStatus, bring)
	case m.Location > o.End:
		return missing("%s %s, and its data went up to %s when they were last seen, those here only up to %s: %s",
			m.Host, where, m.Location, o.End, bring)
	case !m.Node.Online && o.Overlooks != "":
		return missing("%s %s (%s), and may have been promoted since, because %s: %s",
			m.Host, where, m.DataStatus, o.Overlooks, bring)
	}
	since := "this host was"
	if o.Doubt != "" {
		since = "this host was in step"
	}
	return older("%s %s: by its data status, %s, it was not in step, and nobody was promoted since %s",
		m.Host, where, m.DataStatus, since)
}

// mayTakeOver reports whether the agent promotes a standby with this data status (have_master_right), or whether
// commits may have waited for such a standby.
func (o ours) mayTakeOver(status string) bool {
	_, sync, _ := strings.Cut(status, "|")
	return slices.Contains([]string{"SYNC", "QUORUM"}, sync) || o.Async && status == "STREAMING|ASYNC"
}

// overlooks is why the CIB of this partition may lack the promotion of a host that is offline; "" if it cannot lack it.
// votes is why the quorum need not be that of more than half of the nodes; "" if it must be.
func overlooks(w reconcile.Who, votes string) string {
	online, all := 0, 0
	for _, n := range w.Cluster.Nodes {
		if n.ID == n.Name { // a Pacemaker Remote node or a guest, which has no vote; a member of the cluster has a number
			continue
		}
		all++
		if n.Online {
			online++
		}
	}
	policy := strings.ToLower(w.Cluster.Properties["no-quorum-policy"])
	switch {
	case w.Cluster.Version.ConfigurationOlder(w.Newest):
		return "the CIB is older than one that this host has seen"
	case policy == "ignore":
		return "no-quorum-policy is ignore"
	case (policy == "freeze" || policy == "demote") && !fences(w.Cluster.Properties):
		// What such a partition keeps running goes on, and nobody makes sure that it has ended.
		return "no-quorum-policy is " + policy + ", and there is no fencing"
	case 2*online <= all:
		return fmt.Sprintf("only %d of %d nodes are online, and the others could have had the quorum without them",
			online, all)
	case votes != "":
		return "fewer nodes could have had the quorum: " + votes
	}
	return ""
}

// fences reports whether nodes are fenced: stonith-enabled, or fencing-enabled as it is called since 3.0.2.
func fences(properties map[string]string) bool {
	for _, name := range []string{"stonith-enabled", "fencing-enabled"} {
		if value, set := properties[name]; set {
			if on, known := model.ParseBool(value); known && !on {
				return false
			}
		}
	}
	return true
}
