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
	"github.com/pgrex/pgrex/reconcile"
)

const (
	slotParameter = "replication_slot_name" // the agent's
	// refreshPatience is how long Pacemaker may take to look at the resource on every host.
	refreshPatience = 2 * time.Minute
)

// Handover hands the slots over between the agent and pgrex. PostgreSQL does not restart: the agent's parameter changes
// in maintenance-mode, and Pacemaker looks again before maintenance-mode is left. It runs on the primary, which sees
// whether every standby still streams.
type Handover struct {
	Observer *controller.Observer // of this host
}

// The names of the operations, in journals and tokens.
const (
	Adopt   = "adopt"
	Release = "release"
)

// Plan is what the journal keeps.
type Plan struct {
	Prefix string      `json:"prefix"` // the agent's replication_slot_name, before adopt or after release
	Meta   bool        `json:"meta"`   // pgrex-slot-prefix is set by adopt, or removed by release
	Token  model.Token `json:"token"`
	// The state before, which must be the same afterwards.
	Roles     map[string]model.Role      `json:"roles"`
	Unsettled map[string]model.Unsettled `json:"unsettled"`
	Senders   map[string]int             `json:"senders"`
	Names     map[string]string          `json:"slot_names"`
}

// Adopt plans to hand the slots over from the agent to pgrex. There are no steps if pgrex already has them.
func (h *Handover) Adopt(ctx context.Context) (operation.Job, error) {
	b, err := h.look(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	prefix := b.Clone.Parameters[slotParameter]
	if prefix == "" {
		return operation.Job{}, nil
	}
	if err := ready(b); err != nil {
		return operation.Job{}, err
	}
	if b.Policy.SlotPrefix != prefix {
		return operation.Job{}, fmt.Errorf("%s is %s and not the agent's %s, and the slots would change their names: remove it first",
			model.MetaSlotPrefix, b.Policy.SlotPrefix, prefix)
	}
	return h.plan(ctx, Adopt, b, &Plan{Prefix: prefix, Meta: b.Clone.Meta[model.MetaSlotPrefix] == ""}), nil
}

// Release plans to hand the slots back to the agent. There are no steps if the agent already has them.
func (h *Handover) Release(ctx context.Context) (operation.Job, error) {
	b, err := h.look(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	if b.Clone.Parameters[slotParameter] != "" {
		return operation.Job{}, nil
	}
	if err := ready(b); err != nil {
		return operation.Job{}, err
	}
	if b.Policy.StandbySlots {
		return operation.Job{}, fmt.Errorf("the slots on the standbys would hold WAL for ever, because the agent moves none: "+
			"set the meta attribute %s=none first, and wait until pgrex has dropped them", model.MetaStandbySlots)
	}
	if err := h.standbysHoldNothing(ctx, b); err != nil {
		return operation.Job{}, err
	}
	for member, name := range b.Names {
		if agents := b.Policy.AgentSlotName(member); agents != name {
			return operation.Job{}, fmt.Errorf("the slot of %s is %s, but the agent would name it %s: it cannot have the slots", member, name, agents)
		}
	}
	// The agent's name is the prefix from then on.
	return h.plan(ctx, Release, b, &Plan{Prefix: b.Policy.SlotPrefix, Meta: b.Clone.Meta[model.MetaSlotPrefix] != ""}), nil
}

// plan keeps what must be the same afterwards.
func (h *Handover) plan(ctx context.Context, name string, b before, p *Plan) operation.Job {
	job := operation.NewJob(name, b.Who, on(ctx, b.Clone))
	p.Token, p.Roles, p.Unsettled, p.Senders, p.Names = job.Token, b.Clone.Roles, b.Clone.Unsettled, b.senders, b.Names
	return h.job(job, b.Who, p)
}

// on is the database here, as far as this user may see.
func on(ctx context.Context, clone model.Clone) operation.On {
	place, err := datadir.Of(clone)
	if err != nil {
		return operation.On{Folder: clone.DataFolder()}
	}
	return operation.On(place.Identity(ctx))
}

// Resume makes the steps of a hand-over that was left.
func (h *Handover) Resume(ctx context.Context, j *operation.Journal) (operation.Job, error) {
	var p Plan
	err := j.Read(&p)
	if err == nil {
		err = j.Owns(p.Token)
	}
	if err == nil && !model.IsSlotPrefix(p.Prefix) { // it becomes a parameter of an agent that is root's
		err = fmt.Errorf("%q, in the plan of the journal, is no prefix of slots", p.Prefix)
	}
	if err != nil {
		return operation.Job{}, err
	}
	who, err := h.Observer.Cluster(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	job := operation.NewJob(j.Operation, who, on(ctx, who.Clone))
	job.Token = p.Token
	return h.job(job, who, &p), nil
}

func (h *Handover) job(job operation.Job, who reconcile.Who, p *Plan) operation.Job {
	primitive := who.Clone.Primitive
	set, unset := cib.SetMeta(primitive, model.MetaSlotPrefix, p.Prefix), cib.DeleteMeta(primitive, model.MetaSlotPrefix)
	with, without := cib.SetParameter(primitive, slotParameter, p.Prefix), cib.DeleteParameter(primitive, slotParameter)
	c := change{Handover: h, Plan: p, who: who}
	switch job.Operation {
	case Adopt: // the prefix comes first, or the agent's slots would stay behind as foreign ones, and hold WAL for ever
		c.was, c.do, c.undo = p.Prefix, without, with
		if p.Meta {
			back := []operation.Action{operation.Command{Command: unset}}
			c.first = []operation.Step{{ID: "prefix", Action: operation.Command{Command: set}, Back: back}}
		}
	case Release:
		c.do, c.undo = with, without
		if p.Meta {
			c.last = []operation.Step{{ID: "prefix", Action: operation.Command{Command: unset}, Back: []operation.Action{operation.Command{Command: set}}}}
		}
	}
	job.Plan, job.Guarded, job.Steps = p, true, c.steps()
	return job
}

// replicating is what a hand-over asks of the local primary beyond what the controller asks.
type replicating interface {
	Replications(ctx context.Context) ([]model.Replication, error)
}

// standbysHoldNothing asks every running standby whether pgrex has dropped its slots.
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

// change is a change of the agent's parameter in maintenance-mode. Pacemaker has to rest before the refresh: the
// refresh kills an action under way, and Pacemaker counts that as a failure, and demotes the primary once
// maintenance-mode ends (seen with 2.1.5). Once maintenance-mode is left, nothing is undone: to change the parameter
// back then would restart the database on every host.
type change struct {
	*Handover
	*Plan
	who      reconcile.Who
	was      string // the parameter's value
	do, undo cib.Command
	first    []operation.Step // just after the first check
	last     []operation.Step // just before maintenance-mode is left
}

func (c change) steps() []operation.Step {
	maintenance := operation.Maintenance{At: c.who.Cluster.MaintenanceAt, Primitive: c.who.Clone.Primitive, Token: c.Token}
	settle := operation.Command{Command: cib.Settle()}
	refresh := operation.Command{Command: cib.Refresh(c.who.Clone.Primitive, "")}
	look := operation.Step{ID: "streaming", Action: operation.Look{
		Text: "see that every standby still streams through its own slot", See: c.again,
	}}
	steps := []operation.Step{
		{ID: "maintenance", Action: maintenance.Enter(), Back: maintenance.Back()},
		{ID: "settle", Action: settle},
		// Back enters maintenance-mode again first: it may be off if leaving it has failed.
		{ID: "parameter", Action: operation.Command{Command: c.do}, Back: []operation.Action{
			maintenance.Enter(), operation.Command{Command: c.undo}, settle, refresh,
			operation.Await("wait until Pacemaker knows every host's role again", refreshPatience, c.knownRoles),
		}},
		{ID: "changed", Action: operation.Look{
			Text: "see that the agent's " + slotParameter + " is changed", See: c.changed,
		}},
		{ID: "refresh", Action: refresh},
		{ID: "roles-known", Again: true, Action: operation.Await("wait until Pacemaker knows every host's role again",
			refreshPatience, c.sameRoles)},
		{ID: "senders", Again: true, Action: operation.Await("wait until every standby streams over the same connection as before",
			refreshPatience, c.sameSenders)},
	}
	return append(slices.Concat([]operation.Step{look}, c.first, steps, c.last),
		operation.Step{
			ID: "leave", Action: maintenance.Leave(c.Observer),
			NoReturn: "the slots are handed over, and nothing is undone: see that crm_mon shows every host's role, and sudo pgrex status",
		},
		// Undone or done, the option does not stay behind.
		operation.Step{ID: "drop-maintenance", Action: maintenance.Drop(), Back: []operation.Action{maintenance.Drop()}},
		operation.Step{ID: "roles", Action: operation.Await("wait until every host has the same role as before",
			refreshPatience, c.sameRoles)})
}

// changed returns an error unless the agent's parameter has changed: the tool also succeeds if there is nothing to
// remove.
func (c change) changed(ctx context.Context) error {
	who, err := c.Observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if now := who.Clone.Parameters[slotParameter]; now == c.was {
		return fmt.Errorf("it is still %q, because it is set elsewhere, too: look for it with cibadmin --query", now)
	}
	return nil
}

// again looks once more: the operator may have taken a while to answer. This check is the first step. If it came after
// another step, undoing that step could undo what another hand-over has done meanwhile.
func (c change) again(ctx context.Context) error {
	now, err := c.look(ctx)
	switch {
	case err != nil:
		return err
	case !sameInstances(now.Clone, c.Roles, c.Unsettled), !maps.Equal(now.Clone.Parameters, c.who.Clone.Parameters),
		!maps.Equal(now.Clone.Meta, c.who.Clone.Meta):
		return errors.New("the cluster is no longer as it was: run it again")
	}
	c.Senders = now.senders
	return ready(now)
}

func (h *Handover) look(ctx context.Context) (before, error) {
	who, err := operation.OnPrimary(ctx, h.Observer)
	return before{who, senders(who.Names, who.Instance)}, err
}

func (c change) sameRoles(ctx context.Context) error {
	who, err := c.Observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if !sameInstances(who.Clone, c.Roles, c.Unsettled) {
		return fmt.Errorf("the roles are %v %v, and were %v %v",
			who.Clone.Roles, who.Clone.Unsettled, c.Roles, c.Unsettled)
	}
	_, err = who.ConfirmedPrimary()
	return err
}

// knownRoles is sameRoles for undoing: a database that went down here meanwhile, with its host, no longer has a role.
func (c change) knownRoles(ctx context.Context) error {
	err := c.sameRoles(ctx)
	if err == nil {
		return nil
	}
	who, lookErr := c.Observer.Full(ctx)
	if lookErr == nil && who.Instance.State == model.ServerDown && len(who.Clone.Unsettled) == 0 && who.RoleOf(who.Self) == model.RoleStopped {
		return nil
	}
	return err
}

func (c change) sameSenders(ctx context.Context) error {
	who, err := c.Observer.Full(ctx)
	if err != nil {
		return err
	}
	if now := senders(c.Names, who.Instance); !maps.Equal(now, c.Senders) {
		return fmt.Errorf("the walsenders of the standbys are %v, and were %v", now, c.Senders)
	}
	return nil
}
