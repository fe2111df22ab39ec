package reconcile

import (
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// maxBehind is how much WAL a successor may have to replay yet, in bytes: nobody writes until it has.
const maxBehind = 16 << 20

// Switchover is what is known, on the primary, of a cluster that is to get another one.
type Switchover struct {
	Who
	Standbys []model.Replication
}

// Successor is the host that is to be the primary: the one asked for or, with "", the first in order of name that nothing
// speaks against. The error says what does.
func (s Switchover) Successor(asked string) (node string, err error) {
	if err := s.hindered(); err != nil {
		return "", err
	}
	if asked != "" {
		if !slices.Contains(s.Policy.Members, model.FoldNode(asked)) {
			return "", inputErrorf("%s is not in the agent's node_list: %s", asked, strings.Join(s.Policy.Members, ", "))
		}
		n, err := s.candidate(asked)
		return n.Name, err
	}
	var against []string
	for _, member := range s.Policy.Members {
		if member == s.Primary {
			continue
		}
		n, err := s.candidate(member)
		if err == nil {
			return n.Name, nil
		}
		against = append(against, err.Error())
	}
	return "", inputErrorf("no host can be the primary: %s", orNone(against))
}

// hindered is what speaks against a switchover to any host.
func (s Switchover) hindered() error {
	for _, n := range s.Cluster.Nodes {
		switch {
		case n.Unclean || n.Pending:
			return inputErrorf("%s is on its way in or out of the cluster: wait until it is online, or fenced", n.Name)
		case model.SameNode(n.Name, s.Primary) && n.Maintenance:
			return inputErrorf("the primary %s is in maintenance: leave it first", n.Name)
		case model.SameNode(n.Name, s.Primary) && n.Standby:
			return inputErrorf("the primary %s is in standby: Pacemaker moves the database away already", n.Name)
		case model.SameNode(n.Name, s.Primary):
			if err := s.failed(n); err != nil {
				return err
			}
		}
	}
	for _, l := range s.Clone.Locations {
		if l.ByTool() {
			return inputErrorf("the constraint %s is left from an earlier --ban or --move: type crm_resource --clear --resource %s", l.ID, s.Clone.ID)
		}
	}
	return nil
}

// failed tells whether Pacemaker counts failures of the database on a node: it may not be let run there again.
func (s Switchover) failed(n model.Node) error {
	if failures(n, s.Clone.Primitive) {
		return inputErrorf("the database has failed on %s: find out why, then type crm_resource --cleanup --resource %s --node %s",
			n.Name, s.Clone.Primitive, n.Name)
	}
	return nil
}

// candidate is a host's node, with what speaks against its being the primary.
func (s Switchover) candidate(host string) (model.Node, error) {
	n, known := s.Cluster.Node(host)
	role, _ := s.Clone.Role(host)
	switch {
	case !known:
		return n, inputErrorf("%s is no node of the cluster", host)
	case model.SameNode(host, s.Primary):
		return n, inputErrorf("%s is the primary already", n.Name)
	case !n.Online:
		return n, inputErrorf("%s is offline", n.Name)
	case n.Standby:
		return n, inputErrorf("%s is in standby: end that first", n.Name)
	case n.Maintenance:
		return n, inputErrorf("%s is in maintenance: end that first", n.Name)
	case s.failed(n) != nil:
		return n, s.failed(n)
	case role != model.RoleUnpromoted:
		return n, inputErrorf("the database on %s is %s, and not a standby", n.Name, s.RoleText(host))
	}
	for _, l := range s.Clone.Locations {
		if model.SameNode(l.Node, host) && strings.HasPrefix(l.Score, "-") {
			return n, inputErrorf("the constraint %s keeps the database away from %s", l.ID, n.Name)
		}
	}
	if err := s.follows(n); err != nil {
		return n, err
	}
	return n, s.wouldPromote(n)
}

// RoleText is what Pacemaker says of the database on a host, for people.
func (w Who) RoleText(host string) string {
	if why, unsettled := w.Clone.UnsettledOn(host); unsettled {
		return string(why)
	}
	if role := w.RoleOf(host); role != "" {
		return string(role)
	}
	return "in a state that Pacemaker does not know"
}

// Replication is the row of pg_stat_replication of a node. PostgreSQL cuts the name.
func (s Switchover) Replication(node string) (model.Replication, bool) {
	name := ApplicationName(model.FoldNode(node))
	i := slices.IndexFunc(s.Standbys, func(r model.Replication) bool { return r.Name == name })
	if i < 0 {
		return model.Replication{}, false
	}
	return s.Standbys[i], true
}

// follows tells whether a node has nearly everything that the primary has.
func (s Switchover) follows(n model.Node) error {
	r, ok := s.Replication(n.Name)
	switch {
	case !ok:
		return inputErrorf("%s does not stream from the primary: see pgrex status", n.Name)
	case r.State != "streaming":
		return inputErrorf("%s does not stream from the primary yet: its state is %s", n.Name, r.State)
	case r.Behind > maxBehind:
		return inputErrorf("%s has %s of WAL to replay yet: wait until it has caught up", n.Name, model.FormatBytes(r.Behind))
	case r.Address == "":
		return inputErrorf("%s streams over the unix socket, so that there is no way to ask it", n.Name)
	case s.Policy.RepMode == "sync" && r.SyncState != "sync":
		return inputErrorf("%s is not the synchronous standby (%s), and the agent would promote no other", n.Name, r.SyncState)
	}
	return nil
}

// wouldPromote tells whether the agent would give a node the right to be the primary (its have_master_right): by what it
// wrote last as the state of the data there.
func (s Switchover) wouldPromote(n model.Node) error {
	status := n.Attribute(s.Clone.Primitive + dataStatusSuffix)
	if status == "STREAMING|SYNC" || status == "STREAMING|ASYNC" && s.Policy.RepMode == "async" {
		return nil
	}
	return inputErrorf("the agent would not promote %s: its %s%s is %q; see whether that changes at its next monitor",
		n.Name, s.Clone.Primitive, dataStatusSuffix, status)
}

// MissingSlots are the slots that a successor ought to have reserved for every other member, by what it says of them.
func (w Who) MissingSlots(successor string, said model.Upstream) []string {
	var missing []string
	for _, member := range w.Policy.Members {
		slot, _ := said.Slot(w.Names[member])
		if !model.SameNode(member, successor) && !slot.RestartLSN.IsValid() {
			missing = append(missing, w.Names[member])
		}
	}
	return missing
}
