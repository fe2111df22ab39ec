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

// Service starts and stops the database of this host. Pacemaker does it: the node is in standby while the database is
// stopped, also after Pacemaker was started anew.
type Service struct {
	Observer *controller.Observer // of this host
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

// Stop makes the steps that stop the database here; none when it is stopped. The primary is stopped last: to stop it while
// others run is a failover, which force alone allows.
func (s *Service) Stop(ctx context.Context, checkpoint, force bool) (operation.Work, error) {
	h, err := s.look(ctx)
	if err != nil || h.Here.Standby && h.role() == model.RoleStopped && !h.place.Runs() {
		return operation.Work{}, err
	}
	standbys := h.standbys()
	failover := h.isPrimary() && len(standbys) > 0
	if failover && !force {
		return operation.Work{}, fmt.Errorf("this host, %s, is the primary, and %s would see it fail: type pgrex switchover first; to stop the whole "+
			"cluster, type pgrex stop on %[2]s first and here last; --force is a failover", h.Here.Name, strings.Join(standbys, ", "))
	}
	w := operation.Work{Says: h.leaves(failover, standbys)}
	server, err := s.server(ctx)
	if err != nil {
		return operation.Work{}, err
	}
	if checkpoint && server != nil {
		first := operation.Step{Text: "a checkpoint here, so that the stop is short", Do: server.Checkpoint}
		w.Steps = append(w.Steps, first)
	}
	w.Steps = append(w.Steps, s.unchanged(h, failover))
	away := (&rejoin.Rejoin{Observer: s.Observer}).KeepAway(&rejoin.Case{Node: h.Here.Name, Place: h.place})
	switch {
	case failover && len(h.Successors()) > 0:
		away[0].UndoText = "pgrex rejoin"
		away[0].Undo = func(context.Context) error {
			return errors.New("if this node is in standby, another host is the primary by now, or soon")
		}
	case h.Here.Standby:
		away[0].Undo = nil
	}
	w.Steps = append(w.Steps, away...)
	return w, nil
}

// unchanged looks again: the operator may have taken a while to answer, and so may a checkpoint.
func (s *Service) unchanged(h self, failover bool) operation.Step {
	text := "see that the database here is still " + h.RoleText(h.Self)
	return operation.Step{Text: text, Do: func(ctx context.Context) error {
		now, err := s.look(ctx)
		switch {
		case err != nil:
			return err
		case now.RoleText(now.Self) != h.RoleText(h.Self):
			return fmt.Errorf("it is %s by now: type pgrex stop again", now.RoleText(now.Self))
		case now.isPrimary() && !failover && len(now.standbys()) > 0:
			return fmt.Errorf("%s runs by now, and would see it fail: type pgrex stop again", strings.Join(now.standbys(), ", "))
		}
		return nil
	}}
}

// server is the local server, nil where it is not up.
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

// Start makes the steps that start the database here; none when it is started. Where a primary runs, this host has to be
// able to follow it; otherwise it has to have the newest data, or force says so.
func (s *Service) Start(ctx context.Context, force bool) (operation.Work, error) {
	h, err := s.look(ctx)
	if err != nil {
		return operation.Work{}, err
	}
	if len(h.primaries()) > 0 {
		return s.follow(ctx, h)
	}
	if h.role() != model.RoleStopped || h.place.Runs() {
		if primary, err := h.ConfirmedPrimary(); err != nil || !h.Is(primary) {
			return operation.Work{}, fmt.Errorf("the database here runs (to Pacemaker it is %s), and no host is the primary yet: wait, or see crm_mon -A", h.RoleText(h.Self))
		}
		return operation.Work{}, nil
	}
	return s.first(ctx, h, force)
}

// follow starts a standby whose data are a part of the primary's.
func (s *Service) follow(ctx context.Context, h self) (operation.Work, error) {
	r := &rejoin.Rejoin{Observer: s.Observer}
	c, err := r.Look(ctx)
	switch {
	case err != nil:
		return operation.Work{}, err
	case c.Streams:
		return operation.Work{}, nil
	case h.role() != model.RoleStopped || c.Place.Runs():
		return operation.Work{}, errors.New("the database here runs, but does not stream through its own slot: wait, or type pgrex rejoin")
	case c.Place.Rewinding() != datadir.NotBegun:
		return operation.Work{}, errors.New("a rewind was begun here and not finished: type pgrex rejoin")
	}
	rung, err := c.Choose(string(rejoin.MethodStart))
	if err != nil {
		return operation.Work{}, fmt.Errorf("these data cannot just be started, %w; the primary %s has the newest: type pgrex rejoin here", err, c.Primary)
	}
	var unlocked []operation.Step
	if _, err := os.Stat(h.place.Lock()); err == nil {
		unlocked = []operation.Step{rejoin.Unlock(h.place)} // the data are proven
	}
	return operation.Work{
		Says:  []string{fmt.Sprintf("the primary is %s, which this host can follow: %s", c.Primary, rung.Why)},
		Steps: slices.Concat([]operation.Step{r.StillPrimary(c), r.StillFits(c), c.NameSlot()}, unlocked, s.hand(h), []operation.Step{r.AwaitStreams(c)}),
	}, nil
}

// first starts this host as the primary, where there is none.
func (s *Service) first(ctx context.Context, h self, force bool) (operation.Work, error) {
	if h.place.Rewinding() != datadir.NotBegun {
		return operation.Work{}, errors.New("a rewind was begun here and not finished: start another host first, then type pgrex rejoin here")
	}
	c, err := h.place.Control(ctx)
	if err != nil {
		return operation.Work{}, err
	}
	local, err := h.place.WAL(ctx, c)
	if err != nil {
		return operation.Work{}, fmt.Errorf("it is not known how new the data here are: %w", err)
	}
	claims := h.Claims()
	why := reconcile.NotFirst(h.Here.Name, local.End, claims)
	_, locked := os.Stat(h.place.Lock())
	switch {
	case force:
	case why != "":
		return operation.Work{}, fmt.Errorf("this host must not be the first to start: %s; --force starts it all the same, and what only others have is lost", why)
	case locked == nil:
		return operation.Work{}, fmt.Errorf("%s is there: this host was a primary, and did not end as the last one, so that another may have been the primary "+
			"since; start another host first if one has newer data; if none has, --force removes the file and starts this host", h.place.Lock())
	}
	steps := []operation.Step{{Text: "see that there is still no primary", Do: s.noPrimary}}
	if force {
		steps = append(steps, s.claim(h)...)
	}
	promoted := operation.Await("it is the primary by every sign", servicePatience, s.isPrimary)
	promoted.NoReturn = true
	steps = append(steps, s.hand(h)...)
	steps = append(steps, promoted, operation.Await("it takes writes", servicePatience, s.takesWrites))
	says := []string{fmt.Sprintf("no host is the primary; the data here, timeline %d up to %s, are to be the newest", local.Timelines[len(local.Timelines)-1].ID, local.End)}
	if why != "" {
		says = append(says, "warning: "+why+"; what only others have is lost")
	}
	return operation.Work{Says: says, Steps: steps}, nil
}

// claim are the steps without which the agent would not let this host be the primary: its data are the newest, and nothing
// locks them.
func (s *Service) claim(h self) (steps []operation.Step) {
	whileStopped := func(step operation.Step, undo func(context.Context) error, text string) operation.Step {
		step.UndoText = "while the database here is stopped: " + text
		step.Undo = func(ctx context.Context) error {
			if err := rejoin.Stopped(ctx, s.Observer, h.place); err != nil {
				return err
			}
			return undo(ctx)
		}
		return step
	}
	name := reconcile.DataStatus(h.Clone)
	if status := h.Here.Permanent[name]; status != reconcile.DataLatest {
		undo := cib.SetNodeAttribute(h.Here.Name, name, status)
		steps = append(steps, whileStopped(operation.Run(cib.SetNodeAttribute(h.Here.Name, name, reconcile.DataLatest), nil), undo.Run, undo.String()))
	}
	lock := h.place.Lock()
	if _, err := os.Stat(lock); err == nil {
		relock := func(context.Context) error {
			_, err := h.place.MakeLock()
			return err
		}
		steps = append(steps, whileStopped(rejoin.Unlock(h.place), relock, "touch "+lock))
	}
	return steps
}

// noPrimary tells whether there is none: the operator may have taken a while to answer.
func (s *Service) noPrimary(ctx context.Context) error {
	h, err := s.look(ctx)
	if promoted := h.primaries(); err == nil && len(promoted) > 0 {
		err = fmt.Errorf("%s is promoted by now, or may be: type pgrex start again", promoted[0])
	}
	return err
}

// hand gives the database, whose data are proven, back to Pacemaker. If it fails the database is stopped, and the node in standby,
// so that it stays stopped.
func (s *Service) hand(h self) []operation.Step {
	standby := cib.SetStandby(h.Here.Name, true)
	cleanup := operation.Run(cib.Cleanup(h.Clone.Primitive, h.Here.Name), nil) // where the node is not in standby, Pacemaker starts it at that
	cleanup.UndoText = "unless it is the primary by now: " + standby.String()
	cleanup.Undo = func(ctx context.Context) error {
		if err := s.isPrimary(ctx); err == nil {
			return errors.New("it is the primary")
		}
		if err := standby.Run(ctx); err != nil {
			return err
		}
		_ = cib.Settle().Run(ctx) // a start under way ends first; what matters is seen below
		return operation.Await("PostgreSQL here has ended", rejoin.StopPatience, func(ctx context.Context) error {
			return rejoin.Stopped(ctx, s.Observer, h.place)
		}).Do(ctx)
	}
	return []operation.Step{cleanup, operation.Run(cib.ClearBan(h.Clone.Primitive, h.Here.Name), nil), operation.Run(cib.ClearBan(h.Clone.ID, h.Here.Name), nil),
		operation.Run(cib.DeleteStandby(h.Here.Name), nil)}
}

// isPrimary tells whether this host is the primary by every sign.
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
