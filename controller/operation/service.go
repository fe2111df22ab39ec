package operation

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
	reconcile.Who
	place place
}

func (s *Service) look(ctx context.Context) (self, error) {
	who, err := s.Observer.Cluster(ctx)
	if err == nil {
		err = preflight(who, demand{managed: true})
	}
	if err != nil {
		return self{}, err
	}
	place, err := placeOf(who.Clone)
	return self{who, place}, err
}

// role is what Pacemaker says for certain of the database here.
func (h self) role() model.Role { return h.RoleOf(h.Self) }

// isPrimary reports whether the database here is the primary, or may be for all that Pacemaker shows.
func (h self) isPrimary() bool { return h.Clone.MayBePromoted(h.Self) }

// primaries are the other hosts that are promoted, or may be for all that Pacemaker shows (trap 48).
func (h self) primaries() []string { return h.others(h.Clone.MayBePromoted) }

// standbys are the other hosts that run a standby, or may run one: an instance that Pacemaker has seen fail, or is acting on,
// counts.
func (h self) standbys() []string {
	return h.others(func(member string) bool {
		_, unsettled := h.Clone.UnsettledOn(member)
		return !h.Clone.MayBePromoted(member) && (unsettled || h.RoleOf(member) == model.RoleUnpromoted)
	})
}

func (h self) others(is func(member string) bool) (hosts []string) {
	for _, member := range h.Policy.Members {
		if !h.Is(member) && is(member) {
			hosts = append(hosts, member)
		}
	}
	return hosts
}

// Stop makes the steps that stop the database here; none when it is stopped. The primary is stopped last: to stop it while
// others run is a failover, which force alone allows.
func (s *Service) Stop(ctx context.Context, checkpoint, force bool) (Work, error) {
	h, err := s.look(ctx)
	if err != nil || h.Here.Standby && h.role() == model.RoleStopped && !h.place.runs() {
		return Work{}, err
	}
	standbys := h.standbys()
	failover := h.isPrimary() && len(standbys) > 0
	if failover && !force {
		return Work{}, fmt.Errorf("this host, %s, is the primary, and %s would see it fail: type pgrex switchover first; to stop the whole "+
			"cluster, type pgrex stop on %[2]s first and here last; --force is a failover", h.Here.Name, strings.Join(standbys, ", "))
	}
	w := Work{Says: h.leaves(failover, standbys)}
	server, err := s.server(ctx)
	if err != nil {
		return Work{}, err
	}
	if checkpoint && server != nil {
		w.Steps = append(w.Steps, Step{Text: "a checkpoint here, so that the stop is short", Do: server.Checkpoint})
	}
	w.Steps = append(w.Steps, s.unchanged(h, failover))
	away := (&Rejoin{Observer: s.Observer}).keepAway(&Case{node: h.Here.Name, place: h.place})
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
func (s *Service) unchanged(h self, failover bool) Step {
	return Step{Text: "see that the database here is still " + h.RoleText(h.Self), Do: func(ctx context.Context) error {
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

// leaves says whom a stop leaves.
func (h self) leaves(failover bool, standbys []string) []string {
	primary := h.primaries()
	switch {
	case h.role() == model.RoleStopped:
		return nil
	case failover:
		next := h.Successors()
		if len(next) == 0 {
			return []string{"warning: nobody may take over: no standby is in step with this primary, so that nobody serves until pgrex start here"}
		}
		return []string{"warning: this is a failover: " + strings.Join(next, " or ") +
			" takes over, and this host may need pgrex rejoin to come back"}
	case h.isPrimary():
		return []string{"warning: this host is the last: nobody serves then; it has the newest data, so start it first again"}
	case len(primary) == 0 && len(standbys) == 0:
		return []string{"warning: this host is the last that runs"}
	case len(primary) > 0 && len(standbys) == 0:
		return []string{"warning: " + primary[0] + " has no other standby: nobody could take over from it then"}
	}
	return nil
}

// Start makes the steps that start the database here; none when it is started. Where a primary runs, this host has to be
// able to follow it; otherwise it has to have the newest data, or force says so.
func (s *Service) Start(ctx context.Context, force bool) (Work, error) {
	h, err := s.look(ctx)
	if err != nil {
		return Work{}, err
	}
	if len(h.primaries()) > 0 {
		return s.follow(ctx, h)
	}
	if h.role() != model.RoleStopped || h.place.runs() {
		if primary, err := h.ConfirmedPrimary(); err != nil || !h.Is(primary) {
			return Work{}, fmt.Errorf("the database here runs (to Pacemaker it is %s), and no host is the primary yet: wait, or see crm_mon -A", h.RoleText(h.Self))
		}
		return Work{}, nil
	}
	return s.first(ctx, h, force)
}

// follow starts a standby whose data are a part of the primary's.
func (s *Service) follow(ctx context.Context, h self) (Work, error) {
	r := &Rejoin{Observer: s.Observer}
	c, err := r.Look(ctx)
	switch {
	case err != nil:
		return Work{}, err
	case c.Streams:
		return Work{}, nil
	case h.role() != model.RoleStopped || c.place.runs():
		return Work{}, errors.New("the database here runs, but does not stream through its own slot: wait, or type pgrex rejoin")
	case c.place.rewinding() != notBegun:
		return Work{}, errors.New("a rewind was begun here and not finished: type pgrex rejoin")
	}
	rung, err := c.Choose(string(reconcile.MethodStart))
	if err != nil {
		return Work{}, fmt.Errorf("these data cannot just be started, %w; the primary %s has the newest: type pgrex rejoin here", err, c.primary)
	}
	var unlocked []Step
	if _, err := os.Stat(h.place.lock()); err == nil {
		unlocked = []Step{unlock(h.place)} // the data are proven
	}
	return Work{
		Says:  []string{fmt.Sprintf("the primary is %s, which this host can follow: %s", c.primary, rung.Why)},
		Steps: slices.Concat([]Step{r.stillPrimary(c), r.stillFits(c), c.nameSlot()}, unlocked, s.hand(h), []Step{r.awaitStreams(c)}),
	}, nil
}

// first starts this host as the primary, where there is none.
func (s *Service) first(ctx context.Context, h self, force bool) (Work, error) {
	if h.place.rewinding() != notBegun {
		return Work{}, errors.New("a rewind was begun here and not finished: start another host first, then type pgrex rejoin here")
	}
	c, err := h.place.control(ctx)
	if err != nil {
		return Work{}, err
	}
	local, err := h.place.wal(ctx, c)
	if err != nil {
		return Work{}, fmt.Errorf("it is not known how new the data here are: %w", err)
	}
	claims := h.Claims()
	why := reconcile.NotFirst(h.Here.Name, local.End, claims)
	_, locked := os.Stat(h.place.lock())
	switch {
	case force:
	case why != "":
		return Work{}, fmt.Errorf("this host must not be the first to start: %s; --force starts it all the same, and what only others have is lost", why)
	case locked == nil:
		return Work{}, fmt.Errorf("%s is there: this host was a primary, and did not end as the last one, so that another may have been the primary "+
			"since; start another host first if one has newer data; if none has, --force removes the file and starts this host", h.place.lock())
	}
	steps := []Step{{Text: "see that there is still no primary", Do: s.noPrimary}}
	if force {
		steps = append(steps, s.claim(h)...)
	}
	promoted := await("it is the primary by every sign", servicePatience, s.isPrimary)
	promoted.NoReturn = true
	steps = append(steps, s.hand(h)...)
	steps = append(steps, promoted, await("it takes writes", servicePatience, s.takesWrites))
	says := []string{fmt.Sprintf("no host is the primary; the data here, timeline %d up to %s, are to be the newest", local.Timelines[len(local.Timelines)-1].ID, local.End)}
	if why != "" {
		says = append(says, "warning: "+why+"; what only others have is lost")
	}
	return Work{says, steps}, nil
}

// claim are the steps without which the agent would not let this host be the primary: its data are the newest, and nothing
// locks them.
func (s *Service) claim(h self) (steps []Step) {
	whileStopped := func(step Step, undo func(context.Context) error, text string) Step {
		step.UndoText = "while the database here is stopped: " + text
		step.Undo = func(ctx context.Context) error {
			if err := stopped(ctx, s.Observer, h.place); err != nil {
				return err
			}
			return undo(ctx)
		}
		return step
	}
	name := reconcile.DataStatus(h.Clone)
	if status := h.Here.Permanent[name]; status != reconcile.DataLatest {
		undo := cib.SetNodeAttribute(h.Here.Name, name, status)
		steps = append(steps, whileStopped(run(cib.SetNodeAttribute(h.Here.Name, name, reconcile.DataLatest), nil), undo.Run, undo.String()))
	}
	lock := h.place.lock()
	if _, err := os.Stat(lock); err == nil {
		relock := func(context.Context) error {
			_, err := h.place.makeLock()
			return err
		}
		steps = append(steps, whileStopped(unlock(h.place), relock, "touch "+lock))
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
func (s *Service) hand(h self) []Step {
	standby := cib.SetStandby(h.Here.Name, true)
	cleanup := run(cib.Cleanup(h.Clone.Primitive, h.Here.Name), nil) // where the node is not in standby, Pacemaker starts it at that
	cleanup.UndoText = "unless it is the primary by now: " + standby.String()
	cleanup.Undo = func(ctx context.Context) error {
		if err := s.isPrimary(ctx); err == nil {
			return errors.New("it is the primary")
		}
		if err := standby.Run(ctx); err != nil {
			return err
		}
		_ = cib.Settle().Run(ctx) // a start under way ends first; what matters is seen below
		return await("PostgreSQL here has ended", stopPatience, func(ctx context.Context) error {
			return stopped(ctx, s.Observer, h.place)
		}).Do(ctx)
	}
	return []Step{cleanup, run(cib.ClearBan(h.Clone.Primitive, h.Here.Name), nil), run(cib.ClearBan(h.Clone.ID, h.Here.Name), nil),
		run(cib.DeleteStandby(h.Here.Name), nil)}
}

// isPrimary tells whether this host is the primary by every sign.
func (s *Service) isPrimary(ctx context.Context) error {
	return isPrimary(ctx, s.Observer, s.Observer.Node)
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
