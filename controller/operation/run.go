package operation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
)

// undoTimeout bounds each action that undoes a step, but for a Wait with more patience. It begins after the context of the
// operation has ended.
const undoTimeout = 60 * time.Second

// errCannotTell: a process that is gone had begun the step, and the check cannot tell whether the step was done.
var errCannotTell = errors.New("pgrex cannot tell whether this step was done")

// run is an operation at work.
type run struct {
	*Engine
	job     Job
	journal *Journal
	// from is the first step that a failure still undoes. left says how the cluster is left then.
	from int
	left string
}

// goOn takes over from an operation that was left. It notes the steps which that had begun, and which a failure has to
// undo.
func (r *run) goOn(before *Journal) {
	r.journal.Token, r.job.Token.Value = before.Token, before.Token
	for _, s := range r.job.Steps {
		if e := before.entry(s.ID); e != nil && !e.Undone && len(s.Back) > 0 {
			r.journal.note(s, false)
		}
	}
}

// acquire makes sure that the token in the CIB is this operation's. After an error, perhaps says that it may be: the
// tool may have made the token before it failed.
func (r *run) acquire(ctx context.Context) (perhaps bool, err error) {
	if mine, err := r.hasToken(ctx); mine || err != nil {
		return false, err
	}
	err = cib.CreateToken(r.job.Primitive, r.job.Token).Run(context.WithoutCancel(ctx))
	if errors.Is(err, cib.ErrExists) {
		return false, cmp.Or(r.free(ctx, ""), error(otherError{fmt.Errorf("another operation was under way, and has just ended: "+
			"nothing was changed; run it again: %w", err)}))
	}
	return err != nil, err
}

// hasToken reports whether the token in the CIB is this operation's.
func (r *run) hasToken(ctx context.Context) (bool, error) {
	who, err := r.Observer.Cluster(ctx)
	if who.Cluster == nil {
		return false, err
	}
	if err := isMember(who); err != nil { // the other hosts may have changed the token since
		return false, err
	}
	t, is, _ := who.Cluster.Token(r.job.Primitive) // an unreadable token is somebody else's
	return is && t.Value == r.job.Token.Value, nil
}

// forward does the remaining steps. It repeats nothing before a point of no return that was passed: the cluster may
// have changed since.
func (r *run) forward(ctx context.Context) error {
	if err := r.pass(ctx); err != nil {
		return err
	}
	for i, s := range r.job.Steps {
		if i < r.from || r.journal.isDone(s.ID) && !s.Again {
			continue
		}
		err := ctx.Err()
		if err == nil || r.from > 0 && r.from == i {
			err = r.step(ctx, i)
		}
		switch {
		case errors.Is(err, errCannotTell):
			return err
		case err != nil:
			return r.fail(ctx, err)
		case s.NoReturn != "":
			r.from, r.left = i+1, s.NoReturn
		}
	}
	return r.end(ctx)
}

// step does a step, unless a process that is gone has done it.
func (r *run) step(ctx context.Context, i int) error {
	s := r.job.Steps[i]
	begin := time.Now()
	state, err := r.journal.check(ctx, s)
	if err != nil {
		return err
	}
	if state == NotDone {
		r.journal.note(s, false)
		if err := r.save(); err != nil {
			return err
		}
		if err := s.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Action, err)
		}
	}
	r.journal.note(s, true)
	// Past a point of no return, a journal that cannot be saved is no reason to undo. The Back of the next step then
	// runs.
	if err := r.save(); err != nil && s.NoReturn == "" {
		return err
	}
	r.report(i, s.Action, begin)
	return nil
}

// check reports whether a process that is gone has done a step that it had begun.
func (j *Journal) check(ctx context.Context, s Step) (State, error) {
	if !j.isHalf(s.ID) {
		return NotDone, nil
	}
	state, err := s.Check(ctx)
	if state == CannotTell {
		return state, fmt.Errorf("%s: %w: %w; nothing was changed", s.Action, errCannotTell, err)
	}
	return state, nil
}

// pass notes the points of no return that a process which is gone has passed.
func (r *run) pass(ctx context.Context) error {
	if err := r.journal.Pass(ctx, r.job.Steps); err != nil {
		return err
	}
	for i, s := range r.job.Steps {
		if s.NoReturn != "" && r.journal.isDone(s.ID) {
			r.from, r.left = i+1, s.NoReturn
		}
	}
	return nil
}

// Pass notes in the journal the points of no return that a process which is gone has passed. What a point waits for may
// also come if the process ended in the step before, and never waited.
func (j *Journal) Pass(ctx context.Context, steps []Step) error {
	for i, s := range steps {
		if s.NoReturn == "" {
			continue
		}
		if _, waits := s.Action.(Wait); waits && i > 0 && j.entry(s.ID) == nil && (j.isHalf(steps[i-1].ID) || j.isDone(steps[i-1].ID)) {
			j.note(s, false)
		}
		state, err := j.check(ctx, s)
		if err != nil {
			return err
		}
		if state == Done {
			j.note(s, true)
		}
	}
	return nil
}

// fail undoes steps after an error.
func (r *run) fail(ctx context.Context, err error) error {
	switch { // to undo a step may take long
	case ctx.Err() == nil:
	case r.left == "":
		r.Report("interrupted: undoing what was done")
	default: // past a point of no return
		r.Report("interrupted")
	}
	if backErr := r.back(ctx); backErr != nil {
		return errors.Join(err, backErr)
	}
	if r.left != "" {
		err = &LeftError{err, r.left}
	}
	return errors.Join(err, r.end(ctx))
}

// LeftError is an error past a point of no return.
type LeftError struct {
	Err  error
	Left string // how the cluster is left, and what to type
}

func (e *LeftError) Error() string { return e.Err.Error() + "; " + e.Left }
func (e *LeftError) Unwrap() error { return e.Err }

// back undoes the steps that were begun, by this process or one that is gone. It goes in reverse order, down to the
// point of no return. Wherever back ends, `finish` repeats those steps and all later ones.
func (r *run) back(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	for i := len(r.job.Steps) - 1; i >= r.from; i-- {
		s := r.job.Steps[i]
		entry := r.journal.entry(s.ID)
		if entry == nil || entry.Undone {
			continue
		}
		entry.Done, entry.At = false, time.Now().UTC()
		if len(s.Back) == 0 {
			entry.Undone = s.NoReturn == "" // whether a point of no return was passed, the next one has to look
			continue
		}
		_ = r.save() // a full disk stops no undoing
		for _, a := range s.Back {
			if err := undo(ctx, a); err != nil {
				err = fmt.Errorf("this step could not be undone, and the steps before it stay done: %s: %s: %w; "+
					"mend that, then type: %s",
					s.Action, a, err, undoCommand)
				r.Report(err.Error()) // after an interrupt, the command prints nothing else
				return err
			}
		}
		entry.Undone, entry.At = true, time.Now().UTC()
		_ = r.save() // otherwise a later undo repeats this, which is safe
		r.Report("undone: " + s.backText())
	}
	return nil
}

// undoCommand undoes an operation that was left.
const undoCommand = "sudo pgrex operation undo"

// undo does an action that undoes a step. A Wait with more patience than undoTimeout ends by itself: what it waits for,
// such as a start that Pacemaker has under way, may take longer.
func undo(ctx context.Context, a Action) error {
	if w, ok := a.(Wait); ok && w.Patience > undoTimeout {
		return w.Do(ctx)
	}
	return within(ctx, undoTimeout, a.Do)
}

func within(ctx context.Context, timeout time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx)
}

// end removes the token from the CIB, and then the journal. If the token cannot be removed, the journal stays.
func (r *run) end(ctx context.Context) error {
	r.journal.Ended = true
	_ = r.save() // without it an undo would take back what is whole, should the journal outlive the token
	if err := within(context.WithoutCancel(ctx), undoTimeout, r.giveBack); err != nil {
		return fmt.Errorf("everything else is done, but the token is still in the CIB: %w; mend that, then type: %s",
			err, undoCommand)
	}
	return removeJournal(r.Folder)
}

// giveBack removes the token from the CIB, in whatever phase the token is.
func (r *run) giveBack(ctx context.Context) error {
	for range 2 { // the tool also succeeds if it removes nothing
		who, err := r.Observer.Cluster(ctx)
		if who.Cluster == nil {
			return err
		}
		t, is, _ := who.Cluster.Token(r.job.Primitive) // one that is not understood is somebody else's
		if !is || t.Value != r.job.Token.Value {
			return nil
		}
		if err := cib.DeleteToken(r.job.Primitive, t).Run(ctx); err != nil {
			return err
		}
	}
	return errors.New("it was not removed")
}

// save writes the journal, with what the steps have found.
func (r *run) save() (err error) {
	if r.journal.Plan, err = json.Marshal(r.job.Plan); err != nil {
		return err
	}
	return r.journal.save(r.Folder)
}
