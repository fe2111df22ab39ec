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

// Service starts and stops the database of this host through Pacemaker. A constraint of pgrex's own keeps a stopped
// database from this node, even after a restart of Pacemaker. Other resources on the node go on.
type Service struct {
	Observer *controller.Observer // of this host
	Left     *operation.Journal   // of an operation that was left here and is to be finished; may be nil
	Report   operation.Reporter   // of what takes long; may be nil
	// CorosyncConf is corosync's configuration; "" for cib.CorosyncConf.
	CorosyncConf string
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
	Follow     bool   `json:"follow"` // the start of a standby
	Proven     bool   `json:"proven"` // it was proven that no other host has newer data
	Checkpoint bool   `json:"checkpoint"`
	Standby    bool   `json:"node_standby"` // Pacemaker's standby mode was on
	Kept       bool   `json:"kept_stopped"` // pgrex kept the database stopped
	Failover   bool   `json:"failover"`     // the primary is stopped while others run
	DataStatus string `json:"data_status"`  // the agent's node attribute, where it is changed
	Locked     bool   `json:"locked"`       // the agent's lock was there
	Timeline   uint32 `json:"timeline"`     // the newest that the data had WAL of; 0 if that is not known
}

// Stop plans to stop the database here. There are no steps if it is stopped. The primary is stopped last: to stop it
// while others run is a failover, which only force allows.
func (s *Service) Stop(ctx context.Context, checkpoint, force bool) (operation.Job, error) {
	h, err := s.look(ctx)
	if err != nil || h.away() && h.role() == model.RoleStopped && !h.place.Runs() {
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
	p := &Plan{Force: force, Checkpoint: checkpoint, Kept: h.kept(), Failover: failover && len(h.Successors()) > 0}
	if before := s.before(Stop); before != nil { // it may have begun the failover already
		p.Kept, p.Failover = before.Kept, p.Failover || before.Failover
	}
	job := s.job(ctx, Stop, h, p)
	job.Says = append(h.leaves(failover, standbys), s.caseOf(h, p).Warnings(ctx)...)
	if checkpoint && server != nil && !h.away() { // or else Pacemaker is stopping it by now
		job.Steps = append(job.Steps, operation.Step{ID: "checkpoint", Action: operation.Program{
			Text: "run a checkpoint here to shorten the stop", Run: server.Checkpoint,
		}})
	}
	job.Steps = append(append(job.Steps, s.unchanged(h, failover)), s.keepAway(h, p)...)
	return job, nil
}

// keepAway are the steps by which Pacemaker stops the database and leaves it stopped.
func (s *Service) keepAway(h self, p *Plan) []operation.Step {
	steps := s.rejoin().KeepAway(s.caseOf(h, p))
	if p.Failover {
		steps[0].Back = []operation.Action{operation.Look{Text: "see that the database is not kept from this node", See: func(ctx context.Context) error {
			who, err := s.Observer.Cluster(ctx)
			if err == nil && (here{who}).kept() {
				err = errors.New("it is, and another host is the primary now or soon: type sudo pgrex operation finish")
			}
			return err
		}}}
		steps[0].NoReturn = "another host is the primary now or soon; to bring this one back, type: sudo pgrex rejoin"
	}
	return steps
}

// rejoin is the operation from which start and stop borrow steps. caseOf is the case from which it makes them.
func (s *Service) rejoin() *rejoin.Rejoin {
	return &rejoin.Rejoin{Observer: s.Observer, Report: s.Report}
}

func (s *Service) caseOf(h self, p *Plan) *rejoin.Case {
	return &rejoin.Case{
		Primitive: h.Clone.Primitive, Clone: h.Clone.ID, Node: h.Here.Name, Place: h.place, Standby: p.Standby, Kept: p.Kept,
	}
}

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
	switch {
	case j.Operation == Stop:
		job.Steps = s.keepAway(h, &p)
	case j.Operation == Start && p.Follow:
		c := s.caseOf(h, &p)
		c.Slot = h.OwnSlot()
		job.Steps = append(s.hand(h, &p), s.rejoin().AwaitStreams(c))
	case j.Operation == Start:
		job.Steps = slices.Concat(s.claim(h, &p), s.hand(h, &p), s.promoted())
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
			case now.isPrimary() != h.isPrimary() && !h.away(): // that a standby has just finished its start changes nothing
				return fmt.Errorf("it is now %s: type pgrex stop again", now.RoleText(now.Self))
			case now.kept() && !h.kept(): // undoing this stop would start what the other one has stopped
				return errors.New("another operation has stopped it: type pgrex stop again")
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
	if h.OwnSlot() == "" {
		return operation.Job{}, fmt.Errorf("this host, %s, is not in the agent's node_list", h.Here.Name)
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
	if len(c.Folders) > 0 {
		return operation.Job{}, fmt.Errorf("%s, for a tablespace of the primary's, is not there: type pgrex rejoin, which makes it",
			c.Folders[0])
	}
	rung, err := c.Choose(string(rejoin.MethodStart))
	if err != nil {
		return operation.Job{}, fmt.Errorf("these data cannot just be started, %w; the primary %s has the newest: type pgrex rejoin here", err, c.Primary)
	}
	p := s.startPlan(h)
	job := s.job(ctx, Start, h, p)
	p.Follow = true
	job.Says = append([]string{fmt.Sprintf("the primary is %s, which this host can follow: %s", c.Primary, rung.Why)}, p.says()...)
	job.Steps = append([]operation.Step{r.StillPrimary(c), r.StillFits(c)}, c.Follow(rejoin.MethodStart)...)
	job.Steps = append(job.Steps, c.NameSlot())
	if _, err := os.Stat(h.place.Lock()); err == nil {
		job.Steps = append(job.Steps, rejoin.Unlock(h.place)) // the data are proven
	}
	job.Steps = append(append(job.Steps, s.hand(h, p)...), r.AwaitStreams(c))
	return job, nil
}

// first starts this host as the primary if there is none. If the CIB or the agent's lock speaks against that, it has to
// be proven that no other member has newer data, or the operator has to force the start.
func (s *Service) first(ctx context.Context, h self, force bool) (operation.Job, error) {
	if h.place.Rewinding() != datadir.NotBegun {
		return operation.Job{}, errors.New("a rewind is unfinished here: start another host first, then type pgrex rejoin here")
	}
	if err := h.place.Configuration(ctx); err != nil {
		return operation.Job{}, err
	}
	c, err := h.place.Control(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	if err := h.place.Recovered(ctx, c); err != nil {
		return operation.Job{}, err
	}
	local, err := h.place.WAL(ctx, c)
	if err == nil && local.Backup != nil {
		err = errors.New("they were restored from a backup, and have not recovered yet: " + h.place.EndRecovery())
	}
	if err != nil {
		return operation.Job{}, fmt.Errorf("it is not known how new the data here are: %w", err)
	}
	if err := h.place.Follows(ctx); err != nil { // the agent starts it as a standby first
		return operation.Job{}, err
	}
	p := s.wasBefore(h, force, local.Timelines[len(local.Timelines)-1].ID)
	job := s.job(ctx, Start, h, p)
	job.Says = []string{"no host is the primary; the data here, " + h.ends(ctx, local) + ", are to be the newest"}
	job.Says = append(job.Says, p.says()...)
	job.Steps = []operation.Step{{ID: "no-primary", Action: operation.Look{
		Text: "see that there is still no primary", See: s.noPrimary,
	}}}
	why, latest := h.against(local.End, p)
	if latest && !force {
		return operation.Job{}, fmt.Errorf("this host must not be the first to start: %s; --force starts it all the same, and "+
			"what only others have is lost", why)
	}
	if why == "" && p.DataStatus == reconcile.DataLatest { // the status says nothing of data that were restored since
		why = s.doubt(h, local, p)
	}
	if why != "" {
		found := s.prove(ctx, h, local, p)
		switch {
		case found.proven():
			p.Proven = true
			job.Says = append(append(job.Says, "that is proven, though "+why+":"), found.texts()...)
			if !force {
				job.Steps = append(job.Steps, s.stillNewest(local, p))
			}
		case force:
			job.Says = append(append(job.Says, "warning: "+why+"; what only others have is lost"), found.texts()...)
		default:
			return operation.Job{}, fmt.Errorf("this host must not be the first to start: %s; that no other host has newer data is "+
				"not proven: %s; --force starts this one all the same, and what only others have is lost", why, strings.Join(found.missing(), "; "))
		}
	}
	if force || p.Proven {
		job.Steps = append(job.Steps, s.claim(h, p)...)
	}
	job.Steps = slices.Concat(job.Steps, s.hand(h, p), s.promoted())
	return job, nil
}

// startPlan is a plan that says whether the database was kept stopped before this operation, and how.
func (s *Service) startPlan(h self) *Plan {
	if before := s.before(Start); before != nil {
		return &Plan{Standby: before.Standby, Kept: before.Kept}
	}
	return &Plan{Standby: h.Here.Standby, Kept: h.kept()}
}

// says returns what the operator should know before a start.
func (p *Plan) says() []string {
	if p.Standby {
		return []string{rejoin.EndsStandby}
	}
	return nil
}

// wasBefore is a plan that says how this host was before the operation. If the operation was left and goes on now, its
// journal says so, because the operation may have changed the host since.
func (s *Service) wasBefore(h self, force bool, timeline uint32) *Plan {
	_, err := os.Stat(h.place.Lock())
	p := s.startPlan(h)
	p.Force, p.DataStatus, p.Locked = force, h.Here.Permanent[reconcile.DataStatus(h.Clone)], err == nil
	p.Timeline = timeline
	if before := s.before(Start); before != nil {
		p.Locked = p.Locked || before.Locked
		if p.DataStatus == reconcile.DataLatest { // otherwise another host was promoted since
			p.DataStatus, p.Timeline = before.DataStatus, before.Timeline
		}
	}
	return p
}

// ends is a text that says how new the data here are.
func (h self) ends(ctx context.Context, local reconcile.LocalData) string {
	text := fmt.Sprintf("timeline %d up to %s", local.Timelines[len(local.Timelines)-1].ID, local.End)
	if when := h.place.LastCommit(ctx, local, local.End); when != "" {
		text += ", last commit at " + when
	}
	return text
}

// against is why this host should not be the first to start, by the CIB and the agent's lock; "" if neither speaks
// against it. latest reports whether another host was the last primary.
func (h self) against(end model.LSN, p *Plan) (why string, latest bool) {
	claims := h.Claims()
	for i, c := range claims {
		if h.Is(c.Host) {
			claims[i].DataStatus = p.DataStatus
		} else if c.DataStatus == reconcile.DataLatest {
			latest = true
		}
	}
	why = reconcile.NotFirst(h.Here.Name, end, claims)
	if why == "" && p.Locked {
		why = h.place.Lock() + " is there: this host was a primary, and was not the last to stop, so another host may have been " +
			"the primary since"
	}
	return why, latest
}

// stillNewest asks the other members again: the operator may have taken a while to answer.
func (s *Service) stillNewest(local reconcile.LocalData, p *Plan) operation.Step {
	return operation.Step{ID: "still-newest", Action: operation.Look{
		Text: "see that still no other host has newer data", See: func(ctx context.Context) error {
			now, err := s.look(ctx)
			if err != nil {
				return err
			}
			if why := s.prove(ctx, now, local, p).missing(); len(why) > 0 {
				return fmt.Errorf("that is no longer proven: %s", strings.Join(why, "; "))
			}
			return nil
		},
	}}
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
// them. Data that have left the plan's timeline were promoted, and are the newest: that is not taken back. Whether they
// have, their WAL shows. The control file names the new timeline only after a checkpoint.
func (s *Service) claim(h self, p *Plan) (steps []operation.Step) {
	stopped := operation.Look{Text: "see that the database here is stopped", See: func(ctx context.Context) error {
		return rejoin.Stopped(ctx, s.Observer, h.place)
	}}
	restarts, _ := model.ParseBool(h.Clone.Parameters[model.ParamRestartOnPromote])
	never := operation.Look{Text: "see that the data here were not promoted", See: func(ctx context.Context) error {
		now, err := h.place.Newest(ctx)
		switch {
		case restarts:
			return errors.New("with restart_on_promote their timeline does not show it: type sudo pgrex operation finish")
		case err != nil:
			return fmt.Errorf("their timeline is not known: %w; to go on instead, type sudo pgrex operation finish", err)
		case p.Timeline == 0:
			return errors.New("the journal does not say on which timeline they were: type sudo pgrex operation finish")
		case now != p.Timeline:
			return fmt.Errorf("they are on timeline %d now, and were on %d: type sudo pgrex operation finish", now, p.Timeline)
		}
		return nil
	}}
	name := reconcile.DataStatus(h.Clone)
	if p.DataStatus != reconcile.DataLatest {
		steps = append(steps, operation.Step{
			ID: "data-status", Action: operation.Command{Command: cib.SetNodeAttribute(h.Here.Name, name, reconcile.DataLatest)},
			Back: []operation.Action{stopped, never, operation.Command{Command: cib.SetNodeAttribute(h.Here.Name, name, p.DataStatus)}},
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

// hand gives the database, whose data are proven, back to Pacemaker. Undone, it leaves the database stopped. If nothing
// kept the database stopped before, the undo makes pgrex's constraint, because Pacemaker would start the database.
func (s *Service) hand(h self, p *Plan) []operation.Step {
	c := s.caseOf(h, p)
	c.Kept = p.Kept || !p.Standby
	steps := s.rejoin().LetBack(c)
	steps[0].Back = append([]operation.Action{operation.Look{Text: "see that it is not the primary", See: func(ctx context.Context) error {
		who, err := s.Observer.Cluster(ctx)
		if err == nil && (here{who}).isPrimary() {
			err = errors.New("it is the primary now, or may be: type sudo pgrex operation finish")
		}
		return err
	}}}, steps[0].Back...)
	return steps
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
