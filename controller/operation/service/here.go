package service

import (
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// here is this host in the cluster: what it and the others run, as far as Pacemaker says.
type here struct{ reconcile.Who }

// role is what Pacemaker says for certain of the database here.
func (h here) role() model.Role { return h.RoleOf(h.Self) }

// kept reports whether pgrex keeps the database stopped here.
func (h here) kept() bool { return h.Clone.KeptStopped(h.Here.Name) }

// away reports whether Pacemaker has been told, by whatever means, to run no database on this node.
func (h here) away() bool { return h.Here.Standby || h.kept() }

// isPrimary reports whether the database here is the primary, or may be for all that Pacemaker shows.
func (h here) isPrimary() bool { return h.Clone.MayBePromoted(h.Self) }

// primaries are the other hosts that are promoted, or may be for all that Pacemaker shows (trap 48).
func (h here) primaries() []string { return h.others(h.Clone.MayBePromoted) }

// standbys are the other hosts that run a standby, or may run one: an instance that Pacemaker has seen fail, or is
// acting on, counts.
func (h here) standbys() []string {
	return h.others(func(member string) bool {
		_, unsettled := h.Clone.UnsettledOn(member)
		return !h.Clone.MayBePromoted(member) && (unsettled || h.RoleOf(member) == model.RoleUnpromoted)
	})
}

func (h here) others(is func(member string) bool) (hosts []string) {
	for _, member := range h.Policy.Members {
		if !h.Is(member) && is(member) {
			hosts = append(hosts, member)
		}
	}
	return hosts
}

// leaves says who is left after a stop.
func (h here) leaves(failover bool, standbys []string) []string {
	primary := h.primaries()
	switch {
	case h.role() == model.RoleStopped:
		return nil
	case failover:
		next := h.Successors()
		if len(next) == 0 {
			return []string{"warning: no standby is in step with this primary, so none may take over: the database is " +
				"down until you type sudo pgrex start here"}
		}
		return []string{"warning: this is a failover: " + strings.Join(next, " or ") +
			" takes over, and this host may need sudo pgrex rejoin to come back"}
	case h.isPrimary():
		return []string{"warning: this is the last host that runs: the database is down then; this host has the " +
			"newest data, so start it first"}
	case len(primary) == 0 && len(standbys) == 0:
		return []string{"warning: this host is the last that runs"}
	case len(primary) > 0 && len(standbys) == 0:
		return []string{"warning: " + primary[0] + " has no other standby: no host could take over from it then"}
	}
	return nil
}
