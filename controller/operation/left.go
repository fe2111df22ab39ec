package operation

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// NewJob begins to plan an operation on this host.
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

// Left returns what the state folder says of an operation that was begun on this host. It returns nil if this user may
// not read the journal. A journal that cannot be read for any other reason counts as an operation.
func Left(folder string) *model.LocalOperation {
	j, err := LoadJournal(folder)
	switch {
	case errors.Is(err, fs.ErrPermission): // the folder is the data owner's
		return nil
	case err != nil:
		return &model.LocalOperation{Operation: "an operation", Who: "somebody", Running: isHeld(folder)}
	case j == nil:
		return &model.LocalOperation{}
	}
	return &model.LocalOperation{Operation: cmp.Or(j.Operation, "operation"), Begun: j.Begun, Who: j.Who, Running: isHeld(folder)}
}

// Held reports whether a process works on the operation.
func (j *Journal) Held(folder string) bool { return isHeld(folder) }

// Remaining returns the steps that `finish` would do.
func (j *Journal) Remaining(steps []Step) (remaining []Step) {
	for _, s := range steps {
		switch {
		case j.isDone(s.ID) && s.NoReturn != "":
			remaining = nil // nothing before a point of no return is repeated
		case !j.isDone(s.ID) || s.Again:
			remaining = append(remaining, s)
		}
	}
	return remaining
}

// Backwards returns the actions that `undo` would do, and how the cluster is left then: "" means as it was before.
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

// Describe lists the steps, and how far each one is.
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
