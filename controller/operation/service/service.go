package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
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

// servicePatience is how long Pacemaker may take to make this host the primary.
const servicePatience = 5 * time.Minute

// Service starts and stops the database of this host through Pacemaker. The node is in standby while the database is
// stopped, even after a restart of Pacemaker.
type Service struct {
	Observer *controller.Observer // of this host
	Left     *operation.Journal   // of an operation that was left here and is to be finished; may be nil
}

// self is this host in the cluster, fit to be started or stopped.
type self struct {
	here
	place datadir.Place
}

func (s *Service) look(ctx context.Context) (self, error) {
	who, err := s.Observer.Cluster(ctx)
	if err == nil {
		err = operation.Preflight(who, operation.Demand{Managed: true})
	}
	if err != nil {
		return self{}, err
	}
	place, err := datadir.Of(who.Clone)
	return self{here{who}, place}, err
}

// The names of the operations, in journals and tokens.
const (
	Start = "start"
	Stop  = "stop"
)

// Plan is what the journal keeps: what the operator asked for, and how this host was before.
type Plan struct {
	Force      bool   `json:"force"`
	Checkpoint bool   `json:"checkpoint"`
	Standby    bool   `json:"standby"`     // Pacemaker's standby mode was on
	Failover   bool   `json:"failover"`    // the primary is stopped while others run
	DataStatus string `json:"data_status"` // the agent's node attribute, where it is changed
	Locked     bool   `json:"locked"`      // the agent's lock was there
}

// Stop plans to stop the database here. There are no steps if it is stopped. The primary is stopped last: to stop it
// while others run is a failover, which only force allows.
func (s *Service) Stop(ctx context.Context, checkpoint, force bool) (operation.Job, error) {
	h, err := s.look(ctx)
	if err != nil || h.Here.Standby && h.role() == model.RoleStopped && !h.place.Runs() {
		return operation.Job{}, err
	}
	standbys := h.standbys()
	failover := h.isPrimary() && len(standbys) > 0
	if failover && !force {
		return operation.Job{}, fmt.Errorf("this host, %s, is the primary, and %s would see it fail: type pgrex switchover first; to stop the whole "+
			"cluster, type pgrex stop on %[2]s first and here last; --force is a failover", h.Here.Name, strings.Join(standbys, ", "))
	}
	server, err := s.server(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	p := &Plan{Force: force, Checkpoint: checkpoint, Standby: h.Here.Standby, Failover: failover && len(h.Successors()) > 0}
	if before := s.before(Stop); before != nil { // which may have begun the failover already
		p.Standby, p.Failover = before.Standby, p.Failover || before.Failover
	}
	job := s.job(ctx, Stop, h, p)
	job.Says = h.leaves(failover, standbys)
	if checkpoint && server != nil && !h.Here.Standby { // or else Pacemaker is stopping it by now
		job.Steps = append(job.Steps, operation.Step{ID: "checkpoint", Action: operation.Program{
			Text: "run a checkpoint here to shorten the stop", Run: server.Checkpoint,
		}})
	}
	job.Steps = append(append(job.Steps, s.unchanged(h, failover)), s.keepAway(h, p)...)
	return job, nil
}

// keepAway are the steps by which Pacemaker stops the database and leaves it stopped.
func (s *Service) keepAway(h self, p *Plan) []operation.Step {
	steps := s.rejoin().KeepAway(&rejoin.Case{Node: h.Here.Name, Place: h.place, Standby: p.Standby})
	if p.Failover {
		steps[0].Back = []operation.Action{operation.Look{Text: "see that this node is not in standby", See: func(ctx context.Context) error {
			who, err := s.Observer.Cluster(ctx)
			if err == nil && who.Here.Standby {
				err = errors.New("it is in standby, and another host is the primary now or soon: type sudo pgrex operation finish")
			}
			return err
		}}}
		steps[0].NoReturn = "another host is the primary now or soon; to bring this one back, type: sudo pgrex rejoin"
	}
	return steps
}

// rejoin is the operation that this one borrows steps from.
func (s *Service) rejoin() *rejoin.Rejoin { return &rejoin.Rejoin{Observer: s.Observer} }

// job begins to plan. It goes on with its own operation if that was left here.
func (s *Service) job(ctx context.Context, name string, h self, p *Plan) operation.Job {
	job := operation.NewJob(name, h.Who, operation.On(h.place.Identity(ctx)))
	job.Plan, job.Continues = p, func(j *operation.Journal) bool {
		return s.Left != nil && j.Operation == name && j.Token == s.Left.Token
	}
	return job
}

// before is the plan of the operation of that name that was left here, or nil.
func (s *Service) before(name string) *Plan {
	var p Plan
	if s.Left == nil || s.Left.Operation != name || s.Left.Read(&p) != nil {
		return nil
	}
	return &p
}

// Resume makes the steps of an operation that was left, to undo them. To finish it, plan a new one: the database here
// may have been started or stopped since.
func (s *Service) Resume(ctx context.Context, j *operation.Journal) (operation.Job, error) {
	var p Plan
	if err := j.Read(&p); err != nil {
		return operation.Job{}, err
	}
	who, err := s.Observer.Cluster(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	if !dataStatus.MatchString(p.DataStatus) { // the plan is the data owner's to write
		return operation.Job{}, fmt.Errorf("the data status in the plan of the journal is none of the agent's: %q",
			p.DataStatus)
	}
	h := self{here: here{who}}
	if h.place, err = datadir.Of(who.Clone); err != nil {
		return operation.Job{}, err
	}
	job := s.job(ctx, j.Operation, h, &p)
	switch j.Operation {
	case Stop:
		job.Steps = s.keepAway(h, &p)
	case Start:
		job.Steps = slices.Concat(s.claim(h, &p), s.hand(h), s.promoted())
	}
	return job, nil
}

// dataStatus is what the agent's node attribute says of data.
var dataStatus = regexp.MustCompile(`^(LATEST|DISCONNECT|(STREAMING|CATCHUP|STARTUP|BACKUP|STOPPING)\|[A-Z]+)?$`)

// unchanged looks again: the operator may have taken a while to answer, and so may a checkpoint.
func (s *Service) unchanged(h self, failover bool) operation.Step {
	return operation.Step{ID: "unchanged", Action: operation.Look{
		Text: "see that the database here is still " + h.RoleText(h.Self), See: func(ctx context.Context) error {
			now, err := s.look(ctx)
			switch {
			case err != nil:
				return err
			case now.isPrimary() != h.isPrimary() && !h.Here.Standby: // that a standby has just finished its start changes nothing
				return fmt.Errorf("it is now %s: type pgrex stop again", now.RoleText(now.Self))
			case now.Here.Standby != h.Here.Standby: // another operation was faster: to undo this one would undo that
				return errors.New("the node's standby mode has changed: type pgrex stop again")
			case now.isPrimary() && !failover && len(now.standbys()) > 0:
				return fmt.Errorf("%s runs now, and would see it fail: type pgrex stop again",
					strings.Join(now.standbys(), ", "))
			}
			return nil
		},
	}}
}

// server is the local server, or nil if it is not up.
func (s *Service) server(ctx context.Context) (*postgres.Server, error) {
	in, err := s.Observer.Full(ctx)
	if err != nil || in.Instance.State != model.ServerUp {
		return nil, err
	}
	server, ok := s.Observer.Server().(*postgres.Server)
	if !ok {
		return nil, fmt.Errorf("the server is a %T", s.Observer.Server())
	}
	return server, nil
}

// Start plans to start the database here. There are no steps if it is started. If a primary runs, this host has to be
// able to follow it. Otherwise this host has to have the newest data, or force overrides that.
func (s *Service) Start(ctx context.Context, force bool) (operation.Job, error) {
	h, err := s.look(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	if len(h.primaries()) > 0 {
		return s.follow(ctx, h)
	}
	if h.role() != model.RoleStopped || h.place.Runs() {
		if primary, err := h.ConfirmedPrimary(); err != nil || !h.Is(primary) {
			return operation.Job{}, fmt.Errorf("the database here runs (to Pacemaker it is %s), and no host is the primary yet: wait, or see crm_mon -A", h.RoleText(h.Self))
		}
		return operation.Job{}, nil
	}
	return s.first(ctx, h, force)
}

// follow starts a standby whose data are a part of the primary's.
func (s *Service) follow(ctx context.Context, h self) (operation.Job, error) {
	r := s.rejoin()
	c, err := r.Look(ctx)
	switch {
	case err != nil:
		return operation.Job{}, err
	case c.Streams:
		return operation.Job{}, nil
	case h.role() != model.RoleStopped || c.Place.Runs():
		return operation.Job{}, errors.New("the database here runs, but does not stream through its own slot: wait, or type pgrex rejoin")
	case c.Place.Rewinding() != datadir.NotBegun:
		return operation.Job{}, errors.New("a rewind is unfinished here: type pgrex rejoin")
	}
	rung, err := c.Choose(string(rejoin.MethodStart))
	if err != nil {
		return operation.Job{}, fmt.Errorf("these data cannot just be started, %w; the primary %s has the newest: type pgrex rejoin here", err, c.Primary)
	}
	job := s.job(ctx, Start, h, &Plan{})
	job.Says = []string{fmt.Sprintf("the primary is %s, which this host can follow: %s", c.Primary, rung.Why)}
	job.Steps = []operation.Step{r.StillPrimary(c), r.StillFits(c), c.NameSlot()}
	if _, err := os.Stat(h.place.Lock()); err == nil {
		job.Steps = append(job.Steps, rejoin.Unlock(h.place)) // the data are proven
	}
	job.Steps = append(append(job.Steps, s.hand(h)...), r.AwaitStreams(c))
	return job, nil
}

// first starts this host as the primary if there is none.
func (s *Service) first(ctx context.Context, h self, force bool) (operation.Job, error) {
	if h.place.Rewinding() != datadir.NotBegun {
		return operation.Job{}, errors.New("a rewind is unfinished here: start another host first, then type pgrex rejoin here")
	}
	c, err := h.place.Control(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	local, err := h.place.WAL(ctx, c)
	if err != nil {
		return operation.Job{}, fmt.Errorf("it is not known how new the data here are: %w", err)
	}
	claims := h.Claims()
	why := reconcile.NotFirst(h.Here.Name, local.End, claims)
	_, locked := os.Stat(h.place.Lock())
	switch {
	case force:
	case why != "":
		return operation.Job{}, fmt.Errorf("this host must not be the first to start: %s; --force starts it all the same, and what only others have is lost", why)
	case locked == nil:
		return operation.Job{}, fmt.Errorf("%s is there: this host was a primary, and was not the last to stop, and another host may have been the primary "+
			"since; start another host first if one has newer data; if none has, --force removes the file and starts this host", h.place.Lock())
	}
	p := &Plan{Force: force, DataStatus: h.Here.Permanent[reconcile.DataStatus(h.Clone)], Locked: locked == nil}
	if before := s.before(Start); before != nil {
		p.DataStatus, p.Locked = before.DataStatus, before.Locked
	}
	job := s.job(ctx, Start, h, p)
	job.Says = []string{fmt.Sprintf("no host is the primary; the data here, timeline %d up to %s, are to be the newest",
		local.Timelines[len(local.Timelines)-1].ID, local.End)}
	if why != "" {
		job.Says = append(job.Says, "warning: "+why+"; what only others have is lost")
	}
	job.Steps = []operation.Step{{ID: "no-primary", Action: operation.Look{
		Text: "see that there is still no primary", See: s.noPrimary,
	}}}
	if force {
		job.Steps = append(job.Steps, s.claim(h, p)...)
	}
	job.Steps = slices.Concat(job.Steps, s.hand(h), s.promoted())
	return job, nil
}

// promoted are the steps that wait until this host is the primary.
func (s *Service) promoted() []operation.Step {
	return []operation.Step{
		{ID: "promoted", NoReturn: "this host is the primary: see PostgreSQL's log", Action: operation.Await("wait until this host is confirmed as primary",
			servicePatience, s.isPrimary)},
		{ID: "writes", Action: operation.Await("wait until this host takes writes", servicePatience, s.takesWrites)},
	}
}

// claim are the steps that make the agent accept this host as the primary: its data are the newest, and nothing locks
// them.
func (s *Service) claim(h self, p *Plan) (steps []operation.Step) {
	stopped := operation.Look{Text: "see that the database here is stopped", See: func(ctx context.Context) error {
		return rejoin.Stopped(ctx, s.Observer, h.place)
	}}
	name := reconcile.DataStatus(h.Clone)
	if p.DataStatus != reconcile.DataLatest {
		steps = append(steps, operation.Step{
			ID: "data-status", Action: operation.Command{Command: cib.SetNodeAttribute(h.Here.Name, name, reconcile.DataLatest)},
			Back: []operation.Action{stopped, operation.Command{Command: cib.SetNodeAttribute(h.Here.Name, name, p.DataStatus)}},
		})
	}
	if p.Locked {
		unlock := rejoin.Unlock(h.place)
		unlock.Back = []operation.Action{stopped, operation.Change{
			Text: "touch " + h.place.Lock(), Make: h.place.MakeLock,
		}}
		steps = append(steps, unlock)
	}
	return steps
}

// noPrimary returns an error if there may be a primary now: the operator may have taken a while to answer.
func (s *Service) noPrimary(ctx context.Context) error {
	h, err := s.look(ctx)
	if promoted := h.primaries(); err == nil && len(promoted) > 0 {
		err = fmt.Errorf("%s is promoted now, or may be: type pgrex start again", promoted[0])
	}
	return err
}

// hand gives the database, whose data are proven, back to Pacemaker. Undone, it leaves the database stopped and the
// node in standby, so the database stays stopped.
func (s *Service) hand(h self) []operation.Step {
	return []operation.Step{
		// If the node is not in standby, this makes Pacemaker start the database.
		{ID: "cleanup", Action: operation.Command{Command: cib.Cleanup(h.Clone.Primitive, h.Here.Name)}, Back: []operation.Action{
			operation.Look{Text: "see that it is not the primary", See: func(ctx context.Context) error {
				if s.isPrimary(ctx) == nil {
					return errors.New("it is the primary now: type sudo pgrex operation finish")
				}
				return nil
			}},
			operation.Command{Command: cib.SetStandby(h.Here.Name, true)},
			operation.Settle(), // a start under way ends first
			s.rejoin().Ended(h.place),
		}},
		{ID: "clear-primitive", Action: operation.Command{Command: cib.ClearBan(h.Clone.Primitive, h.Here.Name)}},
		{ID: "clear-clone", Action: operation.Command{Command: cib.ClearBan(h.Clone.ID, h.Here.Name)}},
		{ID: "unstandby", Action: operation.Command{Command: cib.DeleteStandby(h.Here.Name)}},
	}
}

// isPrimary returns an error unless this host is confirmed as primary.
func (s *Service) isPrimary(ctx context.Context) error {
	return operation.IsPrimary(ctx, s.Observer, s.Observer.Node)
}

func (s *Service) takesWrites(ctx context.Context) error {
	server, err := s.server(ctx)
	if err == nil && server == nil {
		err = errors.New("PostgreSQL is not up")
	}
	if err != nil {
		return err
	}
	return server.Commit(ctx)
}
