package operation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
)

var errBroken = errors.New("broken")

// says is an action that does nothing but note its name, and fails as told.
func says(did *[]string, name string, fails error) operation.Action {
	return operation.Program{Text: name, Run: func(context.Context) error { *did = append(*did, name); return fails }}
}

// A failed step and those before it are undone, in reverse order, up to the first that cannot be: what lies before that
// protects the data. It is said what to type then, and the journal stays.
func TestDoUndoes(t *testing.T) {
	fakes.Tools(t, "never")
	var did []string
	step := func(name string, fails, undoFails error) operation.Step {
		return operation.Step{ID: name, Action: says(&did, name, fails), Back: []operation.Action{says(&did, "undo "+name, undoFails)}}
	}
	without := operation.Step{ID: "c", Action: says(&did, "c", nil)}
	e := fakes.Engine(t, fakes.Lone())
	steps := []operation.Step{step("a", nil, nil), step("b", nil, errBroken), without, step("d", errBroken, nil), step("e", nil, nil)}
	err := e.Do(t.Context(), fakes.Job(steps))
	if got := strings.Join(did, ", "); got != "a, b, c, d, undo d, undo b" {
		t.Errorf("did %s", got)
	}
	const says = "this step could not be undone, and the steps before it stay done: b: undo b: broken; mend that, then type: sudo pgrex operation undo"
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "d: broken") || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v", err)
	}
	if left := operation.Left(e.Folder); left.None() || left.Running {
		t.Errorf("left is %+v", left)
	}
}

// What is undone has several parts, in order, and ends at the first that fails.
func TestBackInOrder(t *testing.T) {
	fakes.Tools(t, "never")
	var did []string
	back := []operation.Action{says(&did, "1", nil), says(&did, "2", errBroken), says(&did, "3", nil)}
	err := fakes.Engine(t, fakes.Lone()).Do(t.Context(), fakes.Job([]operation.Step{{ID: "a", Action: says(&did, "a", errBroken), Back: back}}))
	if got := strings.Join(did, ", "); got != "a, 1, 2" || err == nil {
		t.Errorf("did %s, %v", got, err)
	}
}

// An undo waits as long as its wait has patience, also while something moves: a start by Pacemaker may take longer than
// anything else that is undone. What has less patience is bounded as every other action.
func TestUndoIsPatient(t *testing.T) {
	fakes.Tools(t, "never")
	for _, test := range []struct{ patience, takes, want time.Duration }{
		{2 * time.Minute, 5 * time.Minute, 5 * time.Minute}, {40 * time.Second, 5 * time.Minute, time.Minute},
	} {
		e := fakes.Engine(t, fakes.Lone())
		var took time.Duration
		synctest.Test(t, func(t *testing.T) {
			var begin time.Time
			wait := operation.Wait{Text: "wait", Patience: test.patience, Condition: func(context.Context) (string, error) {
				if begin.IsZero() {
					begin = time.Now()
				}
				if took = time.Since(begin); took < test.takes {
					return took.String(), errBroken
				}
				return "", nil
			}}
			var did []string
			err := e.Do(t.Context(), fakes.Job([]operation.Step{{ID: "a", Action: says(&did, "a", errors.New("failed")), Back: []operation.Action{wait}}}))
			if errors.Is(err, errBroken) == (test.takes == test.want) || took.Round(time.Second) != test.want {
				t.Errorf("with a patience of %s: it waits for %s, %v", test.patience, took, err)
			}
		})
	}
}

// What lies before a point of no return is undone as long as that is not reached, and then no more. The error says how
// the cluster is left.
func TestDoNoReturn(t *testing.T) {
	fakes.Tools(t, "never")
	for _, test := range []struct {
		fails int
		want  string
		left  string
	}{{0, "undo a", ""}, {1, "undo b, undo a", ""}, {2, "undo c", "b is done"}} {
		var did, undid []string
		var steps []operation.Step
		for i, name := range []string{"a", "b", "c"} {
			s := operation.Step{ID: name, Action: says(&did, name, nil), Back: []operation.Action{says(&undid, "undo "+name, nil)}}
			if i == test.fails {
				s.Action = says(&did, name, errBroken)
			}
			if name == "b" {
				s.NoReturn = "b is done"
			}
			steps = append(steps, s)
		}
		e := fakes.Engine(t, fakes.Lone())
		err := e.Do(t.Context(), fakes.Job(steps))
		left := ""
		if is, ok := errors.AsType[*operation.LeftError](err); ok {
			left = is.Left
		}
		if left != test.left || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), left) {
			t.Errorf("step %d fails: it says %v", test.fails, err)
		}
		if got := strings.Join(undid, ", "); got != test.want || !operation.Left(e.Folder).None() {
			t.Errorf("step %d fails: %s; wanted %s", test.fails, got, test.want)
		}
	}
}

// An interrupt lets the step under way end, undoes it, and begins no other.
func TestDoInterrupted(t *testing.T) {
	fakes.Tools(t, "never")
	ctx, cancel := context.WithCancel(t.Context())
	undone := false
	steps := []operation.Step{
		{
			ID: "a", Action: operation.Change{Text: "a", Make: func() error { cancel(); return nil }},
			Back: []operation.Action{operation.Program{Text: "undo a", Run: func(ctx context.Context) error {
				undone = true
				return ctx.Err()
			}}},
		},
		{ID: "b", Action: operation.Change{Text: "b", Make: func() error { t.Error("begun after the interrupt"); return nil }}},
	}
	if err := fakes.Engine(t, fakes.Lone()).Do(ctx, fakes.Job(steps)); !errors.Is(err, context.Canceled) || !undone {
		t.Errorf("error %v, undone: %t", err, undone)
	}
}

// An interrupt at a point of no return: the next step ends at once, and what undoes it is what puts things right.
func TestDoInterruptedAtNoReturn(t *testing.T) {
	fakes.Tools(t, "never")
	ctx, cancel := context.WithCancel(t.Context())
	var undone []string
	undo := func(name string) []operation.Action { return []operation.Action{says(&undone, name, nil)} }
	after := operation.Await("it is so", time.Minute, func(ctx context.Context) error { return errors.Join(errors.New("not yet"), ctx.Err()) })
	steps := []operation.Step{
		{ID: "a", NoReturn: "a is done", Action: operation.Change{Text: "a", Make: func() error { cancel(); return nil }}, Back: undo("a")},
		{ID: "b", Action: after, Back: undo("b")},
		{ID: "c", Action: operation.Change{Text: "c", Make: func() error { t.Error("begun after the interrupt"); return nil }}, Back: undo("c")},
	}
	err := fakes.Engine(t, fakes.Lone()).Do(ctx, fakes.Job(steps))
	if got := strings.Join(undone, ", "); !errors.Is(err, context.Canceled) || got != "b" {
		t.Errorf("error %v, undone: %q", err, got)
	}
}

// What leaves nothing unfinished ends at the first action that fails, or with an interrupt, and leaves no journal.
func TestRunOfWork(t *testing.T) {
	var did, said []string
	e := fakes.Engine(t, fakes.Lone())
	e.Report = func(line string) { said = append(said, line) }
	err := e.Run(t.Context(), []operation.Action{says(&did, "a", nil), says(&did, "b", errBroken), says(&did, "c", nil)})
	if got := strings.Join(did, ", "); got != "a, b" || !errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), "b: ") {
		t.Errorf("did %s, %v", got, err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "1. a (") {
		t.Errorf("it says %q", said)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx, []operation.Action{says(&did, "d", nil)}); !errors.Is(err, context.Canceled) || len(did) != 2 {
		t.Errorf("interrupted: %v, did %q", err, did)
	}
	if !operation.Left(e.Folder).None() {
		t.Error("a journal was left")
	}
}

// A condition is looked at until it holds, the patience is over, or an interrupt comes; where something moves, the
// patience begins anew.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		so := operation.Await("it is so", time.Minute, func(context.Context) error {
			if looks++; looks < 5 {
				return errors.New("not yet")
			}
			return nil
		})
		if err := so.Do(t.Context()); err != nil || looks != 5 {
			t.Errorf("%d looks, %v", looks, err)
		}
		begin := time.Now()
		moving := operation.Wait{Text: "it is so", Patience: time.Minute, Condition: func(context.Context) (string, error) {
			since := min(time.Since(begin), 10*time.Minute)
			return since.Round(30 * time.Second).String(), errors.New("on the way")
		}}
		if err := moving.Do(t.Context()); err == nil || time.Since(begin) < 10*time.Minute || time.Since(begin) > 12*time.Minute {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		never := operation.Await("it is so", time.Minute, func(context.Context) error { return errors.New("it rains") })
		if err := never.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "it rains") || !strings.Contains(err.Error(), "1m0s") {
			t.Errorf("error %v", err)
		}
	})
}

// A wait says of an interrupt what was not so yet, ends at once where Pacemaker cannot be asked any more, and bounds a
// look that hangs.
func TestAwaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupted := operation.Await("it is so", time.Minute, func(context.Context) error {
			cancel(errors.New("Ctrl-C"))
			return errors.New("it rains")
		})
		if err := interrupted.Do(ctx); err == nil || err.Error() != "Ctrl-C: it rains" {
			t.Errorf("interrupted: %v", err)
		}
		begin := time.Now()
		ended := operation.Await("it is so", time.Minute, func(context.Context) error { return fmt.Errorf("ask: %w", cib.ErrEnded) })
		if err := ended.Do(t.Context()); !errors.Is(err, cib.ErrEnded) || time.Since(begin) != 0 {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		hangs := operation.Await("it is so", time.Minute, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if err := hangs.Do(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 2*time.Minute {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		looks := 0
		cut := operation.Await("it is so", time.Minute, func(ctx context.Context) error {
			if looks++; looks < 5 {
				return errors.New("it rains")
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if err := cut.Do(t.Context()); err == nil || err.Error() != "not within 1m0s: it rains" {
			t.Errorf("the last look was cut short: %v", err)
		}
	})
}

// Each kind of action says of what was begun by a process that is gone whether it can be repeated.
func TestChecks(t *testing.T) {
	untold := func(context.Context) (operation.State, error) { return operation.CannotTell, errBroken }
	for name, test := range map[string]struct {
		action operation.Action
		state  operation.State
		err    error
	}{
		"a command":                     {operation.Command{}, operation.NotDone, nil},
		"commands":                      {operation.Commands{}, operation.NotDone, nil},
		"a program":                     {operation.Program{}, operation.NotDone, nil},
		"a program that can be checked": {operation.Program{Found: untold}, operation.CannotTell, errBroken},
		"a change":                      {operation.Change{}, operation.NotDone, nil},
		"a change that can be checked":  {operation.Change{Found: untold}, operation.CannotTell, errBroken},
		"a look":                        {operation.Look{}, operation.NotDone, nil},
		"a wait":                        {operation.Wait{}, operation.NotDone, nil},
	} {
		if state, err := test.action.Check(t.Context()); state != test.state || !errors.Is(err, test.err) {
			t.Errorf("%s: %d, %v", name, state, err)
		}
	}
}

// A command runs to its end whatever becomes of the operation; it fails unless what it was for is so all the same.
func TestCommands(t *testing.T) {
	ran := fakes.Tools(t, "--ban")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	clear, ban := cib.ClearBan("ms", "pm02"), cib.Ban("ms", "pm03")
	if err := (operation.Command{Command: clear}).Do(ctx); err != nil || !strings.Contains(ran(), fakes.Typed(clear)) {
		t.Errorf("after an interrupt: %v; run were %s", err, ran())
	}
	for _, so := range []bool{true, false} {
		despite := operation.Command{Command: ban, Despite: func(context.Context) bool { return so }}
		if err := despite.Do(ctx); (err == nil) != so {
			t.Errorf("it is so: %t, but: %v", so, err)
		}
	}
	several := operation.Commands{cib.ClearBan("ms", "pm04"), ban, cib.ClearBan("ms", "pm05")}
	if err := several.Do(ctx); err == nil || !strings.Contains(ran(), "pm04") || strings.Contains(ran(), "pm05") {
		t.Errorf("several, of which the second fails: %v; run were %s", err, ran())
	}
	const text = "crm_resource --clear --resource ms --node pm04; "
	if got := several.String(); !strings.HasPrefix(got, text) || strings.Count(got, "; ") != 2 {
		t.Errorf("they are %q", got)
	}
	if got := (operation.Command{Command: ban, Text: "look away"}).String(); got != "look away" {
		t.Errorf("it is %q", got)
	}
}

// That Pacemaker is busy is no reason to end an operation; an interrupt is.
func TestSettle(t *testing.T) {
	fakes.Tools(t, "--wait")
	if err := operation.Settle().Do(t.Context()); err != nil {
		t.Errorf("busy: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := operation.Settle().Do(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// What would be done is said with the numbers under which it is reported.
func TestShow(t *testing.T) {
	var did, said []string
	report := func(line string) { said = append(said, line) }
	operation.Show([]operation.Step{{ID: "a", Action: says(&did, "one", nil)}, {ID: "b", Action: says(&did, "two", nil)}}, report)
	operation.ShowActions([]operation.Action{says(&did, "three", nil)}, report)
	if got := strings.Join(said, ", "); got != "1. one, 2. two, 1. three" || len(did) > 0 {
		t.Errorf("it says %s, and does %q", got, did)
	}
}

// After an undo that has failed, finish does again what it had come to, and all that came after that, also what there
// is nothing to undo: it was done on what is no more.
func TestFinishAfterUndoFailed(t *testing.T) {
	fakes.Tools(t, "never")
	var did []string
	fails := errBroken
	steps := []operation.Step{
		{ID: "a", Action: says(&did, "a", nil), Back: []operation.Action{says(&did, "undo a", nil)}},
		{ID: "b", Action: says(&did, "b", nil), Back: []operation.Action{says(&did, "half of undo b", nil), says(&did, "rest", errBroken)}},
		{ID: "c", Action: says(&did, "c", nil)},
		{ID: "d", Action: operation.Change{Text: "d", Make: func() error { return fails }}},
	}
	e := fakes.Engine(t, fakes.Lone())
	job := fakes.Job(steps)
	if err := e.Do(t.Context(), job); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	j, err := operation.LoadJournal(e.Folder)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(j.Remaining(steps)); got != 3 {
		t.Errorf("%d steps remain", got)
	}
	did, fails = nil, nil
	if err := e.Finish(t.Context(), j, job); err != nil {
		t.Error(err)
	}
	if got := strings.Join(did, ", "); got != "b, c" || !operation.Left(e.Folder).None() {
		t.Errorf("did %s", got)
	}
}
