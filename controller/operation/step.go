package operation

import (
	"fmt"
	"strings"
)

// Step is an action at its place in an operation.
type Step struct {
	// ID names the step in a journal. It is unique in its operation, and stays the same from release to release.
	ID string
	Action
	// Back undoes the step. A step that was only begun is undone like a step that was done.
	Back []Action
	// NoReturn marks the point of no return: later failures undo only the steps after it. Its text says how the cluster
	// is left then; it is "" for all other steps. The next step begins even after an interrupt, because its Back says
	// what to do then.
	NoReturn string
	// Again marks a step that `finish` repeats even if it was done, because the cluster may have changed since.
	Again bool
}

// Reporter is told about the progress of an operation, a line at a time.
type Reporter func(line string)

// Show prints what would be done, and does nothing.
func Show(steps []Step, report Reporter) {
	for i, s := range steps {
		report(fmt.Sprintf("%d. %s", i+1, s.Action))
	}
}

// ShowActions is Show for actions without a place in an operation.
func ShowActions(actions []Action, report Reporter) {
	for i, a := range actions {
		report(fmt.Sprintf("%d. %s", i+1, a))
	}
}

// backText is how a step is undone, in a line.
func (s Step) backText() string {
	var texts []string
	for _, a := range s.Back {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, "; ")
}
