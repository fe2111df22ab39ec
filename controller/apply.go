package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-logr/logr"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// How long a step that fails for a passing reason is tried again within a pass, and the first wait.
const (
	stepBudget    = 5 * time.Second
	stepFirstWait = 100 * time.Millisecond
)

// Failure is a step that was not done, and why.
type Failure struct {
	Step  string         `json:"step"`
	Class postgres.Class `json:"class"`
	Text  string         `json:"text"`
	kind  string         // the step's
}

// Result is what became of a plan's steps.
type Result struct {
	Done     []model.Step
	Pending  []model.Step // not done: failed, or not tried
	Failures []Failure
	Changed  bool // something is no longer as it was planned on: the rest was not tried
}

// Apply carries out the steps in order. If a step fails, the others are still tried, with these exceptions:
//   - What the plan was made on has changed, or a step has no answer: the rest is not tried.
//   - A slot could not be made: no forecast is published, since it may count on that slot.
//   - A forecast could not be published or taken back: no slot is made, and no further forecast is published.
//
// A step that has begun is finished even if ctx ends; no further one is begun.
func Apply(ctx context.Context, executor Executor, steps []model.Step, log logr.Logger) Result {
	var r Result
	for i, step := range steps {
		if ctx.Err() != nil {
			r.Pending = append(r.Pending, steps[i:]...)
			return r
		}
		if forecasts(step) && slices.ContainsFunc(r.Pending, or(makesSlot, forecasts)) ||
			makesSlot(step) && slices.ContainsFunc(r.Pending, forecasts) {
			r.Pending = append(r.Pending, step) // what is published would not be so
			continue
		}
		err := applyStep(ctx, executor, step)
		class := postgres.ClassOf(err)
		switch {
		case err == nil:
			r.Done = append(r.Done, step)
			log.Info("step done", keyStep, step.Kind(), keyText, step.Text(), keyReason, step.Why().Text)
		case class == postgres.Changed:
			log.Info("step not done: what it was planned on has changed", keyStep, step.Kind(), keyText, step.Text(), keyProblem, err.Error())
			r.Changed, r.Pending = true, append(r.Pending, steps[i:]...)
			return r
		case class == postgres.NoAnswer:
			r.fail(step, err)
			r.Pending = append(r.Pending, steps[i:]...)
			return r
		case class == postgres.AlreadyDone:
			log.V(1).Info("step already done", keyStep, step.Kind(), keyText, step.Text())
		default:
			r.fail(step, err)
			r.Pending = append(r.Pending, step)
		}
	}
	return r
}

func or(a, b func(model.Step) bool) func(model.Step) bool {
	return func(step model.Step) bool { return a(step) || b(step) }
}

func (r *Result) fail(step model.Step, err error) {
	r.Failures = append(r.Failures, Failure{Step: step.Kind() + " " + step.Text(), Class: postgres.ClassOf(err), Text: cause(err), kind: step.Kind()})
}

// forecasts reports whether a step publishes a forecast, or removes one. Other attributes say nothing about slots.
func forecasts(step model.Step) bool {
	s, is := step.(model.PublishAttribute)
	return is && strings.HasPrefix(s.Name, model.FormerForecastAttribute)
}

func makesSlot(step model.Step) bool {
	switch step.(type) {
	case model.CreateSlot, model.ResetSlot:
		return true
	default:
		return false
	}
}

// cause is what went wrong, without the step: that stands beside it.
func cause(err error) string {
	if e, ok := errors.AsType[*postgres.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// applyStep tries a step, again while it fails for a passing reason. The last real error is kept.
func applyStep(ctx context.Context, executor Executor, step model.Step) error {
	policy := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(stepFirstWait),
		backoff.WithMaxElapsedTime(stepBudget),
	)
	var last error
	err := backoff.Retry(func() error {
		last = executor.Apply(context.WithoutCancel(ctx), step)
		if last != nil && postgres.ClassOf(last) != postgres.Transient {
			return backoff.Permanent(last)
		}
		return last
	}, backoff.WithContext(policy, ctx))
	if last != nil && err != nil && !errors.Is(err, last) {
		return last // ctx ended while waiting
	}
	return err
}
