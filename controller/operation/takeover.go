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

// TakeOver makes the actions that end an operation whose host is gone. The journal is gone with the host: only the
// token is known. Pacemaker gets the database back, and chooses the primary as after any other failure. Each action is
// safe to repeat. The token goes last.
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
	actions := []Action{Look{"see that the operation is still left on " + t.Host, func(ctx context.Context) error {
		_, err := gone(ctx)
		return err
	}}}
	clone, primitive := who.Clone.ID, who.Clone.Primitive
	mine := t // a host that comes back meanwhile finds another token, and ends its own operation
	mine.Host, mine.Value = who.Here.Name, randomValue()
	actions = append(actions, Command{Command: cib.ChangeToken(primitive, t, mine), Text: "take over the token in the CIB"})
	switch {
	case t.Operation == "switchover":
		actions = append(actions, Command{Command: cib.ClearBan(clone, "")})
	case t.Phase == model.PhaseMaintenance: // a parameter may be changed: without a refresh Pacemaker would restart the database
		actions = append(actions, lookAgain(observer, who, t.Host)...)
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

// lookAgain makes Pacemaker look at the database again on every host that is online, and waits until it knows every
// role except that of the host that is gone.
func lookAgain(observer *controller.Observer, who reconcile.Who, gone string) []Action {
	actions := []Action{Settle()}
	for _, n := range who.Cluster.Nodes {
		if n.Online {
			actions = append(actions, Command{Command: cib.Refresh(who.Clone.Primitive, n.Name)})
		}
	}
	return append(actions, Await("wait until Pacemaker knows the role of every host", rolesPatience, func(ctx context.Context) error {
		who, err := observer.Cluster(ctx)
		if err != nil {
			return err
		}
		for host, why := range who.Clone.Unsettled {
			if !model.SameNode(host, gone) {
				return fmt.Errorf("to Pacemaker the database on %s is %s", host, why)
			}
		}
		return nil
	}))
}

// isGone returns an error if somebody may still go on with the operation of a token. Nobody can if its host is offline
// and clean (trap 48), or is this host, and there is no journal here and no process at work.
//
// In maintenance-mode Pacemaker fences nobody ("No fencing will be done until there are resources to manage"; seen with
// 3.0.0). A host that is lost then stays unclean. Once maintenance-mode is left, Pacemaker fences that host before it
// promotes another one.
func isGone(who reconcile.Who, t model.Token) error {
	if err := isMember(who); err != nil { // or the CIB here may be the one from before the operation
		return err
	}
	node, known := who.Cluster.Node(t.Host)
	switch {
	case !known, who.Is(t.Host):
		return nil
	case node.Online:
		return fmt.Errorf("%s is online, and has the journal: type on %[1]s: sudo pgrex operation show", t.Host)
	case node.Pending, node.Unclean && t.Phase != model.PhaseMaintenance:
		return fmt.Errorf("%s may still be running: wait until it is fenced or online", t.Host)
	}
	return nil
}
