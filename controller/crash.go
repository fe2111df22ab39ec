package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// hintScore is the promotion score of a host whose primary has crashed.
const hintScore = "-INFINITY"

// hintLooks is how often the cluster and the data folder are looked at after the end of a postmaster, if a look takes too
// long or fails, and hintPause is the time between two of them: a control file may be read while it is written.
const (
	hintLooks = 3
	hintPause = 100 * time.Millisecond
)

// sentinel holds the local postmaster while the policy wants a crash hint, and keeps what became of the last one's end.
type sentinel struct {
	server  Server              // whose postmaster is held
	held    postgres.Postmaster // nil: none
	ended   chan postmasterEnded
	problem string // why none is held
	given   uint64 // hints, since the daemon's start
	last    *model.CrashHint
	running sync.WaitGroup
}

// postmasterEnded reports that a postmaster has ended, or why pgrex cannot tell.
type postmasterEnded struct {
	held postgres.Postmaster
	err  error
}

func newSentinel() *sentinel { return &sentinel{ended: make(chan postmasterEnded)} }

// letGo holds no postmaster any more.
func (s *sentinel) letGo() {
	if s.held != nil {
		s.held.Close()
		s.held = nil
	}
}

// watch holds the local postmaster, whatever the host's role is: a standby may be promoted. Nothing of the cluster is
// known for a moment when the CIB cannot be read; then what is held stays.
func (c *Controller) watch(ctx context.Context, who reconcile.Who) {
	s, server := c.sentinel, c.Observer.Server()
	if who.Cluster == nil {
		return
	}
	if !who.Policy.CrashHint || s.server != server {
		s.letGo()
		s.server, s.problem = server, ""
	}
	if !who.Policy.CrashHint || s.held != nil || server == nil || !mayRun(who.Instance) {
		return
	}
	held, err := server.Postmaster(ctx, who.Clone.DataFolder())
	c.Observer.ended()
	if err != nil {
		if problem := err.Error(); problem != s.problem && who.Instance.State == model.ServerUp { // or it may not be ready yet
			s.problem = problem
			c.Log.Error(nil, "the postmaster is not watched", keyProblem, problem)
		}
		return
	}
	s.held, s.problem = held, ""
	c.Log.V(1).Info("the postmaster is watched", keyPID, held.PID())
	s.running.Go(func() {
		ended := postmasterEnded{held, held.Wait()}
		select {
		case s.ended <- ended:
		case <-ctx.Done():
		}
	})
}

// mayRun reports whether there may be a postmaster: one that does not answer, or starts, can be held, too.
func mayRun(instance model.Instance) bool {
	return instance.State != "" && instance.State != model.ServerDown
}

// crashed gives a hint, once, if the postmaster that has ended was the primary's and has crashed. A dry run says that it
// would. It reports whether a postmaster is known to have ended, so that it is worth looking what is there now.
func (c *Controller) crashed(ctx context.Context, ended postmasterEnded) bool {
	s := c.sentinel
	if ended.held != s.held {
		return false // it was let go
	}
	defer s.letGo()
	if ended.err != nil {
		s.problem = ended.err.Error()
		c.Log.Error(nil, "the postmaster is not watched", keyProblem, s.problem)
		return false
	}
	hint := &model.CrashHint{At: time.Now(), PID: ended.held.PID()}
	who, verdict := c.judgeEnd(ctx, ended.held)
	switch {
	case ctx.Err() != nil:
		return false
	case !verdict.OK:
		hint.Why = verdict.Why
		c.Log.Info("the postmaster has ended: no crash hint", keyPID, hint.PID, keyReason, verdict.Why)
	case c.DryRun:
		hint.Why = dryRun
		c.Log.Info("would do", keyStep, "crash hint", keyPID, hint.PID)
	default:
		c.giveHint(ctx, who, hint)
	}
	s.last = hint
	return true
}

// judgeEnd looks at the end of a postmaster and at the cluster, at the same time, and decides. A look that takes too long
// or fails is done again.
func (c *Controller) judgeEnd(ctx context.Context, ended postgres.Postmaster) (who reconcile.Who, v reconcile.Verdict) {
	for look := range hintLooks {
		if look > 0 {
			select {
			case <-time.After(hintPause):
			case <-ctx.Done():
			}
		}
		began := time.Now()
		looking, cancel := context.WithTimeout(ctx, reconcile.HintFresh)
		ends := make(chan model.PostmasterEnd, 1)
		go func() { ends <- ended.End() }()
		var err error
		who, err = c.Observer.Glance(looking)
		crash := reconcile.Crash{End: model.PostmasterEnd{PID: ended.PID(), Problem: "the file system does not answer"}}
		select {
		case crash.End = <-ends:
		case <-looking.Done():
			select { // it may have come all the same
			case crash.End = <-ends:
			default:
			}
		}
		cancel()
		if crash.Age = time.Since(began); err != nil {
			v = reconcile.Verdict{Why: "the cluster is not known: " + err.Error()}
		} else {
			v = who.Hint(crash)
		}
		if v.OK || err == nil && crash.Age <= reconcile.HintFresh && crash.End.Problem == "" {
			break
		}
	}
	return who, v
}

// giveHint lowers this host's promotion score. Pacemaker's agent sets it again.
func (c *Controller) giveHint(ctx context.Context, who reconcile.Who, hint *model.CrashHint) {
	name := reconcile.PromotionScore(who.Clone)
	err := c.Observer.Attributes.SetAttribute(context.WithoutCancel(ctx), who.Here.Name, name, hintScore)
	c.Observer.ended()
	if err != nil {
		hint.Failed, hint.Why = true, err.Error()
		if errors.Is(err, cib.ErrTimeout) {
			hint.Failed, hint.Unanswered, hint.Why = false, true, "Pacemaker has not answered; it may still take the hint"
		}
		c.Log.Error(nil, "crash hint not given", keyPID, hint.PID, keyProblem, hint.Why)
		return
	}
	hint.Given = true
	c.sentinel.given++
	c.Log.Info("crash hint given", keyPID, hint.PID, keyText, name+"="+hintScore)
}

// CrashHintStatus is whether a crash of PostgreSQL on this host would be told to Pacemaker at once, and what became of the
// last one's end.
type CrashHintStatus struct {
	Enabled    bool   `json:"enabled"`    // pgrex-crash-hint
	Postmaster int32  `json:"postmaster"` // the process that is watched; 0: none
	Problem    string `json:"problem"`    // why none is, if one should be
	Would      bool   `json:"would"`      // a crash now would be told
	Why        string `json:"why"`        // why it would not; "" where it would
	Given      uint64 `json:"given"`      // hints since the daemon's start
	// Last is the end of a postmaster that was noticed last since the daemon's start; null before the first.
	Last *model.CrashHint `json:"last"`
}

// dryRun is why a daemon that only says what it would do tells nobody.
const dryRun = "this is a dry run"

func (s *sentinel) status(who reconcile.Who, dry bool) CrashHintStatus {
	now := who.HintNow()
	status := CrashHintStatus{
		Enabled: who.Cluster != nil && who.Policy.CrashHint, Would: now.OK, Why: now.Why, Given: s.given, Last: s.last, Problem: s.problem,
	}
	switch {
	case s.held != nil:
		status.Postmaster = s.held.PID()
	case now.OK:
		status.Would, status.Why = false, "no postmaster is watched"
	}
	if status.Would && dry {
		status.Would, status.Why = false, dryRun
	}
	return status
}
