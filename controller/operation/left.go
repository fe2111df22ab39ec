package operation

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// NewJob begins to plan an operation of this host's.
func NewJob(operation string, who reconcile.Who, on On) Job {
	return Job{Operation: operation, Node: who.Here.Name, Primitive: who.Clone.Primitive, On: on, Token: model.Token{
		Operation: operation, Host: who.Here.Name, Phase: model.PhaseBegun, Begun: time.Now().UTC().Truncate(time.Second), Value: randomValue(),
	}}
}

// randomValue is 128 random bits in hex.
func randomValue() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// Left is what the state folder says of an operation that was begun on this host: nil where there is none. A journal that
// cannot be read is one, too.
func Left(folder string) *model.LocalOperation {
	j, err := LoadJournal(folder)
	switch {
	case errors.Is(err, fs.ErrPermission): // the folder is the data owner's
		return nil
	case err != nil:
		return &model.LocalOperation{Operation: "an operation", Who: "somebody", Running: isHeld(folder)}
	case j == nil:
		return nil
	}
	return &model.LocalOperation{Operation: j.Operation, Begun: j.Begun, Who: j.Who, Running: isHeld(folder)}
}

// Held reports whether a process works on it.
func (j *Journal) Held(folder string) bool { return isHeld(folder) }

// Remaining are the steps that `finish` would do.
func (j *Journal) Remaining(steps []Step) (remaining []Step) {
	for _, s := range steps {
		switch {
		case j.isDone(s.ID) && s.NoReturn != "":
			remaining = nil // what comes before a point of no return is not done again
		case !j.isDone(s.ID) || s.Again:
			remaining = append(remaining, s)
		}
	}
	return remaining
}

// Backwards are the actions that `undo` would do, and how the cluster is left at that: "" as it was before.
func (j *Journal) Backwards(steps []Step) (actions []Action, left string) {
	for i := len(steps) - 1; i >= 0; i-- {
		given := i > 0 && steps[i-1].NoReturn != "" && j.isDone(steps[i-1].ID)
		if e := j.entry(steps[i].ID); e != nil && !e.Undone || e == nil && given {
			actions = append(actions, steps[i].Back...)
		}
		if given {
			return actions, steps[i-1].NoReturn
		}
	}
	return actions, ""
}

// Describe says what was done, in lines.
func (j *Journal) Describe(steps []Step) []string {
	lines := []string{
		fmt.Sprintf("%s, on %s", j.What(), j.Node),
		fmt.Sprintf("planned on the data in %s, system identifier %s, timeline %d", j.On.Folder, j.On.SystemID, j.On.Timeline),
	}
	for _, s := range steps {
		how := "to do"
		switch e := j.entry(s.ID); {
		case e == nil:
		case e.Undone:
			how = "undone"
		case e.Done:
			how = "done"
		default:
			how = "begun"
		}
		lines = append(lines, fmt.Sprintf("  %-6s  %s", how, s.Action))
	}
	return lines
}
