package fakes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Lone is an observer of a host whose cluster says nothing but that it is there. An operation's token is never seen
// there.
func Lone() *controller.Observer {
	return &controller.Observer{Node: "pm01", Clusters: ClusterOf(func() model.Cluster {
		return model.Cluster{
			Quorate: true, DC: "pm01", Nodes: []model.Node{{Name: "pm01", Online: true}},
			Clones: []model.Clone{{ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true}},
		}
	})}
}

// Engine is one on a state folder of its own, which logs what it reports. It runs what is first on PATH (Tools).
func Engine(t *testing.T, observer *controller.Observer) *operation.Engine {
	t.Helper()
	return &operation.Engine{
		Folder: t.TempDir() + "/state", Observer: observer, Who: "somebody", Report: func(line string) { t.Log(line) },
	}
}

// Job is an operation of some steps.
func Job(steps []operation.Step) operation.Job {
	who := reconcile.Who{Clone: model.Clone{Primitive: "pgsql"}}
	who.Here.Name = "pm01"
	job := operation.NewJob("rejoin", who, operation.On{})
	job.Plan, job.Steps = &struct{}{}, steps
	return job
}

// Do does steps as the engine does, with Pacemaker's tools of Tools. Nothing is left when it ends well.
func Do(ctx context.Context, t *testing.T, steps []operation.Step) error {
	t.Helper()
	Tools(t, "never")
	e := Engine(t, Lone())
	err := e.Do(ctx, Job(steps))
	if err == nil && !operation.Left(e.Folder).None() {
		t.Error("it has ended well, and its journal is still there")
	}
	return err
}

// Typed is a command as Tools note it.
func Typed(c cib.Command) string { return c.Path + " " + strings.Join(c.Args, " ") }

// Step finds a step by its ID.
func Step(t *testing.T, steps []operation.Step, id string) operation.Step {
	t.Helper()
	return steps[place(t, steps, id)]
}

// UpTo are the steps up to that with an ID, which is the last.
func UpTo(t *testing.T, steps []operation.Step, id string) []operation.Step {
	t.Helper()
	return slices.Clone(steps[:place(t, steps, id)+1])
}

// From are the steps from that with an ID on.
func From(t *testing.T, steps []operation.Step, id string) []operation.Step {
	t.Helper()
	return slices.Clone(steps[place(t, steps, id):])
}

func place(t *testing.T, steps []operation.Step, id string) int {
	t.Helper()
	i := slices.IndexFunc(steps, func(s operation.Step) bool { return s.ID == id })
	if i < 0 {
		t.Fatalf("there is no step %q", id)
	}
	return i
}

// Undo does what undoes a step.
func Undo(ctx context.Context, s operation.Step) error {
	for _, a := range s.Back {
		if err := a.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

// Point is where the process of an operation ends, as seen from one of its steps.
type Point string

// The points.
const (
	Before  Point = "before its effect"
	Between Point = "between its effect and its record"
	After   Point = "after its record"
)

// Points are all of them.
var Points = []Point{Before, Between, After}

// end is what a process ends with here: a panic, as nothing that the engine does on its way out may matter.
type end struct{}

// killed is an action that ends the process before it is done, or after.
type killed struct {
	operation.Action
	at Point
}

// Do implements the operation's action.
func (k killed) Do(ctx context.Context) error {
	if k.at == Between {
		if err := k.Action.Do(ctx); err != nil {
			return err
		}
	}
	panic(end{})
}

// Kill is an action at which the process ends, Before or Between.
func Kill(a operation.Action, at Point) operation.Action { return killed{a, at} }

// Killed does a job with an engine whose process ends at a point of the step with an ID. It fails the test if it does
// not.
func Killed(t *testing.T, e *operation.Engine, job operation.Job, id string, at Point) {
	t.Helper()
	i := place(t, job.Steps, id)
	job.Steps = slices.Clone(job.Steps)
	var err error
	if at == After {
		err = Ends(ReportEnds(e, fmt.Sprintf("%d. ", i+1)), func(e *operation.Engine) error { return e.Do(t.Context(), job) })
	} else {
		job.Steps[i].Action = Kill(job.Steps[i].Action, at)
		err = Ends(e, func(e *operation.Engine) error { return e.Do(t.Context(), job) })
	}
	if err != ErrKilled { //nolint:errorlint // as Ends returns it
		t.Fatalf("it was not killed at %s, %s: %v", id, at, err)
	}
}

// ReportEnds is an engine whose process ends when it reports a line that begins so.
func ReportEnds(e *operation.Engine, line string) *operation.Engine {
	ends := *e
	ends.Report = func(l string) {
		e.Report(l)
		if strings.HasPrefix(l, line) {
			panic(end{})
		}
	}
	return &ends
}

// ErrKilled says that the process has ended.
var ErrKilled = fmt.Errorf("killed")

// Ends does something with an engine whose process may end. The lock goes with its file then, as with a process.
func Ends(e *operation.Engine, do func(e *operation.Engine) error) (err error) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case end{}:
			err = ErrKilled
		default:
			panic(r)
		}
	}()
	return do(e)
}
