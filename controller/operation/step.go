package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
)

// undoTimeout bounds the undoing of one step. It begins after the operation's own context has ended.
const undoTimeout = 60 * time.Second

// Step is one part of an operation.
type Step struct {
	Text string // one line: the command where it is one, or what is done or awaited
	Do   func(ctx context.Context) error
	// Undo takes it back when a later step fails; nil where nothing is to be taken back. UndoText says so in a line.
	Undo     func(ctx context.Context) error
	UndoText string
	// UndoWhen is what has to be so before a person may type that; "" for nothing.
	UndoWhen string
	// NoReturn: once this is done, a later failure undoes nothing of what was done up to here. The next step's Undo then says what
	// is to be done instead, so that one is begun even after an interrupt.
	NoReturn bool
}

// Work is what an operation would do: nothing where there are no steps. Says is what the operator should know before.
type Work struct {
	Says  []string
	Steps []Step
}

// Reporter is told how an operation gets on, a line at a time.
type Reporter func(line string)

// Run is a step that is a command of Pacemaker's, and the command that takes it back, if there is one. It takes a moment, and
// is not interrupted.
func Run(c cib.Command, undo *cib.Command) Step {
	s := Step{Text: c.String(), Do: func(ctx context.Context) error { return c.Run(context.WithoutCancel(ctx)) }}
	if undo != nil {
		s.Undo, s.UndoText = undo.Run, undo.String()
	}
	return s
}

// Show says what would be done, and does nothing.
func Show(steps []Step, report Reporter) {
	for i, s := range steps {
		report(fmt.Sprintf("%d. %s", i+1, s.Text))
	}
}

// Do does the steps in order. When one fails, or ctx ends, what was done is undone in reverse order, the failed step
// included: it may have been done in part. Undoing stops where it fails. The error joins what went wrong with that.
func Do(ctx context.Context, steps []Step, report Reporter) error {
	from := 0 // which step is undone last
	for i, s := range steps {
		err := ctx.Err()
		if err == nil || from > 0 && from == i {
			begin := time.Now()
			if err = s.Do(ctx); err == nil {
				report(fmt.Sprintf("%d. %s (%s)", i+1, s.Text, time.Since(begin).Round(10*time.Millisecond)))
				if s.NoReturn {
					from = i + 1
				}
				continue
			}
			err = fmt.Errorf("%s: %w", s.Text, err)
			i++
		}
		return errors.Join(err, undo(ctx, steps[from:i], report))
	}
	return nil
}

// undo takes steps back, the last one first, up to the first that cannot be: what was done before it, such as a ban or
// maintenance-mode, protects the data until somebody has seen to that.
func undo(ctx context.Context, done []Step, report Reporter) error {
	for i := len(done) - 1; i >= 0; i-- {
		s := done[i]
		if s.Undo == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		err := s.Undo(ctx)
		cancel()
		if err != nil {
			err = fmt.Errorf("could not be undone, and nothing before it is: %w; when that is mended, type %s", err, inOrder(done[:i+1]))
			report(err.Error()) // an interrupt says no more than that it was one
			return err
		}
		report("undone: " + s.UndoText)
	}
	return nil
}

// inOrder is what takes steps back, in words.
func inOrder(done []Step) string {
	var texts []string
	for i := len(done) - 1; i >= 0; i-- {
		switch s := done[i]; {
		case s.Undo == nil:
		case s.UndoWhen != "":
			texts = append(texts, s.UndoWhen+": "+s.UndoText)
		default:
			texts = append(texts, s.UndoText)
		}
	}
	if len(texts) == 1 {
		return texts[0]
	}
	return "in this order: " + strings.Join(texts, "; then: ")
}

// NoReturn notes that a step is done, and that there is no way back from there.
func NoReturn(step Step, done *bool) Step {
	do := step.Do
	step.NoReturn = true
	step.Do = func(ctx context.Context) error {
		err := do(ctx)
		*done = err == nil
		return err
	}
	return step
}

// Await is a step that looks again until a condition holds. The condition's error says what is not so yet.
func Await(text string, patience time.Duration, condition func(ctx context.Context) error) Step {
	return AwaitMoving(text, patience, func(ctx context.Context) (string, error) { return "", condition(ctx) })
}

// AwaitMoving is Await with a patience that begins anew each time when something has moved: what the condition gives.
func AwaitMoving(text string, patience time.Duration, condition func(ctx context.Context) (string, error)) Step {
	look := func(ctx context.Context, left time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		return condition(ctx)
	}
	return Step{Text: text, Do: func(ctx context.Context) error {
		const between = 200 * time.Millisecond
		begin, place := time.Now(), ""
		for {
			now, last := look(ctx, patience-time.Since(begin))
			if last == nil || errors.Is(last, cib.ErrEnded) { // Pacemaker cannot be asked any more
				return last
			}
			if now != place {
				begin, place = time.Now(), now
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", context.Cause(ctx), last)
			case <-time.After(between):
			}
			if time.Since(begin) >= patience {
				return fmt.Errorf("not within %s: %w", patience, last)
			}
		}
	}}
}
