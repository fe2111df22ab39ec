package cib

import (
	"strings"

	"github.com/pgrex/pgrex/model"
)

// settledRoles are the roles of an instance that nothing is being done to, as the releases spell them.
var settledRoles = map[string]model.Role{
	"promoted": model.RolePromoted, "master": model.RolePromoted,
	"unpromoted": model.RoleUnpromoted, "slave": model.RoleUnpromoted,
	"stopped": model.RoleStopped,
}

// actions are the words that crm_mon shows in place of a role while the action is under way.
var actions = map[string]model.Unsettled{
	"starting": model.UnsettledStarting, "promoting": model.UnsettledPromoting, "demoting": model.UnsettledDemoting,
	"stopping": model.UnsettledStopping, "migrating": model.UnsettledMigrating,
}

// pendingMonitor is the first run of a recurring monitor. The start or promote that came first has ended by then.
const pendingMonitor = "monitoring"

func (i instance) role() (model.Role, bool) {
	role, ok := settledRoles[strings.ToLower(i.Role)]
	return role, ok
}

// unsettled is why the instance's role proves nothing; "" if it does.
func (i instance) unsettled() model.Unsettled {
	word := strings.ToLower(i.Role)
	_, settled := settledRoles[word]
	switch {
	case actions[word] != "":
		return actions[word]
	case !settled:
		return model.UnsettledPending // a word of a later release
	case i.Blocked:
		return model.UnsettledBlocked
	case i.Failed && !i.FailureIgnored:
		return model.UnsettledFailed
	case i.Pending != "" && !strings.EqualFold(i.Pending, pendingMonitor):
		return model.UnsettledPending
	case i.Orphaned || i.Removed:
		return model.UnsettledOrphaned
	}
	return ""
}

// roles are what the instances of a primitive do, and why some of these roles prove nothing. ran are the nodes, by
// folded name, where an operation of the primitive has ended.
func (r report) roles(clone, primitive string, ran map[string]bool) (map[string]model.Role, map[string]model.Unsettled) {
	roles, unsettled := map[string]model.Role{}, map[string]model.Unsettled{}
	online := map[string]string{} // the name of an online node, by folded name
	for _, n := range r.nodes {
		if n.Online {
			online[model.FoldNode(n.Name)] = n.Name
		}
	}
	astray := false // something is done to an instance, and crm_mon does not say where
	for _, i := range r.clones[clone].instances {
		if instanceOf(i.ID) != primitive {
			continue
		}
		why := i.unsettled()
		if len(i.Nodes) == 0 && why != "" && why != model.UnsettledOrphaned {
			astray = true
		}
		for _, n := range i.Nodes {
			name, isOnline := online[model.FoldNode(n.Name)]
			if isOnline {
				i.add(name, why, roles, unsettled)
			} else {
				unsettled[n.Name] = i.lastKnown(why)
			}
		}
	}
	for _, n := range r.nodes {
		_, waits := unsettled[n.Name]
		if n.Unclean && !n.Online && !waits && !r.fencing && ran[model.FoldNode(n.Name)] {
			unsettled[n.Name] = model.UnsettledUnknown
		}
	}
	for key, name := range online {
		_, has := roles[name]
		_, waits := unsettled[name]
		if !has && !waits && !astray && ran[key] {
			roles[name] = model.RoleStopped
		}
	}
	if len(unsettled) == 0 {
		unsettled = nil
	}
	return roles, unsettled
}

// add enters the instance on an online node. Of several on one node the highest role counts, and any doubt.
func (i instance) add(
	node string, why model.Unsettled, roles map[string]model.Role, unsettled map[string]model.Unsettled,
) {
	rank := map[model.Role]int{"": 0, model.RoleStopped: 1, model.RoleUnpromoted: 2, model.RolePromoted: 3}
	if role, ok := i.role(); ok && rank[role] > rank[roles[node]] {
		roles[node] = role
	}
	if why != "" {
		unsettled[node] = why
	}
}

// lastKnown is the reason for an instance on a node that is not online: it has no role, but what ran there may still
// run.
func (i instance) lastKnown(why model.Unsettled) model.Unsettled {
	switch role, _ := i.role(); {
	case role == model.RolePromoted:
		return model.UnsettledPromoted
	case role == model.RoleUnpromoted:
		return model.UnsettledUnpromoted
	case why == "":
		return model.UnsettledPending
	}
	return why
}

// managed reports whether Pacemaker acts on every instance of the primitive. What a node's own maintenance or a block
// takes out of its hands is that node's, or that instance's.
func (c reportedClone) managed(primitive string, nodes []model.Node) bool {
	if !c.isManaged {
		return false
	}
	inMaintenance := map[string]bool{}
	for _, n := range nodes {
		inMaintenance[model.FoldNode(n.Name)] = n.Maintenance
	}
	for _, i := range c.instances {
		excused := i.Managed || i.Blocked || i.Orphaned || i.Removed || instanceOf(i.ID) != primitive
		for _, n := range i.Nodes {
			excused = excused || inMaintenance[model.FoldNode(n.Name)]
		}
		if !excused {
			return false
		}
	}
	return true
}
