package handover

import (
	"fmt"
	"maps"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// before is what the primary showed before. Most of it must be the same afterwards.
type before struct {
	reconcile.Who
	senders map[string]int // the walsender of each attached member
}

// senders are the walsenders that stream through their members' own slots.
func senders(names map[string]string, i model.Instance) map[string]int {
	pids := map[string]int{}
	for member, name := range names {
		for _, s := range i.Slots {
			if s.Name == name && s.Active {
				pids[member] = s.ActivePID
			}
		}
	}
	return pids
}

// ready returns an error unless every host that runs a standby streams through its own slot.
func ready(b before) error {
	for _, member := range b.Policy.Members {
		if why, unsettled := b.Clone.UnsettledOn(member); unsettled {
			// The refresh would erase what is wrong, and nobody could tell whether all is as before.
			return fmt.Errorf("to Pacemaker the database on %s is %s: put that right first, or wait", member, why)
		}
		if _, attached := b.senders[member]; b.RoleOf(member) == model.RoleUnpromoted && !attached {
			return fmt.Errorf("%s does not stream through its slot: see pgrex status, and put that right first", member)
		}
	}
	return nil
}

// sameInstances reports whether Pacemaker says the same of every instance as before.
func sameInstances(now model.Clone, roles map[string]model.Role, unsettled map[string]model.Unsettled) bool {
	return maps.Equal(now.Roles, roles) && maps.Equal(now.Unsettled, unsettled)
}
