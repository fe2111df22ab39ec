package operation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

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

// ErrOther says that an operation of another host holds the database.
var ErrOther = errors.New("another host's operation comes first")

// otherError is an error that is ErrOther, too.
type otherError struct{ error }

// Is implements what errors.Is asks for.
func (otherError) Is(target error) bool { return target == ErrOther }

// ErrNothingLeft says that an operation that was left needs neither `finish` nor `undo`. Its journal is removed.
var ErrNothingLeft = errors.New("nothing is left to do")

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
		return fmt.Errorf("the operation is on the database %s, and this one is %s: choose that database with "+
			"--instance %[1]s",
			now.Primitive, job.Primitive)
	case job.On.SystemID != "" && now.On.SystemID != "" && job.On.SystemID != now.On.SystemID:
		return fmt.Errorf("the operation was planned for the database with the system identifier %s, and the one in "+
			"%s has %s; look at the journal, and decide by hand",
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
		return cmp.Or(removeJournal(e.Folder), fmt.Errorf("%w: another member has ended the operation; see sudo "+
			"pgrex status", ErrNothingLeft))
	}
	if _, err := r.acquire(ctx); err != nil {
		return err
	}
	return next(r, ctx)
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
		return otherError{fmt.Errorf("%s is under way, or unfinished: on %s, type: sudo pgrex operation show", t.What(), t.Host)}
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
	return fmt.Errorf("%s is unfinished on this host: type sudo pgrex operation show, then sudo pgrex operation "+
		"finish, or undo", j.What())
}

// What names the operation in a few words.
func (j *Journal) What() string {
	return fmt.Sprintf("%s, started by %s at %s", j.Operation, j.Who, j.Begun.Local().Format(time.DateTime))
}
