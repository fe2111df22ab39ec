package operation

import (
	"fmt"
	"strings"
)

// Step is an action in its place in an operation.
type Step struct {
	// ID names the step in a journal. It is unique in its operation, and stable from release to release.
	ID string
	Action
	// Back takes the step back. A step that was begun is taken back like one that was done.
	Back []Action
	// NoReturn marks the point of no return: later failures roll back only the steps after it, and say this of how the
	// cluster is left. "" is no such point. The next step is begun even after an interrupt, because its Back says what
	// is to be done then.
	NoReturn string
	// Again marks a step that `finish` does once more although it was done, because what it saw may have changed.
	Again bool
}

// Reporter is told how an operation gets on, a line at a time.
type Reporter func(line string)

// Show says what would be done, and does nothing.
func Show(steps []Step, report Reporter) {
	for i, s := range steps {
		report(fmt.Sprintf("%d. %s", i+1, s.Action))
	}
}

// ShowActions is Show for actions that are no steps.
func ShowActions(actions []Action, report Reporter) {
	for i, a := range actions {
		report(fmt.Sprintf("%d. %s", i+1, a))
	}
}

// backText is what takes a step back, in a line.
func (s Step) backText() string {
	var texts []string
	for _, a := range s.Back {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, "; ")
}
