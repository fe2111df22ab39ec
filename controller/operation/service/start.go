package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// servicePatience is how long Pacemaker may take to make this host the primary.
const servicePatience = 5 * time.Minute

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
			return operation.Job{}, fmt.Errorf("the database here runs (to Pacemaker it is %s), and no host is the "+
				"primary yet: wait, or see crm_mon -A", h.RoleText(h.Self))
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
		return operation.Job{}, errors.New("the database here runs, but does not stream through its own slot: wait, " +
			"or type sudo pgrex rejoin")
	case c.Place.Rewinding() != datadir.NotBegun:
		return operation.Job{}, errors.New("a rewind is unfinished here: type sudo pgrex rejoin")
	}
	if len(c.Folders) > 0 {
		return operation.Job{}, fmt.Errorf("%s, for a tablespace of the primary's, is not there: type sudo pgrex "+
			"rejoin, which makes it",
			c.Folders[0])
	}
	rung, err := c.Choose(string(rejoin.MethodStart))
	if err != nil {
		return operation.Job{}, fmt.Errorf("%w; the primary %s has the newest data: "+
			"type sudo pgrex rejoin here", err, c.Primary)
	}
	p := s.startPlan(h)
	job := s.job(ctx, Start, h, p)
	p.Follow = true
	job.Says = append([]string{fmt.Sprintf("the primary is %s, which this host can follow: %s", c.Primary, rung.Why)},
		p.says()...)
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
		return operation.Job{}, errors.New("a rewind is unfinished here: start another host first, then type sudo " +
			"pgrex rejoin here")
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
	job.Says = []string{"no host is the primary; this host becomes the primary with its data: " + h.ends(ctx, local)}
	job.Says = append(job.Says, p.says()...)
	job.Steps = []operation.Step{{ID: "no-primary", Action: operation.Look{
		Text: "see that there is still no primary", See: s.noPrimary,
	}}}
	why, latest := h.against(local.End, p)
	if latest && !force {
		return operation.Job{}, fmt.Errorf("this host must not start first: %s; --force starts it anyway, and what "+
			"only other hosts have is lost", why)
	}
	if why == "" && p.DataStatus == reconcile.DataLatest { // the status says nothing of data that were restored since
		why, _ = s.doubts(h, local, p)
	}
	if why != "" {
		found := s.prove(ctx, h, local, p)
		switch {
		case found.proven():
			p.Proven = true
			job.Says = append(append(job.Says, "it is proven that no other host has newer data, although "+why+":"), found.texts()...)
			if !force {
				job.Steps = append(job.Steps, s.stillNewest(local, p))
			}
		case force:
			job.Says = append(append(job.Says, "warning: "+why+"; what only other hosts have is lost"), found.texts()...)
		default:
			return operation.Job{}, fmt.Errorf("this host must not start first: %s; it is not proven that no other "+
				"host has newer data: %s; --force starts this host anyway, and what only other hosts have is lost", why, strings.Join(found.missing(), "; "))
		}
	}
	if force || p.Proven {
		job.Steps = append(job.Steps, s.claim(h, p)...)
	}
	job.Steps = slices.Concat(job.Steps, s.hand(h, p), s.promoted())
	return job, nil
}

// Returned is what is remembered of a start that has ended well.
func (s *Service) Returned(ctx context.Context, job operation.Job, by string) model.Returned {
	p, planned := job.Plan.(*Plan)
	if !planned {
		p = s.before(Start)
	}
	returned := model.Returned{At: time.Now().UTC(), By: by, Way: "first", Primary: s.Observer.Node}
	if p != nil && p.Follow {
		returned.Way, returned.Primary = string(rejoin.MethodStart), ""
		if who, err := s.Observer.Cluster(ctx); err == nil {
			returned.Primary = who.Primary
		}
	}
	return returned
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
		why = h.place.Lock() + " is there: this host was a primary, and was not the last to stop, so another host " +
			"may have been the primary since"
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
		{ID: "promoted", NoReturn: "this host is the primary: see PostgreSQL's log",
			Action: operation.Await("wait until this host is confirmed as primary", servicePatience, s.isPrimary)},
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
			return errors.New("with restart_on_promote their timeline does not show it: type sudo pgrex operation " +
				"finish")
		case err != nil:
			return fmt.Errorf("their timeline is not known: %w; to go on instead, type sudo pgrex operation finish",
				err)
		case p.Timeline == 0:
			return errors.New("the journal does not say on which timeline they were: type sudo pgrex operation finish")
		case now != p.Timeline:
			return fmt.Errorf("they are on timeline %d now, and were on %d: type sudo pgrex operation finish", now,
				p.Timeline)
		}
		return nil
	}}
	set := func(status string) operation.Command {
		return operation.Command{Command: cib.SetNodeAttribute(h.Here.Name, reconcile.DataStatus(h.Clone), status)}
	}
	if p.DataStatus != reconcile.DataLatest {
		steps = append(steps, operation.Step{
			ID: "data-status", Action: set(reconcile.DataLatest),
			Back: []operation.Action{stopped, never, set(p.DataStatus)},
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
		err = fmt.Errorf("%s is promoted now, or may be: type sudo pgrex start again", promoted[0])
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
