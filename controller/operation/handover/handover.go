package handover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

const (
	slotParameter = "replication_slot_name" // the agent's
	// refreshPatience is how long Pacemaker may take to look at the resource on every host.
	refreshPatience = 2 * time.Minute
)

// Handover hands the slots over between the agent and pgrex, without a restart of PostgreSQL: in maintenance-mode the agent's
// parameter is changed, and Pacemaker is told to look again before it leaves it. It is done on the primary, where it can be
// seen that every standby goes on streaming.
type Handover struct {
	Observer *controller.Observer // of this host

	given bool // Pacemaker has the database again
}

// Adopt makes the steps that hand the slots over from the agent to pgrex; none when they are pgrex's already. The prefix
// comes first, or the agent's slots would stay behind as foreign ones, and hold WAL for ever.
func (h *Handover) Adopt(ctx context.Context) ([]operation.Step, error) {
	b, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	prefix := b.Clone.Parameters[slotParameter]
	if prefix == "" {
		return nil, nil
	}
	if err := ready(b); err != nil {
		return nil, err
	}
	var steps []operation.Step
	if b.Policy.SlotPrefix != prefix {
		return nil, fmt.Errorf("%s is %s and not the agent's %s: remove it first, so that the slots keep their names",
			model.MetaSlotPrefix, b.Policy.SlotPrefix, prefix)
	}
	if b.Clone.Meta[model.MetaSlotPrefix] == "" {
		undo := cib.DeleteMeta(b.Clone.Primitive, model.MetaSlotPrefix)
		steps = append(steps, operation.Run(cib.SetMeta(b.Clone.Primitive, model.MetaSlotPrefix, prefix), &undo))
	}
	return append(steps, h.change(&b, cib.DeleteParameter(b.Clone.Primitive, slotParameter),
		cib.SetParameter(b.Clone.Primitive, slotParameter, prefix))...), nil
}

// Release makes the steps that hand the slots back to the agent; none when they are the agent's already.
func (h *Handover) Release(ctx context.Context) ([]operation.Step, error) {
	b, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	if b.Clone.Parameters[slotParameter] != "" {
		return nil, nil
	}
	if err := ready(b); err != nil {
		return nil, err
	}
	if b.Policy.StandbySlots {
		return nil, fmt.Errorf("the slots on the standbys would hold WAL for ever, because the agent moves none: set the meta attribute %s=none "+
			"first, and wait until pgrex has dropped them", model.MetaStandbySlots)
	}
	if err := h.standbysHoldNothing(ctx, b); err != nil {
		return nil, err
	}
	for member, name := range b.Names {
		if agents := b.Policy.AgentSlotName(member); agents != name {
			return nil, fmt.Errorf("the slot of %s is %s, but the agent would name it %s: it cannot have the slots", member, name, agents)
		}
	}
	var last []operation.Step
	if prefix := b.Clone.Meta[model.MetaSlotPrefix]; prefix != "" { // the agent's name is the prefix now
		undo := cib.SetMeta(b.Clone.Primitive, model.MetaSlotPrefix, prefix)
		last = append(last, operation.Run(cib.DeleteMeta(b.Clone.Primitive, model.MetaSlotPrefix), &undo))
	}
	return h.change(&b, cib.SetParameter(b.Clone.Primitive, slotParameter, b.Policy.SlotPrefix),
		cib.DeleteParameter(b.Clone.Primitive, slotParameter), last...), nil
}

// replicating is what is asked of the local primary beside what the controller asks.
type replicating interface {
	Replications(ctx context.Context) ([]model.Replication, error)
}

// standbysHoldNothing asks every standby that runs whether pgrex has dropped its slots.
func (h *Handover) standbysHoldNothing(ctx context.Context, b before) error {
	place, err := datadir.Of(b.Clone)
	if err != nil {
		return err
	}
	conninfo, err := place.Conninfo(ctx, b.Clone)
	if err != nil {
		return err
	}
	server, ok := h.Observer.Server().(replicating)
	if !ok {
		return fmt.Errorf("the server is a %T", h.Observer.Server())
	}
	standbys, err := server.Replications(ctx)
	if err != nil {
		return err
	}
	names := b.SlotNames()
	for _, standby := range standbys {
		source, err := postgres.OpenStandby(ctx, conninfo, standby.Address)
		if err != nil {
			return fmt.Errorf("%s cannot be asked whether its slots are gone: %w", standby.Name, err)
		}
		said, err := source.Identify(ctx, names...)
		source.Close()
		if err != nil {
			return fmt.Errorf("%s cannot be asked whether its slots are gone: %w", standby.Name, err)
		}
		if i := slices.IndexFunc(said.Slots, func(s model.UpstreamSlot) bool { return s.Exists }); said.InRecovery && i >= 0 {
			return fmt.Errorf("%s still has the slot %s, which would hold WAL for ever: wait until pgrex has dropped it there, or see that it runs",
				standby.Name, said.Slots[i].Name)
		}
	}
	return nil
}

// change changes the agent's parameter under maintenance-mode. Pacemaker has to be at rest before it is told to look again: an
// action that the refresh finds under way is killed, and counts as a failure, for which the primary is demoted once
// maintenance-mode ends (seen with 2.1.5). Once maintenance-mode is left nothing is undone: to change the parameter back outside
// of it would restart the database on every host. The last steps are done just before.
func (h *Handover) change(b *before, do, undo cib.Command, last ...operation.Step) []operation.Step {
	settle, refresh := cib.Settle(), cib.Refresh(b.Clone.Primitive, "")
	leave := cib.DeleteProperty(operation.MaintenanceMode)
	known := operation.Await("Pacemaker knows every host's role again", refreshPatience, func(ctx context.Context) error { return h.sameRoles(ctx, b) })
	enter := cib.SetProperty(operation.MaintenanceMode, "true")
	parameter, maintenance := operation.Run(do, &undo), operation.Run(enter, &leave)
	maintenance.UndoWhen = "once crm_mon shows every host's role, or Pacemaker restarts the database"
	parameter.UndoText = enter.String() + "; " + undo.String() + "; " + settle.String() + "; " + refresh.String()
	parameter.Undo = func(ctx context.Context) error {
		// Entered again first: that it was not left is not sure, when to leave it has failed.
		for _, part := range []func(context.Context) error{enter.Run, undo.Run, settle.Run, refresh.Run, known.Do} {
			if err := part(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	steps := []operation.Step{
		{Text: "see that every standby still streams through its own slot", Do: func(ctx context.Context) error { return h.again(ctx, b) }},
		maintenance,
		operation.Run(settle, nil),
		parameter,
		{Text: "see that the agent's " + slotParameter + " is changed", Do: func(ctx context.Context) error { return h.changed(ctx, b) }},
		operation.Run(refresh, nil),
		known,
		operation.Await("every standby streams on, over the same connection", refreshPatience, func(ctx context.Context) error { return h.sameSenders(ctx, b) }),
	}
	return append(append(steps, last...), operation.NoReturn(operation.LeaveMaintenance(leave, h.Observer), &h.given),
		operation.Await("every host keeps its role", refreshPatience, func(ctx context.Context) error { return h.sameRoles(ctx, b) }))
}

// changed tells whether the agent's parameter is another than it was: the tool ends well, too, where there is nothing to remove.
func (h *Handover) changed(ctx context.Context, b *before) error {
	who, err := h.Observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if now := who.Clone.Parameters[slotParameter]; now == b.Clone.Parameters[slotParameter] {
		return fmt.Errorf("it still is %q: it is set elsewhere, too; look for it with cibadmin --query", now)
	}
	return nil
}

// WayOut says how the cluster is left where nothing is undone any more.
func (h *Handover) WayOut() string {
	if h.given {
		return "the slots are handed over, and nothing is undone: see that crm_mon shows every host's role, and pgrex status"
	}
	return ""
}

// again looks once more, since the operator may have taken a while to answer.
func (h *Handover) again(ctx context.Context, b *before) error {
	now, err := h.look(ctx)
	switch {
	case err != nil:
		return err
	case !sameInstances(now.Clone, b.Clone) || !maps.Equal(now.Clone.Parameters, b.Clone.Parameters):
		return errors.New("the cluster is no longer as it was: run it again")
	}
	b.senders = now.senders
	return ready(now)
}

func (h *Handover) look(ctx context.Context) (before, error) {
	who, err := operation.OnPrimary(ctx, h.Observer)
	return before{who, senders(who.Names, who.Instance)}, err
}

func (h *Handover) sameRoles(ctx context.Context, b *before) error {
	who, err := h.Observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if !sameInstances(who.Clone, b.Clone) {
		return fmt.Errorf("the roles are %v %v, and were %v %v", who.Clone.Roles, who.Clone.Unsettled, b.Clone.Roles, b.Clone.Unsettled)
	}
	_, err = who.ConfirmedPrimary()
	return err
}

func (h *Handover) sameSenders(ctx context.Context, b *before) error {
	who, err := h.Observer.Full(ctx)
	if err != nil {
		return err
	}
	if now := senders(b.Names, who.Instance); !maps.Equal(now, b.senders) {
		return fmt.Errorf("the walsenders of the standbys are %v, and were %v", now, b.senders)
	}
	return nil
}
