package operation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

const (
	slotParameter   = "replication_slot_name" // the agent's
	maintenanceMode = "maintenance-mode"
	// refreshPatience is how long Pacemaker may take to look at the resource on every host.
	refreshPatience = 2 * time.Minute
)

// Handover hands the slots over between the agent and pgrex, without a restart of PostgreSQL: in maintenance-mode the agent's
// parameter is changed, and Pacemaker is told to look again before it leaves it. It is done on the primary, where it can be
// seen that every standby goes on streaming.
type Handover struct {
	Observer *controller.Observer // of this host
	Node     string

	given bool // Pacemaker has the database again
}

// before is what was found on the primary: much of it must be the same afterwards.
type before struct {
	cluster model.Cluster
	clone   model.Clone
	policy  model.Policy
	senders map[string]int // the walsender of each attached member
}

// Adopt makes the steps that hand the slots over from the agent to pgrex; none when they are pgrex's already. The prefix
// comes first, or the agent's slots would stay behind as foreign ones, and hold WAL for ever.
func (h *Handover) Adopt(ctx context.Context) ([]Step, error) {
	b, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	prefix := b.clone.Parameters[slotParameter]
	if prefix == "" {
		return nil, nil
	}
	if err := h.ready(b); err != nil {
		return nil, err
	}
	var steps []Step
	if b.policy.SlotPrefix != prefix {
		return nil, fmt.Errorf("%s is %s and not the agent's %s: remove it first, so that the slots keep their names",
			model.MetaSlotPrefix, b.policy.SlotPrefix, prefix)
	}
	if b.clone.Meta[model.MetaSlotPrefix] == "" {
		undo := cib.DeleteMeta(b.clone.Primitive, model.MetaSlotPrefix)
		steps = append(steps, run(cib.SetMeta(b.clone.Primitive, model.MetaSlotPrefix, prefix), &undo))
	}
	return append(steps, h.change(&b, cib.DeleteParameter(b.clone.Primitive, slotParameter),
		cib.SetParameter(b.clone.Primitive, slotParameter, prefix))...), nil
}

// Release makes the steps that hand the slots back to the agent; none when they are the agent's already.
func (h *Handover) Release(ctx context.Context) ([]Step, error) {
	b, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	if b.clone.Parameters[slotParameter] != "" {
		return nil, nil
	}
	if err := h.ready(b); err != nil {
		return nil, err
	}
	if b.policy.StandbySlots {
		return nil, fmt.Errorf("the slots on the standbys would hold WAL for ever, because the agent moves none: set the meta attribute %s=none "+
			"first, and wait until pgrex has dropped them", model.MetaStandbySlots)
	}
	if err := h.standbysHoldNothing(ctx, b); err != nil {
		return nil, err
	}
	for member, name := range b.policy.SlotNames() {
		if agents := b.policy.AgentSlotName(member); agents != name {
			return nil, fmt.Errorf("the slot of %s is %s, but the agent would name it %s: it cannot have the slots", member, name, agents)
		}
	}
	var last []Step
	if prefix := b.clone.Meta[model.MetaSlotPrefix]; prefix != "" { // the agent's name is the prefix now
		undo := cib.SetMeta(b.clone.Primitive, model.MetaSlotPrefix, prefix)
		last = append(last, run(cib.DeleteMeta(b.clone.Primitive, model.MetaSlotPrefix), &undo))
	}
	return h.change(&b, cib.SetParameter(b.clone.Primitive, slotParameter, b.policy.SlotPrefix),
		cib.DeleteParameter(b.clone.Primitive, slotParameter), last...), nil
}

// standbysHoldNothing asks every standby that runs whether pgrex has dropped its slots.
func (h *Handover) standbysHoldNothing(ctx context.Context, b before) error {
	place, err := placeOf(b.clone)
	if err != nil {
		return err
	}
	conninfo, err := place.conninfo(ctx, b.clone)
	if err != nil {
		return err
	}
	server, ok := h.Observer.Server().(primaryServer)
	if !ok {
		return fmt.Errorf("the server is a %T", h.Observer.Server())
	}
	standbys, err := server.Replications(ctx)
	if err != nil {
		return err
	}
	names := slices.Compact(slices.Sorted(maps.Values(b.policy.SlotNames())))
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
func (h *Handover) change(b *before, do, undo cib.Command, last ...Step) []Step {
	settle, refresh, leave := cib.Settle(), cib.Refresh(b.clone.Primitive, ""), cib.DeleteProperty(maintenanceMode)
	known := await("Pacemaker knows every host's role again", refreshPatience, func(ctx context.Context) error { return h.sameRoles(ctx, b) })
	enter := cib.SetProperty(maintenanceMode, "true")
	parameter, maintenance := run(do, &undo), run(enter, &leave)
	half := false // undone
	parameter.UndoText = enter.String() + "; " + undo.String() + "; " + settle.String() + "; " + refresh.String()
	parameter.Undo = func(ctx context.Context) error {
		half = true
		// Entered again first: that it was not left is not sure, when to leave it has failed.
		for _, part := range []func(context.Context) error{enter.Run, undo.Run, settle.Run, refresh.Run, known.Do} {
			if err := part(ctx); err != nil {
				return err
			}
		}
		half = false
		return nil
	}
	maintenance.Undo = func(ctx context.Context) error {
		if half {
			return errors.New("not done, because Pacemaker could restart the database: what is above comes first, and all roles in crm_mon")
		}
		return leave.Run(ctx)
	}
	steps := []Step{
		{Text: "see that every standby still streams through its own slot", Do: func(ctx context.Context) error { return h.again(ctx, b) }},
		maintenance,
		run(settle, nil),
		parameter,
		{Text: "see that the agent's " + slotParameter + " is changed", Do: func(ctx context.Context) error { return h.changed(ctx, b) }},
		run(refresh, nil),
		known,
		await("every standby streams on, over the same connection", refreshPatience, func(ctx context.Context) error { return h.sameSenders(ctx, b) }),
	}
	return append(append(steps, last...), noReturn(leaveMaintenance(leave, h.Observer.Clusters), &h.given),
		await("every host keeps its role", refreshPatience, func(ctx context.Context) error { return h.sameRoles(ctx, b) }))
}

// changed tells whether the agent's parameter is another than it was: the tool ends well, too, where there is nothing to remove.
func (h *Handover) changed(ctx context.Context, b *before) error {
	_, clone, err := database(ctx, h.Observer.Clusters, b.clone.Primitive)
	if err != nil {
		return err
	}
	if now := clone.Parameters[slotParameter]; now == b.clone.Parameters[slotParameter] {
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
	case !maps.Equal(now.clone.Roles, b.clone.Roles) || !maps.Equal(now.clone.Parameters, b.clone.Parameters):
		return errors.New("the cluster is no longer as it was: run it again")
	}
	b.senders = now.senders
	return h.ready(now)
}

// leaveMaintenance gives the database back to Pacemaker. What the tool says is not all: it may have been done all the same.
func leaveMaintenance(command cib.Command, clusters controller.ClusterReader) Step {
	step := run(command, nil)
	do := step.Do
	step.Do = func(ctx context.Context) error {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if cluster, lookErr := clusters.Read(context.WithoutCancel(ctx)); lookErr != nil || cluster.Maintenance {
			return err
		}
		return nil
	}
	return step
}

func (h *Handover) look(ctx context.Context) (before, error) {
	return onPrimary(ctx, h.Observer, h.Node)
}

// onPrimary looks at the cluster from this host, which must be the confirmed primary of a cluster at rest.
func onPrimary(ctx context.Context, observer *controller.Observer, node string) (before, error) {
	in, err := observer.Full(ctx)
	if err != nil {
		return before{}, err
	}
	if in.Cluster == nil {
		return before{}, errors.New(in.ClusterProblem)
	}
	clone, err := reconcile.Database(*in.Cluster, in.Resource)
	if err != nil {
		return before{}, err
	}
	primary, err := reconcile.ConfirmedPrimary(*in.Cluster, clone)
	switch {
	case err != nil:
		return before{}, err
	case !strings.EqualFold(primary, node):
		return before{}, fmt.Errorf("this host, %s, is not the primary: run it on %s, where it can be seen that every standby streams", node, primary)
	case in.Instance.State != model.ServerUp || in.Instance.InRecovery:
		return before{}, fmt.Errorf("PostgreSQL here is %s, or no primary: %s", in.Instance.State, in.Instance.Problem)
	case !in.Cluster.Quorate:
		return before{}, errors.New("this partition has no quorum: bring the other hosts or the network back first")
	case in.Cluster.Maintenance || !clone.Managed:
		return before{}, fmt.Errorf("the cluster or the database is in maintenance already: %s, but after an adopt or a release that was "+
			"killed only when Pacemaker has looked again: crm_resource --wait, crm_resource --refresh, and every role in crm_mon", leaveFirst(clone))
	}
	policy, problems := model.PolicyOf(clone)
	if len(problems) > 0 {
		return before{}, errors.New(strings.Join(problems, "; "))
	}
	return before{*in.Cluster, clone, policy, senders(in.Instance, policy)}, nil
}

// database is the cluster, and the database's resource in it, as they are now.
func database(ctx context.Context, clusters controller.ClusterReader, resource string) (model.Cluster, model.Clone, error) {
	cluster, err := clusters.Read(ctx)
	if err != nil {
		return cluster, model.Clone{}, err
	}
	clone, err := reconcile.Database(cluster, resource)
	return cluster, clone, err
}

// isPrimary tells whether a host is the primary by every sign.
func isPrimary(ctx context.Context, clusters controller.ClusterReader, resource, host string) error {
	cluster, clone, err := database(ctx, clusters, resource)
	if err != nil {
		return err
	}
	primary, err := reconcile.ConfirmedPrimary(cluster, clone)
	if err == nil && !strings.EqualFold(primary, host) {
		err = fmt.Errorf("the primary is %s", primary)
	}
	return err
}

// leaveFirst tells how to leave maintenance. A ban that is left of a switchover would then have Pacemaker stop the database.
func leaveFirst(clone model.Clone) string {
	if slices.ContainsFunc(clone.Locations, model.Location.ByTool) {
		return "first " + cib.ClearBan(clone.ID, "").String() + ", because Pacemaker would stop or demote the database where it is banned; then leave it"
	}
	return "leave it first"
}

// senders are the walsenders that stream through their members' own slots.
func senders(i model.Instance, policy model.Policy) map[string]int {
	pids := map[string]int{}
	for member, name := range policy.SlotNames() {
		for _, s := range i.Slots {
			if s.Name == name && s.Active {
				pids[member] = s.ActivePID
			}
		}
	}
	return pids
}

// ready tells whether every host that runs the database as a standby streams through its own slot.
func (h *Handover) ready(b before) error {
	for _, member := range b.policy.Members {
		role, _ := b.clone.Role(member)
		if _, attached := b.senders[member]; role == model.RoleUnpromoted && !attached {
			return fmt.Errorf("%s does not stream through its slot: see pgrex status, and put that right first", member)
		}
	}
	return nil
}

func (h *Handover) sameRoles(ctx context.Context, b *before) error {
	cluster, clone, err := database(ctx, h.Observer.Clusters, b.clone.Primitive)
	if err != nil {
		return err
	}
	if !maps.Equal(clone.Roles, b.clone.Roles) {
		return fmt.Errorf("the roles are %v, and were %v", clone.Roles, b.clone.Roles)
	}
	_, err = reconcile.ConfirmedPrimary(cluster, clone)
	return err
}

func (h *Handover) sameSenders(ctx context.Context, b *before) error {
	in, err := h.Observer.Full(ctx)
	if err != nil {
		return err
	}
	if now := senders(in.Instance, b.policy); !maps.Equal(now, b.senders) {
		return fmt.Errorf("the walsenders of the standbys are %v, and were %v", now, b.senders)
	}
	return nil
}
