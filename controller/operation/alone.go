package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgrex/pgrex/controller"
)

// ErrNotAllowed says that a person has spoken against an operation that was begun without one.
var ErrNotAllowed = errors.New("this must not be done without a person any more")

// The steps that give the database back to Pacemaker, in journals.
const (
	StepCleanup        = "cleanup" // may be enough for Pacemaker to start the database
	StepClearPrimitive = "clear-primitive"
	StepClearClone     = "clear-clone"
	StepLetBack        = "let-back"
)

// Alone makes steps fit to be done without a person. They remove no ban: there was none when they were planned, so that
// a person has typed whatever is there now. Before the first step, and before what lets Pacemaker start the database,
// they look whether a person has spoken meanwhile. goesOn: they go on with an operation that was left, which may keep
// the database stopped from the first step on.
func Alone(observer *controller.Observer, steps []Step, way string, goesOn bool) []Step {
	still := func(own bool) Look {
		return Look{Text: "see that it may still be done without a person", See: func(ctx context.Context) error {
			who, err := observer.Cluster(ctx)
			if err != nil {
				return err
			}
			if why := who.StillAllowed(way, own); why != "" {
				return fmt.Errorf("%w: %s", ErrNotAllowed, why)
			}
			return nil
		}}
	}
	steps = slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return s.ID == StepClearPrimitive || s.ID == StepClearClone })
	var all []Step
	for i, s := range steps {
		if i == 0 || s.ID == StepCleanup || s.ID == StepLetBack {
			all = append(all, Step{ID: "allowed-before-" + s.ID, Action: still(goesOn || i > 0), Again: true})
		}
		all = append(all, s)
	}
	return all
}
