package operation

import (
	"context"
	"fmt"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// Maintenance is maintenance-mode as an operation uses it. The operation's token changes in the same change of the CIB.
// So anyone who finds the cluster in maintenance-mode learns why.
type Maintenance struct {
	At        model.OptionAt // where the CIB sets it
	Primitive string
	Token     model.Token
}

// Enter takes every resource out of Pacemaker's hands. Back leaves maintenance-mode if the operation goes no further.
func (m Maintenance) Enter() Command { return m.set(true, model.PhaseMaintenance) }

// Back leaves maintenance-mode as if the operation had never entered it.
func (m Maintenance) Back() []Action { return []Action{m.set(false, model.PhaseBegun), m.Drop()} }

// Leave returns the resources to Pacemaker. If the tool fails, Leave looks at the cluster: the change may be made all
// the same.
func (m Maintenance) Leave(observer *controller.Observer) Command {
	c := m.set(false, model.PhaseGiven)
	c.Despite = func(ctx context.Context) bool {
		who, err := observer.Cluster(ctx)
		return err == nil && !who.Cluster.Maintenance
	}
	return c
}

// Drop removes the option, which Leave sets to "false". Nothing depends on this.
func (m Maintenance) Drop() Command {
	return Command{Command: cib.DropMaintenance(m.At), Text: "remove maintenance-mode=false from the CIB"}
}

func (m Maintenance) set(on bool, phase model.Phase) Command {
	t := m.Token
	t.Phase = phase
	return Command{
		Command: cib.SetMaintenance(on, m.At, m.Primitive, t),
		NoMatch: "maintenance-mode is on already, for somebody else or another database's operation, or this operation was ended by another " +
			"member: see crm_mon, and cibadmin --query --scope crm_config",
		Text: fmt.Sprintf("set maintenance-mode=%t, and the token to phase %s (cibadmin --modify)", on, phase),
	}
}
