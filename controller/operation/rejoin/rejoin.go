package rejoin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
)

// How long Pacemaker and PostgreSQL may take for what is awaited.
const (
	StopPatience   = 2 * time.Minute
	streamPatience = 10 * time.Minute // without replaying any more, which it may have much to
	quorumPatience = 40 * time.Second // within undoTimeout
)

// Rejoin brings a host back that does not come back by itself.
type Rejoin struct {
	Observer *controller.Observer // of this host
	MaxRate  uint64               // of a copy, in bytes a second; 0 for no limit
	DryRun   bool                 // Look does not ask for being the only one
	Archive  bool                 // try the WAL archive, where it is needed
	Report   operation.Reporter
	Redraw   operation.Reporter // draws a line over the one that it drew before; nil where there is no terminal
}

// Steps are what a way back takes. On a host that streams, what was left is removed.
func (r *Rejoin) Steps(c *Case, method Method) []operation.Step {
	if c.Streams {
		return []operation.Step{c.finish()}
	}
	steps := append([]operation.Step{r.StillPrimary(c)}, r.KeepAway(c)...)
	if method == MethodStart || method == MethodArchive {
		steps = append(steps, r.StillFits(c))
	}
	steps = append(steps, c.reserve()...)
	switch method {
	case MethodStart, MethodArchive: // PostgreSQL restores by itself
		if c.Place.Rewinding() == datadir.Rewound {
			steps = append(steps, c.putBack())
			break
		}
		steps = append(steps, c.NameSlot())
	case MethodRewind:
		if c.Place.Rewinding() == datadir.Rewound { // from who was the primary then
			steps = append(steps, c.putBack())
		}
		steps = append(steps, r.rewind(c)...)
	case MethodCopy:
		steps = append(steps, r.copy(c)...)
	}
	return append(steps, r.letStart(c)...)
}

// StillPrimary looks again: the operator may have taken a while to answer.
func (r *Rejoin) StillPrimary(c *Case) operation.Step {
	return operation.Step{Text: "see that " + c.Primary + " is still the primary", Do: func(ctx context.Context) error {
		now, _, err := r.find(ctx)
		if err == nil && now.Primary != c.Primary {
			err = fmt.Errorf("%s is the primary by now: run it again", now.Primary)
		}
		return err
	}}
}

// StillFits looks at the data again, now that nobody changes them any more.
func (r *Rejoin) StillFits(c *Case) operation.Step {
	text := "see that the data here are a part of " + c.Primary + "'s"
	return operation.Step{Text: text, Do: func(ctx context.Context) error {
		now := &Case{Place: c.Place, Primary: c.Primary, Slot: c.Slot, Conninfo: c.Conninfo}
		err := now.compare(ctx)
		if err == nil && !now.Return.Fits() {
			err = errors.New("they are not by now: run it again")
		}
		return err
	}}
}

func (c *Case) finish() operation.Step {
	return operation.Step{
		Text: "remove what the operation has left", Do: func(context.Context) error { return c.Place.Finish() },
	}
}

// KeepAway takes the database here out of Pacemaker's hands. Standby mode does so whatever state the resource is in. Where it
// was on already, it stays on when the operation fails.
func (r *Rejoin) KeepAway(c *Case) []operation.Step {
	on, off := cib.SetStandby(c.Node, true), cib.DeleteStandby(c.Node)
	away := operation.Run(on, nil)
	if !c.Standby {
		away.UndoText = off.String()
		away.Undo = func(ctx context.Context) error {
			if c.Place.Rewinding() != datadir.NotBegun {
				return errors.New("the data here are half rewound: run pgrex rejoin again before")
			}
			if err := operation.Await("quorum", quorumPatience, r.quorum).Do(ctx); err != nil {
				return err // what a minority changes is lost when it joins the others again
			}
			return off.Run(ctx)
		}
	}
	ended := operation.Await("PostgreSQL here has ended", StopPatience, func(ctx context.Context) error {
		return Stopped(ctx, r.Observer, c.Place)
	})
	awaitEnd := ended.Do
	ended.Do = func(ctx context.Context) error {
		// A start that Pacemaker has decided on and not begun yet shows nowhere; it would come all the same. What else the
		// cluster is busy with is no reason to wait for longer.
		_ = cib.Settle().Run(ctx)
		return awaitEnd(ctx)
	}
	return []operation.Step{away, ended}
}

// Stopped reports whether Pacemaker knows the database on this host to be stopped, and it is.
func Stopped(ctx context.Context, observer *controller.Observer, p datadir.Place) error {
	who, err := observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if who.RoleOf(who.Self) != model.RoleStopped {
		return fmt.Errorf("to Pacemaker it is %s", who.RoleText(who.Self))
	}
	if p.Runs() {
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
func (r *Rejoin) letStart(c *Case) []operation.Step {
	return []operation.Step{
		Unlock(c.Place),
		operation.Run(cib.Cleanup(c.Primitive, c.Node), nil),
		operation.Run(cib.ClearBan(c.Primitive, c.Node), nil),
		operation.Run(cib.ClearBan(c.Clone, c.Node), nil),
		operation.Run(cib.DeleteStandby(c.Node), nil),
		r.AwaitStreams(c),
		c.finish(),
	}
}

// Unlock removes the agent's lock: the data are proven or mended.
func Unlock(p datadir.Place) operation.Step {
	return operation.Step{Text: "remove " + p.Lock(), Do: func(context.Context) error { return p.RemoveLock() }}
}

// AwaitStreams waits as long as PostgreSQL replays on: it may have much to replay first.
func (r *Rejoin) AwaitStreams(c *Case) operation.Step {
	text := "this host streams through " + c.Slot
	return operation.AwaitMoving(text, streamPatience, func(ctx context.Context) (string, error) {
		ok, replayed, err := r.streams(ctx, c.Slot)
		if err == nil && !ok {
			err = fmt.Errorf("it does not yet, and has replayed up to %s; see PostgreSQL's log here", replayed)
		}
		return replayed.String(), err
	})
}

// NameSlot makes it ask for its own slot, before it is started.
func (c *Case) NameSlot() operation.Step {
	return operation.Step{Text: "set primary_slot_name to " + c.Slot, Do: func(context.Context) error { return c.Place.SetSlotName(c.Slot) }}
}
