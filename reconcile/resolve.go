package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Who is a look, and who is who in it: this host, the primary, the other members. It is resolved once for each look
// and passed to everything that needs it. No other place reads the policy.
type Who struct {
	Input
	Clone  model.Clone
	Policy model.Policy
	// Names are the slots' names by member. Members are folded (model.FoldNode).
	Names map[string]string
	// Self is this host, folded as members are, and Here its node; Others are the other members that are nodes of the
	// cluster, in order.
	Self   string
	Here   model.Node
	Others []string
	// Primary is the confirmed primary, folded; "" while there is none.
	Primary string
	// Standing is in transition while the look does not confirm this host as primary or standby; Findings say why.
	Standing model.Standing
	Findings []model.Finding

	// token is that of the operation that holds the database, if it can be read.
	token *model.Token

	named   bool           // Pacemaker does not call this host by another name
	fit     bool           // the cluster justifies a look at the server
	claims  *model.Finding // why there is no confirmed primary
	waiting bool           // something is expected to change by itself soon
}

// Resolve finds out who is who. The error is an *InputError: the look does not say which resource or host is meant. If
// only the host is unknown, Who still has the clone and its policy.
func Resolve(in Input) (Who, error) {
	w, err := ResolveCluster(in)
	if err != nil {
		return w, err
	}
	return w.WithServer(), nil
}

// ResolveCluster is Resolve of a look at the cluster alone: who is who but for the standing.
func ResolveCluster(in Input) (Who, error) {
	w := Who{Input: in, Self: model.FoldNode(in.Node), Standing: model.InTransition}
	if in.Cluster == nil {
		w.say(model.CodeClusterUnknown, model.Warning, "", "%s", cmp.Or(in.ClusterProblem, "there is no CIB"))
		return w, nil
	}
	var err error
	if w.Clone, err = Database(*in.Cluster, in.Resource); err != nil {
		return Who{Input: in}, err
	}
	var problems []string
	w.Policy, problems = model.PolicyOf(w.Clone)
	w.Names = w.Policy.SlotNames()
	if token, there, err := in.Cluster.Token(w.Clone.Primitive); there && err == nil {
		w.token = &token
	}
	w.named = w.isNamed()
	node, known := in.Cluster.Node(in.Node)
	if !known && w.named {
		return w, inputErrorf("this host, %s, is no node of the cluster (%s): name it with --node", in.Node, nodeNames(*in.Cluster))
	}
	w.Here = node
	w.Primary, w.claims = confirmedPrimary(*in.Cluster, w.Clone)
	if w.Primary == "" && w.claims == nil {
		w.claims = w.noPrimary()
	}
	w.fit = w.readPolicy(problems) && w.named
	return w, nil
}

// WithServer is a look at the cluster with what the local server, its Instance, says: the standing.
func (w Who) WithServer() Who {
	w.Findings = slices.Clone(w.Findings)
	w.operations()
	switch {
	case w.fit && w.serverUsable():
		w.stand()
	case w.fit && w.claims != nil && w.claims.Code == model.CodeOutage: // is said on every host
		w.Findings = append(w.Findings, *w.claims)
	}
	if untried(w.Versions.Pacemaker) {
		w.say(model.CodeUnsupportedVersion, model.Info, "Pacemaker",
			"Pacemaker here is version %s; pgrex is made for 2.0.3 to 3.0", w.Versions.Pacemaker)
	}
	if unasked := w.LocalName.NotAsked; unasked != "" {
		w.say(model.CodeNodeUnchecked, model.Info, w.Self, "%s: Pacemaker was not asked whether this host is %s", unasked, w.Node)
	}
	return w
}

// stand compares what the CIB says of this host with what its server says.
func (w *Who) stand() {
	w.waiting = true
	switch {
	case w.claims != nil:
		w.Findings = append(w.Findings, *w.claims)
	case w.Is(w.Primary) && !w.Instance.InRecovery:
		w.Standing, w.waiting = model.Primary, false
	case w.Is(w.Primary) || !w.Instance.InRecovery:
		w.say(model.CodeInTransition, model.Warning, w.Self,
			"the CIB says the primary is %s, but the server here is %s: nothing is done until they agree",
			w.Primary, map[bool]string{true: "in recovery", false: "not in recovery"}[w.Instance.InRecovery])
	case w.streamsAsItself():
		w.Standing, w.waiting = model.Standby, false
	}
}

// isNamed reports whether this host may act under its name: under another host's name it would drop that host's slot,
// and stream through it (trap 36). It may not if Pacemaker did not answer; it may if Pacemaker was not asked
// (LocalName.NotAsked).
func (w *Who) isNamed() bool {
	l := w.LocalName
	switch {
	case l.Problem != "":
		w.say(model.CodeClusterUnknown, model.Warning, "",
			"nothing is done, because Pacemaker does not say what it calls this host: %s", l.Problem)
		return false
	case l.Name != "" && !model.SameNode(l.Name, w.Node):
		w.say(model.CodeNodeDiffers, model.Critical, w.Self,
			"Pacemaker calls this host %s, and pgrex takes it for %s: nothing is done; set node: %[1]s in the settings file, or --node",
			l.Name, w.Node)
		return false
	}
	return true
}

// streamsAsItself compares this standby's application_name, which the agent makes of the host's name.
func (w *Who) streamsAsItself() bool {
	name := w.Instance.ApplicationName
	if name == "" || model.SameNode(name, w.Self) || name == ApplicationName(w.Self) {
		return true
	}
	w.waiting = false // somebody has to put it right
	w.say(model.CodeNodeDiffers, model.Critical, w.Self,
		"the primary knows this host as %s (application_name in primary_conninfo), and pgrex takes it for %s: nothing is done; "+
			"set node in the settings file, or --node, to this host's own name", name, w.Self)
	return false
}

// readPolicy says what is wrong with the meta attributes and the agent's parameters. False: no step can be justified.
func (w *Who) readPolicy(problems []string) bool {
	for _, p := range problems {
		w.say(model.CodeInvalidPolicy, model.Critical, w.Clone.ID, "%s", p)
	}
	for _, name := range w.Clone.Conditional {
		const byRule = "%s is set by a rule, which pgrex does not evaluate: "
		if slices.Contains(model.DecisiveParameters, name) || model.IsPolicy(name) {
			problems = append(problems, name)
			w.say(model.CodeAmbiguousParameter, model.Critical, name, byRule+"nothing is done; set it without a rule", name)
			continue
		}
		if strings.HasPrefix(name, model.MetaPrefix) {
			continue // of a later version
		}
		w.say(model.CodeAmbiguousParameter, model.Warning, name, byRule+"operations are refused; set it without a rule", name)
	}
	if w.Policy.RepMode != "sync" && w.Policy.RepMode != "async" {
		w.say(model.CodeNotReplicated, model.Warning, w.Clone.Primitive,
			"the agent's rep_mode is %q: pgrex works with sync and async", w.Policy.RepMode)
		return false
	}
	return w.readMembers() && len(problems) == 0
}

func (w *Who) readMembers() bool {
	if n := len(w.Policy.Members); n > maxMembers {
		w.say(model.CodeInvalidPolicy, model.Critical, "node_list", "node_list names %d hosts; pgrex takes %d at most", n, maxMembers)
		return false
	}
	for _, m := range w.Policy.Members {
		if _, ok := w.Cluster.Node(m); !ok {
			w.say(model.CodeUnknownMember, model.Warning, m,
				"node_list names %s, which is no node of the cluster: no slot is made for it", m)
		} else if m != w.Self {
			w.Others = append(w.Others, m)
		}
	}
	if !slices.Contains(w.Policy.Members, w.Self) {
		w.say(model.CodeNotMember, model.Warning, w.Self, "this host is not in the agent's node_list (%s): nothing is done",
			strings.Join(w.Policy.Members, " "))
		return false
	}
	return true
}

// The releases of PostgreSQL that pgrex is made for, by server_version_num: the oldest that works at all, the oldest
// whose standbys can ask the primary for its slots over the replication protocol, and the first that nobody has
// tried.
const (
	oldestVersion    = 130000
	supportedVersion = 150000
	untriedVersion   = 190000
)

// untried reports whether a release of Pacemaker is newer than those that pgrex is made for. Older ones cannot be
// asked at all.
func untried(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 3 || major == 3 && minor > 0
}

// serverUsable reports whether the local server can be planned for at all.
func (w *Who) serverUsable() bool {
	i := w.Instance
	if i.State != model.ServerUp {
		severity := model.Info
		if i.State == model.ServerUnreachable {
			severity = model.Critical
		}
		w.say(model.CodeServerDown, severity, w.Self, "PostgreSQL is %s: %s", i.State, i.Problem)
		return false
	}
	switch major := i.Version / 10000; {
	case i.Version < oldestVersion:
		w.say(model.CodeUnsupportedVersion, model.Critical, w.Self,
			"PostgreSQL here is version %d; pgrex needs 15 to 18, or 13 or 14 for the primary's slots only: nothing is done", major)
		return false
	case i.Version < supportedVersion:
		w.say(model.CodeUnsupportedVersion, model.Info, w.Self,
			"PostgreSQL here is version %d: only slots on the primary are supported; a standby asks for them by SQL, which the "+
				"primary's pg_hba.conf must allow; version 15 needs no such line", major)
	case i.Version >= untriedVersion:
		w.say(model.CodeUnsupportedVersion, model.Info, w.Self, "PostgreSQL here is version %d; pgrex is tested with 15 to 18", major)
	}
	return true
}

func (w *Who) say(code model.Code, severity model.Severity, subject, format string, args ...any) {
	w.Findings = append(w.Findings, model.Finding{Code: code, Severity: severity, Subject: subject, Text: fmt.Sprintf(format, args...)})
}

// Is reports whether a host is this one.
func (w Who) Is(host string) bool { return model.SameNode(host, w.Self) }

// ConfirmedPrimary is the confirmed primary; otherwise an error says what the signs are.
func (w Who) ConfirmedPrimary() (string, error) {
	if w.claims != nil {
		return "", inputErrorf("%s", w.claims.Text)
	}
	return w.Primary, nil
}

// NodeOf is a member's node; the zero value where it is no node of the cluster.
func (w Who) NodeOf(member string) model.Node {
	node, _ := w.Cluster.Node(member)
	return node
}

// RoleOf is the settled role of the database on a host; "" where Pacemaker does not say one.
func (w Who) RoleOf(host string) model.Role {
	role, _ := w.Clone.Role(host)
	return role
}

// OwnSlot is the name of this host's slot; "" for a host that is no member.
func (w Who) OwnSlot() string { return w.Names[w.Self] }

// SlotNames are the names of all members' slots, each once, in order.
func (w Who) SlotNames() []string { return slices.Compact(slices.Sorted(maps.Values(w.Names))) }

func nodeNames(c model.Cluster) string {
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return orNone(names)
}
