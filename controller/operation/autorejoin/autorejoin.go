package autorejoin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/operation/service"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Keys of structured log lines.
const (
	keyAct     = "act"
	keyGivenUp = "givenUp"
	keyProblem = "problem"
	keyTries   = "tries"
	keyWay     = "way"
	keyWhy     = "why"
)

// fast is how long the cluster is looked at with each Tick after the server here has ended, or after the reason has
// changed for which this host is left alone. A database may be stopped for weeks.
const fast = 2 * time.Minute

// AutoRejoin brings this host back without a person.
type AutoRejoin struct {
	Observer *controller.Observer // of this host
	Engine   *operation.Engine
	Notify   controller.Notifier
	Log      logr.Logger
	// Tick is how often the local server is looked for, and for a while the cluster (fast). Idle is how often
	// the cluster is looked at, at least. Wait is how long the first failed try has to be ago.
	Tick, Idle, Wait time.Duration

	said    string         // what was logged last
	hasty   time.Time      // until then the cluster is looked at with each Tick while no server runs here
	ran     bool           // a server ran at the last Tick
	gaveUp  *model.GivenUp // by the try that has ended last
	left    leftAlone      // after a close look; zero if the last one led to a try
	running func() bool    // reports whether a server runs here; nil before that is known
	// tries is what act does; nil but in tests.
	tries func(ctx context.Context, c reconcile.Comeback) (*model.Returned, error)
}

// Run looks and acts until ctx ends.
func (a *AutoRejoin) Run(ctx context.Context) {
	a.Observer.Ended, a.Observer.Patient = a.Notify.Alive, true
	defer a.Observer.Close()
	defer a.Notify.Stopping()
	tick := time.NewTicker(a.Tick)
	defer tick.Stop()
	a.Notify.Ready() // now: the first look may be followed by a copy, which outlasts any start timeout of systemd's
	next := a.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.Notify.Alive()
		if a.due(time.Now(), next) {
			next = a.look(ctx)
		}
	}
}

// due reports whether the cluster is to be looked at now.
func (a *AutoRejoin) due(now, next time.Time) bool {
	runs := a.serverRuns()
	if a.ran && !runs {
		a.hasty = now.Add(fast)
	}
	a.ran = runs
	return !now.Before(next) || !runs && now.Before(a.hasty)
}

// serverRuns reports whether a server runs here, without asking it. If that is not known, it does.
func (a *AutoRejoin) serverRuns() bool { return a.running == nil || a.running() }

// watchServer notes where the server is that is looked for.
func (a *AutoRejoin) watchServer(who reconcile.Who) {
	a.running = nil
	if place, err := datadir.Of(who.Clone); err == nil && who.Policy.AutoRejoin != model.DearestNone {
		a.running = place.Runs
	}
}

// look looks once, and does what is to be done. It returns when to look again if nothing is hasty.
func (a *AutoRejoin) look(ctx context.Context) (next time.Time) {
	who, err := a.Observer.Full(ctx)
	if ctx.Err() != nil {
		return time.Time{}
	}
	if err != nil {
		a.say("left alone", err.Error())
		return time.Now().Add(a.Idle)
	}
	a.watchServer(who)
	now := time.Now()
	comeback := who.Comeback(now)
	if !comeback.Again.IsZero() && a.left.kind != kindTry && a.left.changed(leftNow(who, comeback)) {
		comeback = who.Comeback(comeback.Again) // what it was left alone for has changed
	}
	switch {
	case !comeback.Again.IsZero(): // why was logged before
		a.Notify.Status("left alone: " + comeback.Why)
		if idle := now.Add(a.Idle); idle.Before(comeback.Again) {
			return idle
		}
		return comeback.Again
	case comeback.Act == reconcile.ActNothing:
		a.settled(who)
		a.say("left alone", comeback.Why)
		return now.Add(a.Idle)
	}
	return a.act(ctx, comeback, leftNow(who, comeback))
}

// say logs what is done, or why nothing is, whenever that changes.
func (a *AutoRejoin) say(what, why string) {
	line := what + ": " + why
	if line != a.said {
		a.said, a.hasty = line, time.Now().Add(fast)
		a.Log.Info(what, keyWhy, why)
	}
	a.Notify.Status(line)
}

// settled forgets failed tries once the host is back without them. That is a return, too: a host that always comes back
// after a try that failed flaps as well.
func (a *AutoRejoin) settled(who reconcile.Who) {
	remembered, err := operation.Remembered(a.Engine.Folder)
	back := who.Standing == model.Primary || who.Standing == model.Standby && who.Instance.Receiver.Streaming()
	if err != nil || !back || remembered.Tries == 0 && remembered.Problem == "" {
		return
	}
	if remembered.Tries > 0 {
		returned := model.Returned{At: time.Now().UTC(), By: a.Engine.Who, Primary: who.Primary, GivenUp: remembered.GivenUp}
		if last := remembered.Last; last != nil && returned.GivenUp == nil {
			returned.GivenUp = last.GivenUp
		}
		a.remember(remembered.Succeeded(returned))
		return
	}
	remembered.Next, remembered.Problem, remembered.Refused = time.Time{}, "", false
	a.remember(remembered)
}

func (a *AutoRejoin) remember(r model.AutoRejoin) {
	if err := operation.Remember(a.Engine.Folder, r); err != nil {
		a.Log.Error(nil, "not remembered", keyProblem, err.Error())
	}
}

// act tries to bring this host back. That it tries is on disk before it begins: a host that dies of the try does not
// try for ever. act returns when to look again.
func (a *AutoRejoin) act(ctx context.Context, c reconcile.Comeback, now leftAlone) time.Time {
	before, err := operation.Remembered(a.Engine.Folder)
	tried := before.Tried(time.Now(), a.Wait)
	tried.Problem = "it did not come to its end"
	if err == nil {
		err = operation.Remember(a.Engine.Folder, tried)
	}
	if err != nil { // then nothing would limit the tries
		a.say("left alone", err.Error())
		a.hasty = time.Time{}
		return time.Now().Add(a.Idle)
	}
	a.say("to do: "+string(c.Act), c.Why)
	a.gaveUp = nil
	returned, err := a.try(ctx, c)
	if a.gaveUp != nil { // whatever the end is
		before.GivenUp, tried.GivenUp = a.gaveUp, a.gaveUp
	}
	kind, first, most := a.patience(c.Act, err)
	now.why, now.kind = fmt.Sprint(err), kind
	switch {
	case err == nil:
		a.remember(before.Succeeded(*returned))
		a.Log.Info("back", keyWay, returned.Way, keyGivenUp, returned.GivenUp)
	case kind != kindTry:
		a.leave(before, now, first, most)
		return time.Now()
	case ctx.Err() != nil: // systemd stops this process: that is nobody's fault, and the next one goes on
		before.Problem, before.Refused = err.Error(), false
		a.remember(before)
	default:
		tried.Problem = err.Error()
		a.remember(tried)
		a.Log.Error(nil, "try failed", keyAct, c.Act, keyTries, tried.Tries, keyProblem, err.Error())
	}
	a.left = leftAlone{}
	return time.Now()
}

// try does one act. Meanwhile the watchdog is fed: each wait of an operation has a deadline of its own, but a copy may
// take hours.
func (a *AutoRejoin) try(ctx context.Context, c reconcile.Comeback) (*model.Returned, error) {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		tick := time.NewTicker(a.Tick)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				a.Notify.Alive()
			}
		}
	}()
	if a.tries != nil {
		return a.tries(ctx, c)
	}
	if c.Act == reconcile.ActStart {
		return a.start(ctx)
	}
	return a.rejoin(ctx, c.Dearest)
}

// start makes this host the primary, as pgrex start does without --force.
func (a *AutoRejoin) start(ctx context.Context) (*model.Returned, error) {
	left, err := operation.LoadJournal(a.Engine.Folder)
	if err != nil {
		return nil, err
	}
	if left != nil && left.Operation != service.Start { // the host that it was to follow is gone
		return nil, refused("%s is unfinished, and there is no primary: type sudo pgrex operation show", left.What())
	}
	goesOn := func(j *operation.Journal) bool { return left != nil && j.Token == left.Token }
	if err := a.Engine.Ready(ctx, goesOn); err != nil {
		return nil, err
	}
	s := &service.Service{Observer: a.Observer, Left: left, Report: a.Engine.Report}
	job, err := s.Start(ctx, false)
	if err != nil {
		return nil, refused("%w", err)
	}
	for _, line := range job.Says {
		a.Engine.Report(line)
	}
	job.Continues, job.Steps = goesOn, operation.Alone(a.Observer, job.Steps, string(model.DearestStart), left != nil)
	if len(job.Steps) == 0 {
		err = a.Engine.EndLeft(ctx, goesOn)
	} else {
		err = a.Engine.Do(ctx, job)
	}
	if err != nil {
		return nil, err
	}
	returned := s.Returned(ctx, job, a.Engine.Who)
	return &returned, nil
}

// rejoin follows the primary, as pgrex rejoin does, by no dearer way than is allowed.
func (a *AutoRejoin) rejoin(ctx context.Context, dearest model.Dearest) (*model.Returned, error) {
	left, err := operation.LoadJournal(a.Engine.Folder)
	if err != nil {
		return nil, err
	}
	if left != nil && left.Operation == service.Start { // another host has become the primary since
		return nil, refused("%s is unfinished, and there is a primary now: type sudo pgrex operation show", left.What())
	}
	if err := a.Engine.Ready(ctx, rejoin.Continues); err != nil {
		return nil, err
	}
	r := a.way(left)
	found, err := r.Look(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLook, err)
	}
	way, err := chooseWay(found, dearest)
	if err != nil {
		return nil, err
	}
	returned, err := a.by(ctx, r, found, way)
	if errors.Is(err, rejoin.ErrNoRewind) && dearest.Allows(string(model.DearestCopy)) {
		a.Engine.Report(err.Error())
		if _, no := found.Choose(string(rejoin.MethodCopy)); no == nil {
			return a.by(ctx, r, found, rejoin.MethodCopy)
		}
	}
	return returned, err
}

// rewindOutlasts is how much longer pg_rewind may run once systemd stops this process: data that are half rewound need a
// copy. TimeoutStopSec of pgrex-rejoin.service leaves time for it.
const rewindOutlasts = 5 * time.Minute

// way makes the rejoin. How far something is goes to the status only: a copy may take hours.
func (a *AutoRejoin) way(left *operation.Journal) *rejoin.Rejoin {
	return &rejoin.Rejoin{
		Observer: a.Observer, Left: left, Archive: true, Report: a.Engine.Report, StateDir: a.Engine.Folder,
		Redraw: func(line string) { a.Notify.Status(strings.TrimSpace(line)) }, Outlasts: rewindOutlasts,
	}
}

// by takes one way back.
func (a *AutoRejoin) by(ctx context.Context, r *rejoin.Rejoin, found *rejoin.Case, way rejoin.Method) (*model.Returned, error) {
	var says []string
	var err error
	if !found.Streams {
		if says, err = found.Says(ctx, way); err != nil {
			return nil, err
		}
	}
	job, err := r.Job(ctx, found, way, "auto")
	if err != nil {
		return nil, err
	}
	if way == rejoin.MethodRewind || way == rejoin.MethodCopy {
		if err := kept(found); err != nil {
			return nil, err
		}
	}
	job.Steps = operation.Alone(a.Observer, job.Steps, allowedAs(way), r.Left != nil)
	for _, line := range append(says, job.Says...) {
		a.Engine.Report(line)
	}
	err = a.Engine.Do(ctx, job)
	a.gaveUp = rejoin.GaveUp(job)
	if err != nil {
		return nil, err
	}
	returned := rejoin.ReturnedBy(job, found.Primary, a.Engine.Who)
	return &returned, nil
}

// kept returns an error if nothing would be kept of the WAL that only this host has.
func kept(found *rejoin.Case) error {
	short, err := found.NotKept()
	if err != nil {
		return err
	}
	if short != "" {
		return refused("nothing of the WAL that only this host has would be kept: %s: type sudo pgrex rejoin", short)
	}
	return nil
}

// chooseWay picks the cheapest way back, if it is allowed. Nobody gives up without a person what nobody can name.
func chooseWay(found *rejoin.Case, dearest model.Dearest) (rejoin.Method, error) {
	if found.Streams {
		return "", nil // what was left is removed
	}
	rung, err := found.Choose("auto")
	if err != nil {
		return "", refused("no way back is possible without a person: %s", reasons(found.Ladder))
	}
	switch unknown := found.Return.Unnamed(); {
	case rung.Method == rejoin.MethodRestored:
		return "", refused("the data here were restored from a backup: type sudo pgrex rejoin")
	case !dearest.Allows(allowedAs(rung.Method)):
		return "", refused("the cheapest way back is %s, and %s is %s: type sudo pgrex rejoin", rung.Method, model.MetaAutoRejoin, dearest)
	case rung.Method == rejoin.MethodCopy && unknown != "":
		return "", refused("%s, so that nobody can say what a copy gives up: type sudo pgrex rejoin", unknown)
	}
	return rung.Method, nil
}

// allowedAs is the value of pgrex-auto-rejoin that allows a way; "" stands for what removes what was left.
func allowedAs(way rejoin.Method) string {
	if way == rejoin.MethodArchive || way == "" { // the data as they are
		way = rejoin.MethodStart
	}
	return string(way)
}

// reasons are why each way is impossible.
func reasons(ladder []rejoin.Rung) string {
	var texts []string
	for _, rung := range ladder {
		texts = append(texts, string(rung.Method)+": "+rung.Why)
	}
	return strings.Join(texts, "; ")
}
