package rejoin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
)

// How long Pacemaker and PostgreSQL may take.
const (
	StopPatience   = 2 * time.Minute
	startPatience  = 15 * time.Minute // for a start that Pacemaker has begun, whatever its timeout is
	streamPatience = 10 * time.Minute // since PostgreSQL last replayed something
	quorumPatience = 40 * time.Second // within undoTimeout
)

// Rejoin brings a host back into replication.
type Rejoin struct {
	Observer *controller.Observer // of this host
	MaxRate  uint64               // of a copy, in bytes a second; 0 for no limit
	Left     *operation.Journal   // of an operation that was left here; may be nil
	Archive  bool                 // try the WAL archive for WAL that the primary no longer has
	Method   string               // that was asked for; "" for auto
	Report   operation.Reporter
	StateDir string             // what only this host has is kept in it before a rewind or copy; "" to keep nothing
	Redraw   operation.Reporter // draws a line over the one that it drew before; nil where there is no terminal
	// Outlasts is how long pg_rewind may go on once the operation is to end.
	Outlasts time.Duration
}

// Name is the operation's, in journals and tokens.
const Name = "rejoin"

// The steps that change the data, in journals.
const (
	stepRewind = "rewind"
	stepSwap   = "swap"
)

// Plan is what the journal keeps: what the operator asked for, and how this host was before.
type Plan struct {
	Asked   string `json:"method"`   // auto, or a Method
	MaxRate uint64 `json:"max_rate"` // of a copy, in bytes a second; 0 for no limit
	Way     Method `json:"way"`
	Primary string `json:"primary"`
	Standby bool   `json:"node_standby"` // Pacemaker's standby mode was on
	Kept    bool   `json:"kept_stopped"` // pgrex kept the database stopped
	Locked  bool   `json:"locked"`       // the agent's lock was there
	// Astray is what a restore had left and what kept PostgreSQL from following the primary.
	Astray []string `json:"astray,omitempty"`
	// Folders are made for tablespaces that the primary has and this host lacks. Fresh are those that a copy makes for
	// its own tablespaces.
	Folders []string `json:"folders,omitempty"`
	Fresh   []string `json:"fresh,omitempty"`
	// GivenUp is the WAL that only this host had; nil if there was none.
	GivenUp *model.GivenUp `json:"given_up,omitempty"`
	// Swapped is what taking the swap back has found: the old data may be where the copy was.
	Swapped bool `json:"swapped,omitempty"`
	// Changed: the data here are not what they were, or may not be. Only what was kept aside has the WAL that they had
	// before. It stays true.
	Changed bool `json:"changed,omitempty"`
}

// Job plans a way back. asked is what the operator asked for. Job fails if the plan of a rejoin that was left here cannot
// be read: how this host was before that rejoin would be lost.
func (r *Rejoin) Job(ctx context.Context, c *Case, way Method, asked string) (operation.Job, error) {
	job := operation.NewJob(Name, c.who, operation.On(c.Place.Identity(ctx)))
	_, err := os.Stat(c.Place.Lock())
	c.locked = err == nil
	p := &Plan{Asked: asked, MaxRate: r.MaxRate, Way: way, Primary: c.Primary, Astray: c.astray}
	before, err := r.before()
	if err != nil {
		return operation.Job{}, err
	}
	if before != nil {
		c.Standby, c.Kept, c.locked, p.Swapped = before.Standby, before.Kept, before.Locked, before.Swapped
		p.Folders, p.Fresh, p.Changed = before.Folders, before.Fresh, c.changedBy(r.Left, before)
	}
	if way == MethodRewind || way == MethodCopy {
		p.GivenUp = r.givenUp(ctx, c, job.Token.Begun)
	}
	p.takeOver(before)
	if p.GivenUp != nil {
		job.Says = []string{givenUpText(*p.GivenUp)}
	}
	c.givenUp = p.GivenUp
	if way == MethodCopy {
		for _, s := range c.fresh {
			p.Fresh = with(p.Fresh, s.Folder)
		}
	} else {
		p.Folders = with(p.Folders, c.Folders...)
	}
	c.Folders, c.Place.FreshFolders = p.Folders, p.Fresh
	p.Standby, p.Kept, p.Locked, c.swapped, c.changed, job.Plan = c.Standby, c.Kept, c.locked, &p.Swapped, &p.Changed, p
	job.Steps, job.Continues = r.Steps(c, way), Continues
	return job, nil
}

// Continues reports whether a rejoin goes on with the operation of a journal.
func Continues(j *operation.Journal) bool { return j.Operation == Name }

// StillAsked returns the method that counts, given the one that was asked for. A rejoin that goes on with one that was
// left may find that data restored from a backup have recovered since. Then any other method may do.
func (r *Rejoin) StillAsked(c *Case, method string) string {
	if method == string(MethodRestored) && r.Left != nil && Continues(r.Left) && !c.restored() {
		return "auto"
	}
	return method
}

// before is the plan of a rejoin that was left here, or nil.
func (r *Rejoin) before() (*Plan, error) {
	if r.Left == nil || !Continues(r.Left) {
		return nil, nil
	}
	var p Plan
	if err := r.Left.Read(&p); err != nil {
		return nil, err
	}
	return &p, nil
}

// Resume makes the steps of a rejoin that was left, to undo them. To finish it, plan a new one: the primary may be
// another host now.
func (r *Rejoin) Resume(ctx context.Context, j *operation.Journal) (operation.Job, error) {
	var p Plan
	if err := j.Read(&p); err != nil {
		return operation.Job{}, err
	}
	who, err := r.Observer.Cluster(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	c := newCase(who)
	c.Primary, c.Standby, c.Kept, c.locked, c.astray = p.Primary, p.Standby, p.Kept, p.Locked, p.Astray
	if c.Place, err = datadir.Find(who.Clone); err != nil {
		return operation.Job{}, err
	}
	p.Changed = c.changedBy(j, &p)
	c.swapped, c.changed = &p.Swapped, &p.Changed
	c.Place.Count = new(atomic.Int64)
	c.Folders, c.Place.FreshFolders, c.givenUp = p.Folders, p.Fresh, p.GivenUp
	job := operation.NewJob(Name, who, operation.On(c.Place.Identity(ctx)))
	job.Plan, job.Steps = &p, r.Steps(c, p.Way)
	return job, nil
}

// Steps are the steps of a way back. On a host that streams, they remove what was left.
func (r *Rejoin) Steps(c *Case, way Method) []operation.Step {
	if c.Streams {
		return []operation.Step{r.removeLeft(c)}
	}
	steps := append([]operation.Step{r.StillPrimary(c)}, r.KeepAway(c)...)
	if way == MethodStart || way == MethodArchive || way == MethodRestored {
		steps = append(steps, r.StillFits(c))
	}
	steps = append(steps, c.Follow(way)...)
	steps = append(steps, c.makeFolders()...)
	steps = append(steps, c.reserve()...)
	switch way {
	case MethodStart, MethodArchive: // PostgreSQL restores by itself
		if c.Place.Rewinding() == datadir.Rewound {
			steps = append(steps, c.putBack("files"))
			break
		}
		steps = append(steps, c.NameSlot())
	case MethodRestored:
		steps = append(steps, c.NameSlot())
	case MethodRewind:
		if c.Place.Rewinding() == datadir.Rewound { // from who was the primary then
			steps = append(steps, c.putBack("files-before"))
		}
		steps = append(steps, r.rewind(c)...)
	case MethodCopy:
		steps = append(append(steps, r.keepWAL(c)...), r.copy(c)...)
	}
	return append(steps, r.letStart(c)...)
}

// StillPrimary looks again: the operator may have taken a while to answer.
func (r *Rejoin) StillPrimary(c *Case) operation.Step {
	return operation.Step{ID: "still-primary", Action: operation.Look{
		Text: "see that " + c.Primary + " is still the primary", See: func(ctx context.Context) error {
			now, err := r.find(ctx)
			switch {
			case err != nil:
				return err
			case now.Primary != c.Primary:
				return fmt.Errorf("%s is the primary now: run it again", now.Primary)
			case r.Left == nil && (now.Standby != c.Standby || now.Kept != c.Kept): // undoing this one would undo the other
				return errors.New("another operation has stopped or started the database here, or its node: run it " +
					"again")
			}
			return nil
		},
	}}
}

// StillFits looks at the data again, now that nobody changes them.
func (r *Rejoin) StillFits(c *Case) operation.Step {
	return operation.Step{ID: "still-fits", Action: operation.Look{
		Text: "see that the data here are a part of " + c.Primary + "'s", See: func(ctx context.Context) error {
			now := &Case{Place: c.Place, Primary: c.Primary, Slot: c.Slot, Conninfo: c.Conninfo, show: r.show}
			err := now.compare(ctx)
			if err == nil && !now.Return.Fits() {
				err = errors.New("they no longer are: run it again")
			}
			return err
		},
	}}
}

// removeLeft removes what this operation, or an earlier one, has left beside the data.
// An interrupt undoes nothing any more: the host is back, and the next rejoin removes the rest.
func (r *Rejoin) removeLeft(c *Case) operation.Step {
	return operation.Step{ID: "remove-left", Action: operation.Program{
		Text: "remove what the operation has left", Run: func(ctx context.Context) error {
			err := during(r.show, "removing "+c.Place.Beside(), c.Place.Count, func() error { return c.Place.Finish(ctx) })
			if err == nil {
				r.forgetOldest(ctx, c)
			}
			if err == nil || ctx.Err() == nil {
				return err
			}
			r.Report(fmt.Sprintf("   interrupted: this host streams, but a part of %s is left; to remove it, type: "+
				"sudo pgrex rejoin",
				c.Place.Beside()))
			return nil
		},
	}}
}

// KeepAway stops the database here, and keeps Pacemaker from starting it, whatever the state of the resource. Other
// resources on this node go on. Undone, it removes the constraint, unless that was there before.
func (r *Rejoin) KeepAway(c *Case) []operation.Step {
	away := operation.Step{ID: "keep-away", Action: c.away()}
	if !c.Kept {
		away.Back = []operation.Action{
			operation.Look{Text: "see that the data here are not half rewound", See: func(context.Context) error {
				if c.Place.Rewinding() != datadir.NotBegun {
					return errors.New("they are half rewound: type sudo pgrex rejoin, which goes on")
				}
				return nil
			}},
			// A minority loses its changes when it joins the others again.
			operation.Await("wait until this partition has quorum", quorumPatience, r.quorum),
			operation.Command{Command: cib.LetBack(c.Primitive, c.Node)},
		}
	}
	return []operation.Step{
		away,
		// Pacemaker may have decided on a start that it has not begun. Nothing shows such a start, and it would still
		// come. Other work of the cluster is no reason to wait longer.
		{ID: "settle", Action: operation.Settle()},
		{ID: "ended", Action: r.Ended(c.Place)},
	}
}

func (c *Case) away() operation.Action {
	return operation.Command{Command: cib.KeepAway(c.Clone, c.Primitive, c.Node)}
}

// Ended waits until the database on this host has ended. Pacemaker ends a start under way, too, but not before the
// agent or the timeout of that action does: with a server that cannot start, the agent goes on trying.
func (r *Rejoin) Ended(p datadir.Place) operation.Wait {
	var begin, shown time.Time
	return operation.Wait{
		Text: "wait until PostgreSQL here has ended", Patience: StopPatience, Condition: func(ctx context.Context) (moved string, err error) {
			err = Stopped(ctx, r.Observer, p)
			now := time.Now()
			if begin.IsZero() {
				begin, shown = now, now
			}
			if errors.Is(err, errStarting) && now.Sub(begin) < startPatience {
				moved = now.String()
				if now.Sub(shown) >= showEvery {
					shown = now
					r.show("Pacemaker is still starting the database; this ends when the start action times out, if not before")
				}
			}
			return moved, err
		},
	}
}

// errStarting: Pacemaker is starting the database on this host.
var errStarting = errors.New("to Pacemaker it is " + string(model.UnsettledStarting))

// Stopped reports whether Pacemaker knows the database on this host to be stopped, and it is.
func Stopped(ctx context.Context, observer *controller.Observer, p datadir.Place) error {
	who, err := observer.Cluster(ctx)
	if err != nil {
		return err
	}
	if why, _ := who.Clone.UnsettledOn(who.Self); why == model.UnsettledStarting {
		return errStarting
	}
	if who.RoleOf(who.Self) != model.RoleStopped {
		return fmt.Errorf("to Pacemaker it is %s", who.RoleText(who.Self))
	}
	if p.Runs() {
		return errors.New("PostgreSQL runs, though Pacemaker says that it is stopped: end it with pg_ctl stop")
	}
	return nil
}

func (r *Rejoin) quorum(ctx context.Context) error {
	who, err := r.Observer.Cluster(ctx)
	if err == nil && !who.Cluster.HasQuorum() {
		err = errors.New("this partition has no quorum")
	}
	return err
}

// letStart gives the database back to Pacemaker, and waits until it streams. It also clears bans: the agent bans a host
// whose data was ahead of the new primary's, and an interrupted switchover may have banned it by the clone's name. That
// something cannot be removed is no reason to stop a standby that streams.
func (r *Rejoin) letStart(c *Case) []operation.Step {
	steps := append([]operation.Step{Unlock(c.Place)}, r.LetBack(c)...)
	streams := r.AwaitStreams(c)
	streams.NoReturn = "this host streams, so nothing is undone; to remove what the operation has left, type: sudo " +
		"pgrex rejoin"
	return append(steps, streams, r.removeLeft(c))
}

// LetBack gives the database back to Pacemaker. Undone, it stops the database again if that was kept stopped before.
func (r *Rejoin) LetBack(c *Case) []operation.Step {
	steps := []operation.Step{
		{ID: operation.StepCleanup, Action: operation.Command{Command: cib.Cleanup(c.Primitive, c.Node)}, Back: r.stopAgain(c)},
		{ID: operation.StepClearPrimitive, Action: operation.Command{Command: cib.ClearBan(c.Primitive, c.Node)}},
		{ID: operation.StepClearClone, Action: operation.Command{Command: cib.ClearBan(c.Clone, c.Node)}},
	}
	if c.Standby { // earlier versions of pgrex stopped the database by standby mode
		steps = append(steps, operation.Step{ID: "unstandby", Action: operation.Command{Command: cib.DeleteStandby(c.Node)}})
	}
	back := operation.Command{Command: cib.LetBack(c.Primitive, c.Node)}
	return append(steps, operation.Step{ID: operation.StepLetBack, Action: back})
}

// stopAgain are the actions that keep the database stopped in the same way as before; none if it was not kept stopped.
func (r *Rejoin) stopAgain(c *Case) (actions []operation.Action) {
	if c.Standby {
		actions = append(actions, operation.Command{Command: cib.SetStandby(c.Node, true)})
	}
	if c.Kept {
		actions = append(actions, c.away())
	}
	if len(actions) > 0 {
		actions = append(actions, operation.Settle(), r.Ended(c.Place)) // a start under way ends first
	}
	return actions
}

// Unlock removes the agent's lock: the data are proven or mended.
func Unlock(p datadir.Place) operation.Step {
	return operation.Step{ID: "unlock", Action: operation.Change{Text: "remove " + p.Lock(), Make: p.RemoveLock}}
}

// AwaitStreams waits while PostgreSQL still replays: it may have much to replay first. It shows how far that is.
func (r *Rejoin) AwaitStreams(c *Case) operation.Step {
	var shown time.Time
	return operation.Step{ID: "streams", Action: operation.Wait{
		Text: "wait until this host streams through " + c.Slot, Patience: streamPatience, Condition: func(ctx context.Context) (string, error) {
			ok, replayed, err := r.streams(ctx, c.Slot)
			if err == nil && !ok {
				err = fmt.Errorf("it does not stream yet, and has replayed up to %s; see PostgreSQL's log here",
					replayed)
			}
			switch now := time.Now(); {
			case shown.IsZero():
				shown = now
			case err != nil && now.Sub(shown) >= showEvery:
				shown = now
				r.show(err.Error())
			}
			return replayed.String(), err
		},
		Found: func(ctx context.Context) (operation.State, error) {
			return r.back(ctx, c)
		},
	}}
}

// back is Done if this host streams, and Pacemaker has not been told to stop it. Where Pacemaker cannot be asked, or shows
// it unpromoted and its server cannot be asked, it may stream: nobody may stop it then.
func (r *Rejoin) back(ctx context.Context, c *Case) (operation.State, error) {
	who, err := r.Observer.Cluster(ctx)
	if err != nil {
		return operation.CannotTell, err
	}
	if who.Here.Standby || who.Clone.KeptStopped(who.Here.Name) {
		return operation.NotDone, nil
	}
	in, err := r.Observer.Full(ctx)
	if i := in.Instance; err == nil && i.State == model.ServerUnreachable {
		err = errors.New(i.Problem)
	}
	switch {
	case err != nil && who.RoleOf(who.Self) == model.RoleUnpromoted:
		return operation.CannotTell, fmt.Errorf("PostgreSQL here does not say whether it streams: %w", err)
	case err == nil && throughOwn(in.Instance, c.Slot):
		return operation.Done, nil
	}
	return operation.NotDone, nil
}

// makeFolders makes the folders of tablespaces that the primary has and this host lacks. Neither PostgreSQL nor
// pg_rewind makes them.
func (c *Case) makeFolders() []operation.Step {
	if len(c.Folders) == 0 {
		return nil
	}
	return []operation.Step{{
		ID: "tablespaces", Action: operation.Change{
			Text: "make folders for tablespaces: " + strings.Join(c.Folders, ", "),
			Make: func() error { return datadir.MakeFolders(c.Folders) },
		},
		Back: []operation.Action{operation.Change{
			Text: "remove those of them that are empty", Make: func() error { return datadir.RemoveFolders(c.Folders) },
		}},
	}}
}

// NameSlot sets the slot that PostgreSQL here asks for, before it is started.
func (c *Case) NameSlot() operation.Step {
	return operation.Step{ID: "slot-name", Action: operation.Change{
		Text: "set primary_slot_name to " + c.Slot, Make: func() error { return c.Place.SetSlotName(c.Slot) },
	}}
}
