package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
)

// Action is one thing that an operation does. The set is sealed: Command, Commands, Program, Change, Wait, Look.
type Action interface {
	// String is one line: the command, or what the action does, waits for or looks at.
	String() string
	// Do does the action. After an error the action may be done in part.
	Do(ctx context.Context) error
	// Check reports whether the action was done. A process that is gone had begun it.
	Check(ctx context.Context) (State, error)
}

// State is what a check finds.
type State int

// NotDone also stands for an action that is safe to repeat. CannotTell comes with an error that says why.
const (
	NotDone State = iota
	Done
	CannotTell
)

// Command runs one of Pacemaker's tools. Every command that pgrex runs sets a value, and so is safe to repeat.
type Command struct {
	cib.Command
	// Text is shown instead of a command that nobody would type.
	Text string
	// Despite reports whether the command took effect although the tool failed, or its end is unknown. It may be nil.
	Despite func(ctx context.Context) bool
	// NoMatch says what it means that the tool finds the CIB otherwise than it has to be (cib.ErrNoMatch).
	NoMatch string
}

func (c Command) String() string {
	if c.Text != "" {
		return c.Text
	}
	return c.Command.String()
}

// Do runs the tool to its end even if ctx ends: the tool takes only a moment.
func (c Command) Do(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	err := c.Run(ctx)
	switch {
	case err != nil && c.Despite != nil && c.Despite(ctx):
		return nil
	case errors.Is(err, cib.ErrNoMatch) && c.NoMatch != "":
		return fmt.Errorf("%s (%w)", c.NoMatch, err)
	}
	return err
}

// Check asks Despite, and returns NotDone if there is none.
func (c Command) Check(ctx context.Context) (State, error) {
	if c.Despite != nil && c.Despite(ctx) {
		return Done, nil
	}
	return NotDone, nil
}

// Commands runs several of Pacemaker's tools, one after the other.
type Commands []cib.Command

func (c Commands) String() string {
	var texts []string
	for _, command := range c {
		texts = append(texts, command.String())
	}
	return strings.Join(texts, "; ")
}

// Do runs them up to the first that fails.
func (c Commands) Do(ctx context.Context) error {
	for _, command := range c {
		if err := command.Run(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// Check returns NotDone.
func (Commands) Check(context.Context) (State, error) { return NotDone, nil }

// Program runs programs of PostgreSQL, or talks to a server.
type Program struct {
	Text string
	Run  func(ctx context.Context) error
	// Found is the check. It is nil if the program is safe to repeat.
	Found func(ctx context.Context) (State, error)
}

func (p Program) String() string { return p.Text }

// Do runs it.
func (p Program) Do(ctx context.Context) error { return p.Run(ctx) }

// Check asks Found.
func (p Program) Check(ctx context.Context) (State, error) { return found(ctx, p.Found) }

// Change changes files.
type Change struct {
	Text string
	Make func() error
	// Found is the check. It is nil if the change is safe to repeat.
	Found func(ctx context.Context) (State, error)
}

func (c Change) String() string { return c.Text }

// Do makes the whole change even if ctx ends.
func (c Change) Do(context.Context) error { return c.Make() }

// Check asks Found.
func (c Change) Check(ctx context.Context) (State, error) { return found(ctx, c.Found) }

func found(ctx context.Context, check func(ctx context.Context) (State, error)) (State, error) {
	if check == nil {
		return NotDone, nil
	}
	return check(ctx)
}

// Look checks a condition once, and changes nothing.
type Look struct {
	Text string
	See  func(ctx context.Context) error
}

func (l Look) String() string { return l.Text }

// Do looks.
func (l Look) Do(ctx context.Context) error { return l.See(ctx) }

// Check returns NotDone: what was seen may have changed.
func (Look) Check(context.Context) (State, error) { return NotDone, nil }

// Wait checks a condition again and again until it holds.
type Wait struct {
	Text string
	// Patience limits the time since the start, or since something last moved.
	Patience time.Duration
	// Condition returns an error that says what is still missing, and a text that changes whenever something moves.
	Condition func(ctx context.Context) (moved string, err error)
	// Found is the check: what the wait is for may have come while nobody waited. If it is nil, the wait begins again.
	Found func(ctx context.Context) (State, error)
}

// Await is a Wait for a condition in which nothing moves.
func Await(text string, patience time.Duration, condition func(ctx context.Context) error) Wait {
	return Wait{Text: text, Patience: patience, Condition: func(ctx context.Context) (string, error) { return "", condition(ctx) }}
}

func (w Wait) String() string { return w.Text }

// Check asks Found.
func (w Wait) Check(ctx context.Context) (State, error) { return found(ctx, w.Found) }

// Do waits.
func (w Wait) Do(ctx context.Context) error {
	const between = 200 * time.Millisecond
	begin, place := time.Now(), ""
	var last error
	for {
		now, err := w.look(ctx, w.Patience-time.Since(begin))
		if err == nil || errors.Is(err, cib.ErrEnded) { // Pacemaker cannot be asked any more
			return err
		}
		if last == nil || time.Since(begin) < w.Patience { // a look that was cut short does not know the reason
			last = err
		}
		if now != place {
			begin, place = time.Now(), now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-time.After(between):
		}
		if time.Since(begin) >= w.Patience {
			return fmt.Errorf("not within %s: %w", w.Patience, last)
		}
	}
}

func (w Wait) look(ctx context.Context, left time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	return w.Condition(ctx)
}

// Settle waits until Pacemaker has nothing left to do. A cluster that stays busy is not an error.
func Settle() Action {
	command := cib.Settle()
	return Look{command.String(), func(ctx context.Context) error {
		if err := command.Run(ctx); errors.Is(err, cib.ErrEnded) {
			return err
		}
		return ctx.Err()
	}}
}
