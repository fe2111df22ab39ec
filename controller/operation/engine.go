package operation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// undoTimeout bounds each action that undoes a step. It begins after the context of the operation has ended.
const undoTimeout = 60 * time.Second

// Job is a planned operation: its steps, and what they are made of.
type Job struct {
	Operation string // its command's name
	Node      string // this host's node
	Primitive string
	Token     model.Token // is in the CIB from before the first step on
	On        On
	Says      []string // what the operator should know before
	// Plan is what the steps are made of. It is a pointer: the steps keep in it what they find, and the journal saves
	// it.
	Plan any
	// Steps is empty if there is nothing to do.
	Steps []Step
	// Guarded says that the token protects more than this host. If the token is gone, another member has ended the
	// operation.
	Guarded bool
	// Continues reports whether this operation goes on with the one in a journal. It is nil if it goes on with none.
	Continues func(j *Journal) bool
}

// Work is a change without a journal: wherever it ends, nothing is unfinished. There is nothing to do if it has no
// actions. Says is what the operator should know before.
type Work struct {
	Says    []string
	Actions []Action
}

// Engine does operations: one at a time on each host, and on each database.
type Engine struct {
	Folder   string // the state folder
	Observer *controller.Observer
	Report   Reporter
	Who      string // who starts the operation, for the journal
}

// ErrNothingLeft says that an operation that was left needs neither `finish` nor `undo`. Its journal is removed.
var ErrNothingLeft = errors.New("nothing is left to do")

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

// Do does a job. If a step fails, or ctx ends, Do undoes the steps in reverse order. It undoes the failed step first,
// which may be done in part. Undoing stops at the first action that fails. The steps before it, such as a ban or
// maintenance-mode, then stay done: they protect the data until somebody has looked. The journal stays then, too.
func (e *Engine) Do(ctx context.Context, job Job) error {
	held, err := hold(e.Folder)
	if err != nil {
		return e.refused(err)
	}
	defer func() { _ = held.Close() }() // nothing was written
	before, err := LoadJournal(e.Folder)
	if err != nil {
		return err
	}
	if before != nil && (!job.continues(before) || before.Primitive != job.Primitive) {
		return unfinishedHere(before)
	}
	r := &run{Engine: e, job: job, journal: &Journal{
		Operation: job.Operation, Who: e.Who, Begun: job.Token.Begun, Node: job.Node, Primitive: job.Primitive,
		Token: job.Token.Value, On: job.On,
	}}
	if before != nil {
		r.goOn(before)
	}
	if err := r.save(); err != nil {
		return err
	}
	switch perhaps, err := r.acquire(ctx); {
	case err == nil:
		return r.forward(ctx)
	case before != nil:
		return err
	case perhaps:
		return errors.Join(err, r.end(ctx))
	default:
		return errors.Join(err, removeJournal(e.Folder))
	}
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

func (j Job) continues(journal *Journal) bool { return j.Continues != nil && j.Continues(journal) }

// Finish goes on with an operation that was left. It does not repeat the steps that are done, and checks the step that
// was begun first.
func (e *Engine) Finish(ctx context.Context, journal *Journal, job Job) error {
	return e.resume(ctx, journal, job, (*run).forward)
}

// Undo undoes the steps of an operation that was left. It undoes a step that was begun without checking whether the
// step was done: its Back is safe to repeat. It checks only points of no return.
func (e *Engine) Undo(ctx context.Context, journal *Journal, job Job) error {
	return e.resume(ctx, journal, job, func(r *run, ctx context.Context) error {
		if err := r.pass(ctx); err != nil {
			return err
		}
		if i := r.from; i > 0 && i < len(r.job.Steps) && r.journal.entry(r.job.Steps[i].ID) == nil {
			r.journal.note(r.job.Steps[i], false) // its Back cleans up after the point of no return
		}
		if err := r.back(ctx); err != nil {
			return err
		}
		if r.left != "" {
			r.Report(r.left)
		}
		return r.end(ctx)
	})
}

// resume takes the lock and the token of an operation that was left, and calls next.
func (e *Engine) resume(ctx context.Context, journal *Journal, job Job, next func(*run, context.Context) error) error {
	held, err := hold(e.Folder)
	if err != nil {
		return e.refused(err)
	}
	defer func() { _ = held.Close() }() // nothing was written
	now, err := LoadJournal(e.Folder)
	switch {
	case err != nil:
		return err
	case now == nil || now.Token != journal.Token:
		return errors.New("somebody else has ended the operation meanwhile; type: sudo pgrex operation show")
	case now.Primitive != job.Primitive:
		return fmt.Errorf("the operation is on the database %s, and this one is %s: choose that database with --resource", now.Primitive, job.Primitive)
	case job.On.SystemID != "" && now.On.SystemID != "" && job.On.SystemID != now.On.SystemID:
		return fmt.Errorf("the operation was planned for the database with the system identifier %s, and the one in %s has %s; "+
			"look at the journal, and decide by hand",
			now.On.SystemID, job.On.Folder, job.On.SystemID)
	}
	job.Token.Value = now.Token
	r := &run{Engine: e, job: job, journal: now}
	switch mine, err := r.hasToken(ctx); {
	case err != nil:
		return err
	case now.Ended:
		return cmp.Or(r.end(ctx), fmt.Errorf("%w: it had come to its end", ErrNothingLeft))
	case mine:
		return next(r, ctx)
	case len(now.Steps) == 0:
		return cmp.Or(removeJournal(e.Folder), fmt.Errorf("%w: no step was begun", ErrNothingLeft))
	case job.Guarded:
		return cmp.Or(removeJournal(e.Folder), fmt.Errorf("%w: another member has ended the operation; see sudo pgrex status", ErrNothingLeft))
	}
	if _, err := r.acquire(ctx); err != nil {
		return err
	}
	return next(r, ctx)
}

// acquire makes sure that the token in the CIB is this operation's. After an error, perhaps says that it may be: the
// tool may have made the token before it failed.
func (r *run) acquire(ctx context.Context) (perhaps bool, err error) {
	if mine, err := r.hasToken(ctx); mine || err != nil {
		return false, err
	}
	err = cib.CreateToken(r.job.Primitive, r.job.Token).Run(context.WithoutCancel(ctx))
	if errors.Is(err, cib.ErrExists) {
		return false, cmp.Or(r.free(ctx, ""), err)
	}
	return err != nil, err
}

// hasToken reports whether the token in the CIB is this operation's.
func (r *run) hasToken(ctx context.Context) (bool, error) {
	who, err := r.Observer.Cluster(ctx)
	if who.Cluster == nil {
		return false, err
	}
	if !who.Cluster.Quorate { // the other hosts may have changed the token since
		return false, errNoQuorum
	}
	t, is, _ := who.Cluster.Token(r.job.Primitive) // an unreadable token is somebody else's
	return is && t.Value == r.job.Token.Value, nil
}

// Ready returns an error that names the operation which is under way or unfinished, here or on another host. It ignores
// an operation that the next one goes on with.
func (e *Engine) Ready(ctx context.Context, continues func(j *Journal) bool) error {
	if isHeld(e.Folder) {
		return e.refused(ErrUnderWay)
	}
	j, err := LoadJournal(e.Folder)
	switch {
	case err != nil:
		return err
	case j == nil:
		return e.free(ctx, "")
	case (Job{Continues: continues}).continues(j):
		return e.free(ctx, j.Token)
	}
	return unfinishedHere(j)
}

// free returns an error that names the operation which holds the token in the CIB, unless its value is mine.
func (e *Engine) free(ctx context.Context, mine string) error {
	who, err := e.Observer.Cluster(ctx)
	if who.Cluster == nil || who.Clone.Primitive == "" {
		return err
	}
	t, is, err := who.Cluster.Token(who.Clone.Primitive)
	switch {
	case err != nil:
		return fmt.Errorf("this pgrex does not understand the token of an operation in the CIB: %w; "+
			"look at it with cibadmin --query --scope crm_config", err)
	case is && t.Value != mine:
		return fmt.Errorf("%s is under way, or unfinished: on %s, type: sudo pgrex operation show", t.What(), t.Host)
	}
	return nil
}

// EndLeft ends an operation that was left and turns out to be whole. If there is none, EndLeft does nothing.
func (e *Engine) EndLeft(ctx context.Context, continues func(j *Journal) bool) error {
	held, err := hold(e.Folder)
	if err != nil {
		return e.refused(err)
	}
	defer func() { _ = held.Close() }() // nothing was written
	j, err := LoadJournal(e.Folder)
	if err != nil || j == nil || !(Job{Continues: continues}).continues(j) {
		return err
	}
	r := &run{Engine: e, journal: j, job: Job{Primitive: j.Primitive, Token: model.Token{Value: j.Token}}}
	return r.end(ctx)
}

// RunAlone is Run for an operation that has no journal here. Until it returns, no operation begins on this host.
func (e *Engine) RunAlone(ctx context.Context, actions []Action) error {
	held, err := hold(e.Folder)
	if err != nil {
		return e.refused(err)
	}
	defer func() { _ = held.Close() }() // nothing was written
	if j, err := LoadJournal(e.Folder); err != nil || j != nil {
		return cmp.Or(err, errors.New("an operation was begun here meanwhile: type sudo pgrex operation show again"))
	}
	return e.Run(ctx, actions)
}

// Run does actions in order, up to the first that fails. It keeps no journal and undoes nothing.
func (e *Engine) Run(ctx context.Context, actions []Action) error {
	for i, a := range actions {
		err := ctx.Err()
		begin := time.Now()
		if err == nil {
			err = a.Do(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		e.report(i, a, begin)
	}
	return nil
}

func (e *Engine) report(i int, a Action, begin time.Time) {
	e.Report(fmt.Sprintf("%d. %s (%s)", i+1, a, time.Since(begin).Round(10*time.Millisecond)))
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
	state, err := r.check(ctx, s)
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
func (r *run) check(ctx context.Context, s Step) (State, error) {
	if !r.journal.isHalf(s.ID) {
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
	for i, s := range r.job.Steps {
		if s.NoReturn == "" {
			continue
		}
		state, err := r.check(ctx, s)
		if err != nil {
			return err
		}
		if state == Done {
			r.journal.note(s, true)
		}
		if r.journal.isDone(s.ID) {
			r.from, r.left = i+1, s.NoReturn
		}
	}
	return nil
}

// fail undoes steps after an error.
func (r *run) fail(ctx context.Context, err error) error {
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
			if err := within(ctx, undoTimeout, a.Do); err != nil {
				err = fmt.Errorf("this step could not be undone, and the steps before it stay done: %s: %s: %w; mend that, then type: %s",
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

// refused names the operation that is under way on this host.
func (e *Engine) refused(err error) error {
	if !errors.Is(err, ErrUnderWay) {
		return err
	}
	if j, _ := LoadJournal(e.Folder); j != nil { // the operation may have just ended
		return fmt.Errorf("%w: %s", err, j.What())
	}
	return err
}

// unfinishedHere refuses another operation while one is unfinished here.
func unfinishedHere(j *Journal) error {
	return fmt.Errorf("%s is unfinished on this host: type sudo pgrex operation show, then sudo pgrex operation finish, or undo", j.What())
}

// What names the operation in a few words.
func (j *Journal) What() string {
	return fmt.Sprintf("%s, started by %s at %s", j.Operation, j.Who, j.Begun.Local().Format(time.DateTime))
}
