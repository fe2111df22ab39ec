package controller

import (
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-logr/logr"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Keys of structured log lines.
const (
	keyCode     = "code"
	keyPass     = "pass"
	keyPID      = "pid"
	keyProblem  = "problem"
	keyReason   = "reason"
	keySince    = "since"
	keyStanding = "standing"
	keyStep     = "step"
	keySteps    = "steps"
	keySubject  = "subject"
	keyText     = "text"
	keyWas      = "was"
)

// KeySeverity is the key of a finding's severity in log lines, by which a log writer can give the line its priority.
const KeySeverity = "severity"

// The wait between passes that fail to do the same steps grows from the first to the longest.
const (
	firstHoldOff   = time.Second
	longestHoldOff = 30 * time.Second
)

// Options make a Controller.
type Options struct {
	Observer *Observer
	Hints    <-chan struct{} // something about the cluster may have changed
	DryRun   bool            // plan and say, change nothing
	// LookEvery is how often the local server is looked at, ReadEvery how often, at least, the CIB and the upstream.
	LookEvery, ReadEvery time.Duration
	Version              string
	StateDir             string // folder for what is kept across restarts; "" to keep nothing
	Publish              func(Status)
	Notify               Notifier
	Log                  logr.Logger
}

// Controller keeps one host right.
type Controller struct {
	Options
	started    time.Time
	conditions conditions
	members    *members
	sentinel   *sentinel
	rates      rates
	resumed    bool // whether the rates from before the start were considered
	keeper     keeper
	passes     int

	readAt    time.Time // when the CIB and the upstream were last read
	nextRead  time.Time // when they are to be read again
	shape     string    // of the last plan
	acted     string    // the shape of the last one that was made of a server's answer
	heldUntil time.Time // the same steps are not tried again before
	holdOff   *backoff.ExponentialBackOff
	stepsDone uint64
	steps     stepCounts
	lastStep  *StepDone
	failures  []Failure
}

// New makes a controller that has not looked at anything yet.
func New(o Options) *Controller {
	return &Controller{
		Options:    o,
		steps:      newStepCounts(),
		conditions: conditions{log: o.Log}, members: newMembers(), sentinel: newSentinel(), keeper: keeper{folder: o.StateDir},
		holdOff: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(firstHoldOff),
			backoff.WithMaxInterval(longestHoldOff),
			backoff.WithMaxElapsedTime(0),
		),
	}
}

// Run looks, plans and applies until ctx ends. It feeds the watchdog whenever a call ends, not only after a pass: each
// call has a deadline, but a pass has any number of calls. A loop in which no call ends is a fault.
func (c *Controller) Run(ctx context.Context) {
	c.started = time.Now()
	c.Observer.Ended, c.Observer.Patient = c.Notify.Alive, true
	defer c.Observer.Close()
	defer c.members.running.Wait()
	defer c.sentinel.running.Wait()
	defer c.sentinel.letGo()
	defer c.keep(true)
	defer c.Notify.Stopping()
	tick := time.NewTicker(c.LookEvery)
	defer tick.Stop()
	c.pass(ctx, true)
	c.Notify.Ready()
	for {
		select {
		case <-ctx.Done():
			return
		case ended := <-c.sentinel.ended:
			if c.crashed(ctx, ended) { // a wait that fails is no reason to hold, and wait, again at once
				c.pass(ctx, true)
			}
		case <-c.Hints:
			c.pass(ctx, true)
		case <-tick.C:
			c.pass(ctx, !time.Now().Before(c.nextRead))
		}
		if ctx.Err() == nil {
			c.Notify.Alive() // also after a pass without any call
		}
	}
}

// pass looks once. What a look at the local server alone shows as new, or as something to do, is looked at closely
// before anything is done about it.
func (c *Controller) pass(ctx context.Context, read bool) {
	c.passes++
	if !read {
		who, plan := c.plan(c.Observer.Look(ctx))
		if now := time.Now(); shape(plan) == c.shape && (len(plan.Steps) == 0 || now.Before(c.heldUntil)) {
			c.conditions.update(plan, now) // their figures are those of this look
			c.publish(ctx, who, plan)
			return
		}
		if who.Instance.State == model.ServerUnreachable && ctx.Err() == nil { // the pass ends at a call without an answer
			c.conditions.update(plan, time.Now())
			c.shape = shape(plan)
			c.publish(ctx, who, plan)
			return
		}
	}
	who, plan := c.plan(c.Observer.Full(ctx))
	if ctx.Err() != nil {
		return // half an observation says nothing
	}
	now := time.Now()
	c.readAt, c.nextRead = now, now.Add(min(c.ReadEvery, plan.RecheckAfter))
	c.Log.V(1).Info("pass", keyPass, c.passes, keyStanding, plan.Standing, keySteps, len(plan.Steps))
	c.conditions.update(plan, now)
	made := shape(plan)
	plan.Steps = c.act(ctx, plan)
	c.shape = made
	if who.Instance.State != model.ServerUnreachable { // or a step that hangs would be tried again at once each time
		c.acted = made
	}
	c.keep(false)
	c.members.refresh(ctx, who, c.Observer.Server())
	c.publish(ctx, who, plan)
}

// plan makes a plan of an observation. Where none can be made the plan says why.
func (c *Controller) plan(who reconcile.Who, err error) (reconcile.Who, model.Plan) {
	if err != nil {
		return who, model.Plan{Host: who.Node, Standing: model.InTransition, RecheckAfter: c.ReadEvery, Findings: []model.Finding{
			{Code: model.CodeNoPlan, Severity: model.Critical, Text: err.Error()},
		}}
	}
	now := time.Now()
	if system := who.Instance.SystemID; system != "" && !c.resumed {
		c.resumed = true
		c.rates.resume(c.Observer.Kept.Rates, system, now)
	}
	who.WALRate, who.Crash, who.Unwatched = c.rates.measure(who.Input, now), c.sentinel.last, c.sentinel.problem
	return who, who.Plan()
}

// keep saves the state, if it is due or this is the last chance.
func (c *Controller) keep(last bool) {
	s := c.Observer.state()
	s.Rates = c.Observer.Kept.Rates
	if c.resumed {
		s.Rates = c.rates.kept(time.Now())
	}
	if !c.keeper.due(s) && (!last || c.keeper.folder == "" || s.Newest == (model.Version{})) {
		return
	}
	if err := c.keeper.keep(s); err != nil {
		c.Log.Error(nil, "state not kept", keyProblem, err.Error())
	}
}

// act carries out a plan's steps, or says them in a dry run, and gives those that are still to do.
func (c *Controller) act(ctx context.Context, plan model.Plan) (pending []model.Step) {
	now := time.Now()
	same := shape(plan) == c.acted
	switch {
	case len(plan.Steps) == 0:
		c.failures = nil
		return nil
	case c.DryRun:
		c.nextRead, c.heldUntil = now.Add(c.ReadEvery), now.Add(c.ReadEvery)
		if !same {
			for _, s := range plan.Steps {
				c.Log.Info("would do", keyStep, s.Kind(), keyText, s.Text(), keyReason, s.Why().Text)
			}
		}
		return plan.Steps
	case same && now.Before(c.heldUntil):
		return plan.Steps
	case c.Observer.silent:
		c.nextRead = now
		return plan.Steps
	}
	result := Apply(ctx, c.Observer, plan.Steps, c.Log)
	c.account(result, same)
	return result.Pending
}

// account keeps what became of the steps. Steps that fail again are tried less and less often, until the plan changes.
func (c *Controller) account(r Result, same bool) {
	now := time.Now()
	c.steps.add(r)
	for _, step := range r.Done {
		c.stepsDone++
		c.lastStep = &StepDone{At: now, Kind: step.Kind(), Text: step.Text()}
	}
	for _, f := range r.Failures {
		if !slices.Contains(c.failures, f) {
			c.Log.Error(nil, "step failed", keyStep, f.Step, keyCode, f.Class, keyProblem, f.Text)
		}
	}
	c.failures = r.Failures
	if !same {
		c.holdOff.Reset()
	}
	c.nextRead, c.heldUntil = now, now
	if len(r.Failures) > 0 && !r.Changed {
		wait := c.holdOff.NextBackOff()
		c.nextRead, c.heldUntil = now.Add(min(wait, c.ReadEvery)), now.Add(wait)
	}
}

// publish ends a pass, and tells of it.
func (c *Controller) publish(ctx context.Context, who reconcile.Who, plan model.Plan) {
	c.watch(ctx, who)
	s := statusOf(who, plan, c.members.all(), c.conditions.held, c.failures, c.DryRun)
	s.Version, s.Started, s.Looked, s.Read = c.Version, c.started, time.Now(), c.readAt
	s.Looks, s.Steps = c.Observer.looks.status(), append([]StepCount{}, c.steps...)
	s.StepsDone, s.LastStep, s.CrashHint = c.stepsDone, c.lastStep, c.sentinel.status(who, c.DryRun)
	c.Publish(s)
	c.Notify.Status(s.Summary)
}
