package switchover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// maxBehind is how much WAL a successor may have to replay yet, in bytes: nobody writes until it has.
const maxBehind = 16 << 20

// candidates is what is known, on the primary, of a cluster that is to get another one.
type candidates struct {
	reconcile.Who
	Standbys []model.Replication
}

// successor is the host that is to be the primary: the one asked for or, with "", the first in order of name that
// nothing speaks against. The error says what does.
func (c candidates) successor(asked string) (node string, err error) {
	if err := c.hindered(); err != nil {
		return "", err
	}
	if asked != "" {
		if !slices.Contains(c.Policy.Members, model.FoldNode(asked)) {
			return "", fmt.Errorf("%s is not in the agent's node_list: %s", asked, strings.Join(c.Policy.Members, ", "))
		}
		n, err := c.candidate(asked)
		return n.Name, err
	}
	var against []string
	for _, member := range c.Policy.Members {
		if member == c.Primary {
			continue
		}
		n, err := c.candidate(member)
		if err == nil {
			return n.Name, nil
		}
		against = append(against, err.Error())
	}
	return "", fmt.Errorf("no host can be the primary: %s", cmp.Or(strings.Join(against, ", "), "none"))
}

// hindered is what speaks against a switchover to any host.
func (c candidates) hindered() error {
	for _, n := range c.Cluster.Nodes {
		switch {
		case n.Unclean || n.Pending:
			return fmt.Errorf("%s is joining or leaving the cluster: wait until it is online, or fenced", n.Name)
		case model.SameNode(n.Name, c.Primary) && n.Maintenance:
			return fmt.Errorf("the primary %s is in maintenance: leave it first", n.Name)
		case model.SameNode(n.Name, c.Primary) && n.Standby:
			return fmt.Errorf("the primary %s is in standby: Pacemaker moves the database away already", n.Name)
		case model.SameNode(n.Name, c.Primary) && c.Clone.KeptStopped(n.Name):
			return fmt.Errorf("the database on the primary %s is being stopped: Pacemaker moves it away already", n.Name)
		case model.SameNode(n.Name, c.Primary):
			if err := c.failed(n); err != nil {
				return err
			}
		}
	}
	for _, l := range c.Clone.Locations {
		if l.ByTool() {
			return fmt.Errorf("the constraint %s is left from an earlier --ban or --move: type crm_resource --clear --resource %s", l.ID, c.Clone.ID)
		}
	}
	return nil
}

// failed reports whether Pacemaker counts failures of the database on a node: it may not be let run there again.
func (c candidates) failed(n model.Node) error {
	if c.Failed(n) {
		return fmt.Errorf("the database has failed on %s: find out why, then type crm_resource --cleanup --resource %s --node %s",
			n.Name, c.Clone.Primitive, n.Name)
	}
	return nil
}

// candidate is a host's node, with what speaks against its being the primary.
func (c candidates) candidate(host string) (model.Node, error) {
	n, known := c.Cluster.Node(host)
	role, _ := c.Clone.Role(host)
	switch {
	case !known:
		return n, fmt.Errorf("%s is not a node of the cluster", host)
	case model.SameNode(host, c.Primary):
		return n, fmt.Errorf("%s is the primary already", n.Name)
	case !n.Online:
		return n, fmt.Errorf("%s is offline", n.Name)
	case n.Standby:
		return n, fmt.Errorf("%s is in standby: end that first", n.Name)
	case c.Clone.KeptStopped(n.Name):
		return n, fmt.Errorf("the database on %s is kept stopped by pgrex: type there sudo pgrex start", n.Name)
	case n.Maintenance:
		return n, fmt.Errorf("%s is in maintenance: end that first", n.Name)
	case c.failed(n) != nil:
		return n, c.failed(n)
	case role != model.RoleUnpromoted:
		return n, fmt.Errorf("the database on %s is %s, and not a standby", n.Name, c.RoleText(host))
	}
	for _, l := range c.Clone.Locations {
		if model.SameNode(l.Node, host) && strings.HasPrefix(l.Score, "-") {
			return n, fmt.Errorf("the constraint %s keeps the database away from %s", l.ID, n.Name)
		}
	}
	if err := c.follows(n); err != nil {
		return n, err
	}
	return n, c.wouldPromote(n)
}

// replication is the row of pg_stat_replication of a node. PostgreSQL cuts the name.
func (c candidates) replication(node string) (model.Replication, bool) {
	name := reconcile.ApplicationName(model.FoldNode(node))
	i := slices.IndexFunc(c.Standbys, func(r model.Replication) bool { return r.Name == name })
	if i < 0 {
		return model.Replication{}, false
	}
	return c.Standbys[i], true
}

// follows reports whether a node has nearly everything that the primary has.
func (c candidates) follows(n model.Node) error {
	r, ok := c.replication(n.Name)
	switch {
	case !ok:
		return fmt.Errorf("%s does not stream from the primary: see pgrex status", n.Name)
	case r.State != "streaming":
		return fmt.Errorf("%s does not stream from the primary yet: its state is %s", n.Name, r.State)
	case r.Behind > maxBehind:
		return fmt.Errorf("%s has %s of WAL to replay yet: wait until it has caught up", n.Name, model.FormatBytes(r.Behind))
	case r.Address == "":
		return fmt.Errorf("%s streams over the unix socket, and pgrex cannot ask it there", n.Name)
	case c.Policy.RepMode == "sync" && r.SyncState != "sync":
		return fmt.Errorf("%s is not the synchronous standby (%s), and the agent would promote no other", n.Name, r.SyncState)
	}
	return nil
}

// wouldPromote returns an error unless the agent would give a node the right to be the primary (its have_master_right).
// It goes by what the agent wrote last as the state of the data there.
func (c candidates) wouldPromote(n model.Node) error {
	status := n.Attribute(reconcile.DataStatus(c.Clone))
	if status == "STREAMING|SYNC" || status == "STREAMING|ASYNC" && c.Policy.RepMode == "async" {
		return nil
	}
	return fmt.Errorf("the agent would not promote %s: its %s is %q; see whether that changes at its next monitor",
		n.Name, reconcile.DataStatus(c.Clone), status)
}

// missingSlots are the slots that a successor ought to have reserved for every other member, by what it says of them.
func missingSlots(w reconcile.Who, successor string, said model.Upstream) []string {
	var missing []string
	for _, member := range w.Policy.Members {
		slot, _ := said.Slot(w.Names[member])
		if !model.SameNode(member, successor) && !slot.RestartLSN.IsValid() {
			missing = append(missing, w.Names[member])
		}
	}
	return missing
}
