package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// How long Pacemaker and PostgreSQL may take for what is awaited.
const (
	stopPatience   = 2 * time.Minute
	streamPatience = 10 * time.Minute // without replaying any more, which it may have much to
	quorumPatience = 40 * time.Second // within undoTimeout
)

// Rejoin brings a host back that does not come back by itself.
type Rejoin struct {
	Observer *controller.Observer // of this host
	MaxRate  uint64               // of a copy, in bytes a second; 0 for no limit
	DryRun   bool                 // Look does not ask for being the only one
	Archive  bool                 // try the WAL archive, where it is needed
	Report   Reporter
	Redraw   Reporter // draws a line over the one that it drew before; nil where there is no terminal
}

// Steps are what a way back takes. On a host that streams, what was left is removed.
func (r *Rejoin) Steps(c *Case, method reconcile.Method) []Step {
	if c.Streams {
		return []Step{c.finish()}
	}
	steps := append([]Step{r.stillPrimary(c)}, r.keepAway(c)...)
	if method == reconcile.MethodStart || method == reconcile.MethodArchive {
		steps = append(steps, r.stillFits(c))
	}
	steps = append(steps, c.reserve()...)
	switch method {
	case reconcile.MethodStart, reconcile.MethodArchive: // PostgreSQL restores by itself
		if c.place.rewinding() == rewound {
			steps = append(steps, c.putBack())
			break
		}
		steps = append(steps, c.nameSlot())
	case reconcile.MethodRewind:
		if c.place.rewinding() == rewound { // from who was the primary then
			steps = append(steps, c.putBack())
		}
		steps = append(steps, r.rewind(c)...)
	case reconcile.MethodCopy:
		steps = append(steps, r.copy(c)...)
	}
	return append(steps, r.letStart(c)...)
}

// stillPrimary: the operator may have taken a while to answer.
func (r *Rejoin) stillPrimary(c *Case) Step {
	return Step{Text: "see that " + c.primary + " is still the primary", Do: func(ctx context.Context) error {
		now, _, err := r.find(ctx)
		if err == nil && now.primary != c.primary {
			err = fmt.Errorf("%s is the primary by now: run it again", now.primary)
		}
		return err
	}}
}

// stillFits looks at the data again, now that nobody changes them any more.
func (r *Rejoin) stillFits(c *Case) Step {
	return Step{Text: "see that the data here are a part of " + c.primary + "'s", Do: func(ctx context.Context) error {
		now := &Case{place: c.place, primary: c.primary, slot: c.slot, conninfo: c.conninfo}
		err := now.compare(ctx)
		if err == nil && !now.Return.Fits() {
			err = errors.New("they are not by now: run it again")
		}
		return err
	}}
}

func (c *Case) finish() Step {
	return Step{Text: "remove what the operation has left", Do: func(context.Context) error { return c.place.finish() }}
}

// keepAway takes the database here out of Pacemaker's hands. Standby mode does so whatever state the resource is in. Where it
// was on already, it stays on when the operation fails.
func (r *Rejoin) keepAway(c *Case) []Step {
	on, off := cib.SetStandby(c.node, true), cib.DeleteStandby(c.node)
	away := run(on, nil)
	if !c.standby {
		away.UndoText = off.String()
		away.Undo = func(ctx context.Context) error {
			if c.place.rewinding() != notBegun {
				return errors.New("the data here are half rewound: run pgrex rejoin again before")
			}
			if err := await("quorum", quorumPatience, r.quorum).Do(ctx); err != nil {
				return err // what a minority changes is lost when it joins the others again
			}
			return off.Run(ctx)
		}
	}
	ended := await("PostgreSQL here has ended", stopPatience, func(ctx context.Context) error {
		return stopped(ctx, r.Observer, c.place)
	})
	awaitEnd := ended.Do
	ended.Do = func(ctx context.Context) error {
		// A start that Pacemaker has decided on and not begun yet shows nowhere; it would come all the same. What else the
		// cluster is busy with is no reason to wait for longer.
		_ = cib.Settle().Run(ctx)
		return awaitEnd(ctx)
	}
	return []Step{away, ended}
}

// stopped reports whether Pacemaker knows the database on this host to be stopped, and it is.
func stopped(ctx context.Context, observer *controller.Observer, p place) error {
	who, err := observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if who.RoleOf(who.Self) != model.RoleStopped {
		return fmt.Errorf("to Pacemaker it is %s", who.RoleText(who.Self))
	}
	if p.runs() {
		return errors.New("it runs, though Pacemaker says that it is stopped: end it with pg_ctl stop")
	}
	return nil
}

func (r *Rejoin) quorum(ctx context.Context) error {
	who, err := r.Observer.Cluster(ctx)
	if err == nil && !who.Cluster.Quorate {
		err = errors.New("this partition has no quorum")
	}
	return err
}

// letStart gives the database back to Pacemaker, and waits until it streams. The agent bans a host whose data was ahead of
// the new primary's, and a switchover that was interrupted has banned it by the clone's name; that is cleared, too.
func (r *Rejoin) letStart(c *Case) []Step {
	return []Step{
		unlock(c.place),
		run(cib.Cleanup(c.primitive, c.node), nil),
		run(cib.ClearBan(c.primitive, c.node), nil),
		run(cib.ClearBan(c.clone, c.node), nil),
		run(cib.DeleteStandby(c.node), nil),
		r.awaitStreams(c),
		c.finish(),
	}
}

// unlock removes the agent's lock: the data are proven or mended.
func unlock(p place) Step {
	return Step{Text: "remove " + p.lock(), Do: func(context.Context) error { return p.removeLock() }}
}

// awaitStreams waits as long as PostgreSQL replays on: it may have much to replay first.
func (r *Rejoin) awaitStreams(c *Case) Step {
	return awaitMoving("this host streams through "+c.slot, streamPatience, func(ctx context.Context) (string, error) {
		ok, replayed, err := r.streams(ctx, c.slot)
		if err == nil && !ok {
			err = fmt.Errorf("it does not yet, and has replayed up to %s; see PostgreSQL's log here", replayed)
		}
		return replayed.String(), err
	})
}

// nameSlot makes it ask for its own slot, before it is started.
func (c *Case) nameSlot() Step {
	return Step{Text: "set primary_slot_name to " + c.slot, Do: func(context.Context) error { return c.place.setSlotName(c.slot) }}
}
