package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// This file reports operations that are under way, and operations that were left. Every host reports the same.

// whatToType is what ends an operation that was left.
const whatToType = "type: sudo pgrex operation show, then sudo pgrex operation finish, or sudo pgrex operation undo"

// begun is an operation as part of a sentence. since is zero, and who empty, if unknown.
type begun struct {
	what, host, who string
	since           time.Time
}

func begunBy(t model.Token) begun { return begun{what: t.What(), host: t.Host, since: t.Begun} }

func (b begun) String() string {
	text := fmt.Sprintf("the %s that was begun on %s", b.what, b.host)
	if !b.since.IsZero() {
		text += " at " + b.since.UTC().Format(time.RFC3339)
	}
	if b.who != "" {
		text += " by " + b.who
	}
	return text
}

// maintainedBy returns the operation that put the cluster into maintenance, or "".
func (w Who) maintainedBy() string {
	if w.token == nil || w.token.Phase != model.PhaseMaintenance || !w.Cluster.Maintenance {
		return ""
	}
	return begunBy(*w.token).String()
}

// operations reports the operation that holds the token, and the operations that are left on some host. The token's
// operation is under way if its host is online and nothing says that it is left there. If the host is silent but may
// come back, pgrex waits for it (trap 48).
func (w *Who) operations() {
	if w.Cluster == nil {
		if w.Operation.Left() {
			w.unfinished(model.Node{Name: w.Node, Online: true}, w.ownLeft())
		}
		return
	}
	if _, there, err := w.Cluster.Token(w.Clone.Primitive); there && err != nil {
		w.say(model.CodeOperationUnfinished, model.Critical, model.TokenName(w.Clone.Primitive),
			"an operation holds the database, but this pgrex does not understand its token: %v; if another version of "+
				"pgrex made it, use that version; to look at it, type: cibadmin --query --scope crm_config", err)
	}
	if w.token != nil {
		w.held(*w.token)
	}
	byName := func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) }
	for _, n := range slices.SortedFunc(slices.Values(w.Cluster.Nodes), byName) {
		switch name := w.leftOn(n); {
		case name == "", w.token != nil && model.SameNode(w.token.Host, n.Name):
		case w.Is(n.Name):
			w.unfinished(n, w.ownLeft())
		default:
			w.unfinished(n, begun{what: name, host: n.Name})
		}
	}
}

// held reports the operation that holds the token.
func (w *Who) held(t model.Token) {
	holder, known := w.Cluster.Node(t.Host)
	b := begunBy(t)
	if w.Is(t.Host) && w.Operation != nil {
		b.who = w.Operation.Who
	}
	switch {
	case !known:
		w.unfinished(model.Node{Name: t.Host}, b)
	case !holder.Online || holder.Unclean || w.leftOn(holder) != "":
		w.unfinished(holder, b)
	default:
		text := fmt.Sprintf("%s has been under way on %s since %s", t.What(), t.Host, t.Begun.UTC().Format(time.RFC3339))
		if w.maintainedBy() != "" {
			text += "; the cluster is in maintenance until the operation leaves it"
		}
		w.say(model.CodeOperationUnderWay, model.Info, model.FoldNode(t.Host), "%s", text)
	}
}

// leftOn returns the name of the operation that is left on a node, or "". For this host the state folder says so, for
// another one its node attribute.
func (w Who) leftOn(n model.Node) string {
	switch {
	case !w.Is(n.Name):
		return n.Transient[model.OperationAttribute(w.Clone.Primitive)]
	case w.Operation.Left():
		return w.Operation.Operation
	case w.journalLost():
		return w.token.Operation
	}
	return ""
}

// journalLost reports whether this host's operation has a token in the CIB, but no journal here.
func (w Who) journalLost() bool { return w.token != nil && w.Is(w.token.Host) && w.Operation.None() }

func (w Who) ownLeft() begun {
	o := w.Operation
	return begun{what: o.Operation, host: w.Node, who: o.Who, since: o.Begun}
}

// unfinished reports an operation that is left on a node, and what to do on which host.
func (w *Who) unfinished(n model.Node, b begun) {
	text := b.String() + " is unfinished"
	if w.Cluster != nil && w.maintainedBy() != "" && model.SameNode(w.token.Host, n.Name) {
		text += "; because of it the cluster is in maintenance, and Pacemaker reacts to no failure"
	}
	if w.journalLost() && w.Is(n.Name) {
		text += "; its journal is not in this host's state folder, which was lost, or is another one than its --state-dir"
	}
	switch {
	case w.Cluster != nil && !w.Cluster.HasQuorum(): // what a minority shows of other hosts proves nothing
		text += "; this partition has no quorum: first bring the other hosts or the network back, then see here where to " +
			"end it"
	case w.Cluster != nil && !w.isNode(n.Name):
		text += fmt.Sprintf("; %s is no longer a node of the cluster; on any member, %s", n.Name, whatToType)
	case n.Unclean && !n.Online && w.inPhase(model.PhaseMaintenance): // in which nobody is fenced
		text += fmt.Sprintf("; %s is lost, and Pacemaker fences it once maintenance-mode is left; on any member, %s", n.Name, whatToType)
	case n.Unclean:
		text += fmt.Sprintf("; %s is unclean, and may still work on it: wait until Pacemaker has fenced it; then on any "+
			"member, %s", n.Name, whatToType)
	case n.Pending:
		text += fmt.Sprintf("; %s is joining or leaving the cluster; once it is online, on %[1]s, %[2]s", n.Name, whatToType)
	case !n.Online:
		text += fmt.Sprintf("; %s is offline; on any member, %s", n.Name, whatToType)
	default:
		text += fmt.Sprintf("; on %s, %s", n.Name, whatToType)
	}
	w.say(model.CodeOperationUnfinished, model.Critical, model.FoldNode(n.Name), "%s", text)
}

// inPhase reports whether the token is in a phase.
func (w Who) inPhase(phase model.Phase) bool { return w.token.Phase == phase }

func (w Who) isNode(host string) bool {
	_, is := w.Cluster.Node(host)
	return is
}

// publishLeft plans to tell the other hosts that an operation is left here, or no longer is. It does so even in
// transition and in maintenance: an operation is seldom left when all is well. It publishes nothing without a quorum,
// or under a name that Pacemaker does not call this host by.
func (v *view) publishLeft() []model.Step {
	if v.Cluster == nil || !v.Cluster.HasQuorum() || !v.named {
		return nil
	}
	name := model.OperationAttribute(v.Clone.Primitive)
	now, want := v.Here.Transient[name], v.leftOn(v.Here)
	if now == want {
		return nil
	}
	reason := model.Reason{Code: "OperationLeft", Text: "an operation was begun here, and nobody works on it"}
	if want == "" {
		reason = model.Reason{Code: "OperationEnded", Text: "no operation is left here"}
	}
	return []model.Step{model.PublishAttribute{Node: v.Here.Name, Name: name, From: now, To: want, Reason: reason}}
}
