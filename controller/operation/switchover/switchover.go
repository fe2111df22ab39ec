package switchover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// How long a switchover waits. Writes stand still from the shutdown on: so it gives up soon.
const (
	receivePatience = 20 * time.Second
	promotePatience = 2 * time.Minute
	startPatience   = 40 * time.Second // within undoTimeout
	demotePatience  = 40 * time.Second // within undoTimeout
	shutdownSeconds = "60"             // of pg_ctl
	// lookPatience bounds one look at the address that moves: nobody may be there to answer.
	lookPatience = time.Second
)

// Switchover makes another host the primary. The old primary, on which it runs, becomes a standby of that host.
//
// The agent's demote would be an immediate shutdown, after which nobody knows what the standbys have received. So pgrex
// shuts PostgreSQL down, while Pacemaker looks away (maintenance-mode): a fast shutdown ends only when every streaming
// standby has flushed all of the WAL, the shutdown checkpoint included. The agent then finds PostgreSQL stopped, and
// demotes nothing. For the same reason the old primary's data are a part of the new one's. So the lock that keeps the
// old primary from starting may go.
type Switchover struct {
	Observer *controller.Observer // of this host
	To       string               // "" for any host that can
	Report   operation.Reporter

	reconcile.Who
	place    datadir.Place
	conninfo string
	rejoin   *rejoin.Rejoin
	back     *rejoin.Case // of this host
	plan     Plan
}

// Name is the operation's, in journals and tokens.
const Name = "switchover"

// Plan is what the journal keeps. The CIB says everything else that the steps are made of.
type Plan struct {
	Target  string      `json:"target"`  // its node
	Address string      `json:"address"` // its own
	Token   model.Token `json:"token"`

	// What the steps have found.
	End      model.LSN `json:"end"` // of the WAL here, once it is shut down
	SystemID string    `json:"system_id"`
	Stopped  time.Time `json:"stopped"` // when it was told to shut down
}

// primaryServer is what a switchover asks of the local primary beyond what the controller asks.
type primaryServer interface {
	Replications(ctx context.Context) ([]model.Replication, error)
	Checkpoint(ctx context.Context) error
}

// Job checks whether the switchover is possible, and plans it. It changes nothing.
func (s *Switchover) Job(ctx context.Context) (operation.Job, error) {
	if err := s.look(ctx); err != nil {
		return operation.Job{}, err
	}
	job := operation.NewJob(Name, s.Who, operation.On(s.place.Identity(ctx)))
	job.Token.Target = s.plan.Target
	s.plan.Token = job.Token
	return s.job(job), nil
}

// Resume makes the steps of a switchover that was left.
func (s *Switchover) Resume(ctx context.Context, j *operation.Journal) (operation.Job, error) {
	err := j.Read(&s.plan)
	if err == nil {
		err = j.Owns(s.plan.Token)
	}
	if err == nil {
		s.Who, err = s.Observer.Cluster(ctx)
	}
	if err == nil {
		s.place, err = datadir.Of(s.Clone)
	}
	if err == nil {
		s.conninfo, err = s.place.Conninfo(ctx, s.Clone)
	}
	if err != nil {
		return operation.Job{}, err
	}
	if _, member := s.Cluster.Node(s.plan.Target); !member {
		return operation.Job{}, fmt.Errorf("%s, which was to be the primary, is not a node of this cluster",
			s.plan.Target)
	}
	job := operation.NewJob(Name, s.Who, operation.On(s.place.Identity(ctx)))
	job.Token = s.plan.Token
	return s.job(job), nil
}

func (s *Switchover) job(job operation.Job) operation.Job {
	s.rejoin = &rejoin.Rejoin{Observer: s.Observer, Report: s.Report}
	s.back = &rejoin.Case{Place: s.place, Node: s.Here.Name, Primitive: s.Clone.Primitive, Slot: s.OwnSlot()}
	first := []operation.Step{
		{ID: "checkpoint", Action: operation.Program{
			Text: "run a checkpoint here to shorten the shutdown", Run: s.checkpoint,
		}},
		{ID: "look", Action: operation.Look{
			Text: "see that " + s.plan.Target + " can still take over", See: s.canStill,
		}},
	}
	job.Plan, job.Guarded = &s.plan, true
	job.Steps = slices.Concat(first, s.handOver(), s.comeBack())
	return job
}

func (s *Switchover) checkpoint(ctx context.Context) error {
	// A switchover that was resumed has not looked at the server yet.
	if _, err := operation.OnPrimary(ctx, s.Observer); err != nil {
		return err
	}
	server, ok := s.Observer.Server().(primaryServer)
	if !ok {
		return fmt.Errorf("the server is a %T", s.Observer.Server())
	}
	return server.Checkpoint(ctx)
}

// canStill looks again: the operator may have taken a while to answer, and so may a checkpoint.
func (s *Switchover) canStill(ctx context.Context) error {
	now := *s
	now.To = s.plan.Target
	err := now.look(ctx)
	if err == nil && now.plan.Address != s.plan.Address {
		err = fmt.Errorf("%s has another address now, %s: run it again", s.plan.Target, now.plan.Address)
	}
	return err
}

// look finds who can take over from this host, or why nobody can. It runs again before the first step that changes
// something: the operator may take a while to answer, and so may a checkpoint.
func (s *Switchover) look(ctx context.Context) (err error) {
	if s.Who, err = operation.OnPrimary(ctx, s.Observer); err != nil {
		return err
	}
	if s.place, err = datadir.Of(s.Clone); err != nil {
		return err
	}
	if err = s.place.Configuration(ctx); err != nil { // the server here has to start again later
		return err
	}
	if err = s.place.Follows(ctx); err != nil { // as a standby
		return err
	}
	if s.conninfo, err = s.place.Conninfo(ctx, s.Clone); err != nil {
		return err
	}
	server, ok := s.Observer.Server().(primaryServer)
	if !ok {
		return fmt.Errorf("the server is a %T", s.Observer.Server())
	}
	standbys, err := server.Replications(ctx)
	if err != nil {
		return err
	}
	found := candidates{Who: s.Who, Standbys: standbys}
	if s.plan.Target, err = found.successor(s.To); err != nil {
		return err
	}
	replication, _ := found.replication(s.plan.Target)
	s.plan.Address = replication.Address
	return s.slotsAreThere(ctx)
}

// slotsAreThere returns an error unless the target holds WAL for every other member. It also proves that the target
// lets this host in, which is to follow it.
func (s *Switchover) slotsAreThere(ctx context.Context) error {
	said, err := s.askTarget(ctx, s.SlotNames()...)
	if err != nil {
		return fmt.Errorf("%s does not answer this host, which therefore could not follow it: %w", s.plan.Target, err)
	}
	if s.Policy.AgentSlots || !s.Policy.StandbySlots {
		return nil // there are none before it is promoted
	}
	if missing := missingSlots(s.Who, s.plan.Target, said); len(missing) > 0 {
		return fmt.Errorf("%s holds no WAL for the other hosts: slots are missing or not reserved (%s); see that pgrex runs there",
			s.plan.Target, strings.Join(missing, ", "))
	}
	return nil
}

// askTarget asks the target at its own address.
func (s *Switchover) askTarget(ctx context.Context, slots ...string) (model.Upstream, error) {
	source, err := postgres.OpenStandby(ctx, s.conninfo, s.plan.Address)
	if err != nil {
		return model.Upstream{}, err
	}
	defer source.Close()
	return source.Identify(ctx, slots...)
}

// handOver are the steps that make the target the primary. All can be undone until Pacemaker gets the database back.
func (s *Switchover) handOver() []operation.Step {
	var steps []operation.Step
	for _, node := range s.others() {
		steps = append(steps, ban("ban-"+node, cib.BanPromoted(s.Clone.ID, node), cib.ClearBan(s.Clone.ID, node)))
	}
	var clear []operation.Step
	if others := s.clearOthers(); len(others) > 0 {
		clear = []operation.Step{{ID: "clear-others", Action: others}}
	}
	maintenance := operation.Maintenance{At: s.Cluster.MaintenanceAt, Primitive: s.Clone.Primitive, Token: s.plan.Token}
	steps = append(steps,
		operation.Step{ID: "maintenance", Action: maintenance.Enter(), Back: maintenance.Back()},
		operation.Step{ID: "settle", Action: operation.Command{Command: cib.Settle()}},
		// Outside of it Pacemaker would demote PostgreSQL here for the ban, which is an immediate shutdown.
		operation.Step{ID: "unwatched", Again: true, Action: operation.Look{
			Text: "see that Pacemaker looks away from PostgreSQL here", See: s.unwatched,
		}},
		ban("ban-here", cib.Ban(s.Clone.ID, s.Here.Name), cib.ClearBan(s.Clone.ID, s.Here.Name)),
		operation.Step{ID: "follows", Action: operation.Look{
			Text: "see that " + s.plan.Target + " still follows", See: s.follows,
		}},
		s.shutDown(),
		operation.Step{ID: "received", Again: true, Action: operation.Await("wait until "+s.plan.Target+" has all of the WAL",
			receivePatience, s.hasAll)},
		operation.Step{
			ID: "leave", Action: maintenance.Leave(s.Observer),
			NoReturn: "Pacemaker may promote any host now; if this one does not come back, type: sudo pgrex rejoin",
		},
		s.takesWrites(maintenance),
		operation.Step{
			ID: "promoted", Action: operation.Await("wait until "+s.plan.Target+" is confirmed as primary",
				promotePatience, s.isPrimary),
			NoReturn: s.plan.Target + " is the primary now; to make this host its standby, type: sudo pgrex rejoin",
		},
	)
	return append(append(steps, clear...), operation.Step{ID: "drop-maintenance", Action: maintenance.Drop()})
}

func ban(id string, on, off cib.Command) operation.Step {
	return operation.Step{
		ID: id, Action: operation.Command{Command: on}, Back: []operation.Action{operation.Command{Command: off}},
		Again: true, // a ban ends by itself
	}
}

// clearOthers lets every other host be promoted again. It is one action: so it begins even after an interrupt.
func (s *Switchover) clearOthers() operation.Commands {
	var clear operation.Commands
	for _, node := range s.others() {
		clear = append(clear, cib.ClearBan(s.Clone.ID, node))
	}
	return clear
}

// follows asks the target whether it could take over. Pacemaker looks away already.
func (s *Switchover) follows(ctx context.Context) error {
	said, err := s.askTarget(ctx)
	if err == nil && !said.InRecovery {
		err = errors.New("it is no longer a standby")
	}
	return err
}

// others are the nodes of the members that are neither this host nor the target.
func (s *Switchover) others() (nodes []string) {
	for _, member := range s.Policy.Members {
		node, known := s.Cluster.Node(member)
		if known && node.Name != s.plan.Target && node.Name != s.Here.Name {
			nodes = append(nodes, node.Name)
		}
	}
	return nodes
}

// hasAll returns an error unless the target has flushed all WAL of this host. It does not wait for the other standbys:
// the slots of the target hold what they lack.
func (s *Switchover) hasAll(ctx context.Context) error {
	said, err := s.askTarget(ctx)
	switch {
	case err != nil:
		return err
	case said.SystemID != s.plan.SystemID:
		return fmt.Errorf("it is another database, with the system identifier %s", said.SystemID)
	case !said.InRecovery && s.inMaintenance(ctx) != nil && s.isPrimary(ctx) == nil:
		return nil // maintenance-mode was left by hand, and Pacemaker has promoted it: "proven" sees whether it had all
	case !said.InRecovery:
		return errors.New("it is no longer a standby")
	case said.Flushed < s.plan.End:
		return fmt.Errorf("it has the WAL up to %s, of %s", said.Flushed, s.plan.End)
	}
	return nil
}

// takesWrites waits until a primary answers at the address that clients use. Undone, it lets every host be promoted
// again, this one too. That is safe: the target has all that this host has, and so this host can follow it in any case.
func (s *Switchover) takesWrites(maintenance operation.Maintenance) operation.Step {
	vip := s.Clone.Parameters["master_ip"]
	return operation.Step{
		ID: "writes",
		Action: operation.Await("wait until "+vip+" takes writes again", promotePatience, func(ctx context.Context) error {
			err := s.primaryAnswers(ctx)
			if err == nil {
				s.Report(fmt.Sprintf("write gap: %d ms, from the order to shut down here to the first look that found a primary at %s",
					time.Since(s.plan.Stopped).Milliseconds(), vip))
			}
			return err
		}),
		Back: []operation.Action{
			// Without the ban Pacemaker would look for the primary that it left here, and count what it finds as a
			// failure. If Pacemaker does not get that far, somebody must still be able to serve.
			operation.Program{Text: "wait until Pacemaker has stopped it here", Run: func(ctx context.Context) error {
				_ = operation.Await("", demotePatience, func(ctx context.Context) error {
					return rejoin.Stopped(ctx, s.Observer, s.place)
				}).Do(ctx)
				return nil
			}},
			operation.Change{Text: "remove " + s.place.Lock(), Make: s.place.RemoveLock},
			operation.Command{Command: cib.ClearBan(s.Clone.ID, "")},
			maintenance.Drop(),
		},
	}
}

// primaryAnswers returns an error unless a primary answers at the virtual IP.
func (s *Switchover) primaryAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	source, err := postgres.OpenSource(ctx, s.conninfo)
	if err != nil {
		return err
	}
	defer source.Close()
	said, err := source.Identify(ctx)
	if err == nil && said.InRecovery {
		err = errors.New("a standby answers there")
	}
	return err
}

func (s *Switchover) isPrimary(ctx context.Context) error {
	return operation.IsPrimary(ctx, s.Observer, s.plan.Target)
}

// comeBack are the steps that make this host a standby of the target. If one fails, pgrex rejoin does the rest.
func (s *Switchover) comeBack() []operation.Step {
	return []operation.Step{
		{ID: "proven", Again: true, Action: operation.Look{
			Text: "see that the data here are a part of " + s.plan.Target + "'s", See: s.proven,
		}},
		s.back.NameSlot(),
		rejoin.Unlock(s.place),
		{ID: "clear-here", Action: operation.Command{Command: cib.ClearBan(s.Clone.ID, s.Here.Name)}},
		s.rejoin.AwaitStreams(s.back),
	}
}

// proven waits until the target answers, and checks that this host can follow it.
func (s *Switchover) proven(ctx context.Context) error {
	var found *rejoin.Case
	err := operation.Await("", promotePatience, func(ctx context.Context) (err error) {
		found, err = s.rejoin.Look(ctx)
		return err
	}).Do(ctx)
	if err == nil && !found.Streams { // on a repeat, it already streams
		_, err = found.Choose(string(rejoin.MethodStart))
	}
	return err
}

// Target is the host that is to be the primary.
func (s *Switchover) Target() string { return s.plan.Target }
