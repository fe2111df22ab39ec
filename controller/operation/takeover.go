package operation

import (
	"context"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// rolesPatience is how long Pacemaker may take to look at the resource on every host.
const rolesPatience = 2 * time.Minute

// TakeOver makes the actions that end an operation whose host is gone, and with it the journal: all that is known is the
// token. Pacemaker gets the database back, and chooses the primary as after any other failure. Each action can be
// repeated; the token goes last.
func TakeOver(ctx context.Context, observer *controller.Observer, t model.Token) ([]Action, error) {
	gone := func(ctx context.Context) (reconcile.Who, error) {
		who, err := observer.Cluster(ctx)
		if err == nil {
			err = isGone(who, t)
		}
		return who, err
	}
	who, err := gone(ctx)
	if err != nil {
		return nil, err
	}
	actions := []Action{Look{"see that " + t.Host + " is still out of it", func(ctx context.Context) error {
		_, err := gone(ctx)
		return err
	}}}
	clone, primitive := who.Clone.ID, who.Clone.Primitive
	mine := t // a host that comes back meanwhile finds another's token, and ends its own operation
	mine.Host, mine.Value = who.Here.Name, randomValue()
	actions = append(actions, Command{Command: cib.ChangeToken(primitive, t, mine), Text: "take over the token in the CIB"})
	switch {
	case t.Operation == "switchover":
		actions = append(actions, Command{Command: cib.ClearBan(clone, "")})
	case t.Phase == model.PhaseMaintenance: // a parameter may be changed: without a new look Pacemaker would restart the database
		actions = append(actions, lookAgain(observer, who, primitive)...)
	}
	m := Maintenance{At: who.Cluster.MaintenanceAt, Primitive: primitive, Token: mine}
	if mine.Phase == model.PhaseMaintenance {
		actions = append(actions, m.Leave(observer))
		mine.Phase = model.PhaseGiven
	}
	if mine.Phase == model.PhaseGiven {
		actions = append(actions, m.Drop())
	}
	return append(actions, Command{Command: cib.DeleteToken(primitive, mine), Text: "remove the token from the CIB"}), nil
}

// lookAgain has Pacemaker look at the database on every host that is there.
func lookAgain(observer *controller.Observer, who reconcile.Who, primitive string) []Action {
	actions := []Action{Settle()}
	for _, n := range who.Cluster.Nodes {
		if n.Online {
			actions = append(actions, Command{Command: cib.Refresh(primitive, n.Name)})
		}
	}
	return append(actions, Await("Pacemaker knows the role of every host", rolesPatience, func(ctx context.Context) error {
		who, err := observer.Cluster(ctx)
		if err == nil && len(who.Clone.Unsettled) > 0 {
			err = fmt.Errorf("it does not yet: %v", who.Clone.Unsettled)
		}
		return err
	}))
}

// isGone returns an error unless nobody can go on with the operation of a token: its host is offline and clean (trap 48),
// or it is this one, where no process does an operation and there is no journal.
func isGone(who reconcile.Who, t model.Token) error {
	node, known := who.Cluster.Node(t.Host)
	switch {
	case !who.Cluster.Quorate:
		return errNoQuorum
	case !known, who.Is(t.Host):
		return nil
	case node.Unclean || node.Pending:
		return fmt.Errorf("%s is not known to be off: wait until it is fenced, or is back", t.Host)
	case node.Online:
		return fmt.Errorf("%s is there, and has the journal: type it there: sudo pgrex operation show", t.Host)
	}
	return nil
}
