package autorejoin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// crashed is a cluster in which pm02 has taken over from this host, pm01, where no server runs.
type crashed struct{ clone model.Clone }

// Read implements the controller's reader of the cluster.
func (c *crashed) Read(context.Context) (model.Cluster, error) {
	cluster := model.Cluster{Quorate: true, DC: "pm02", Clones: []model.Clone{c.clone}, Nodes: []model.Node{
		{Name: "pm01", Online: true, Transient: map[string]string{"fail-count-pgsql#monitor_3000": "INFINITY"}},
		{Name: "pm02", Online: true, Transient: map[string]string{"pgsql-status": "PRI"}, Permanent: map[string]string{"pgsql-data-status": "LATEST"}},
	}}
	return cluster, nil
}

// server is a server that does not run.
type server struct{ controller.Server }

func (server) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerDown}, nil
}
func (server) Asker() (postgres.Asker, error) { return nil, errors.New("it does not run") }
func (server) Close()                         {}

// notified is a service manager.
type notified struct{ status []string }

func (*notified) Ready()               {}
func (*notified) Alive()               {}
func (n *notified) Status(line string) { n.status = append(n.status, line) }
func (*notified) Stopping()            {}

// newAlone makes a host that is to come back, whose tries end as outcome says.
func newAlone(t *testing.T, outcome func(n int) error) (a *AutoRejoin, n *notified, tries *int) {
	t.Helper()
	folder := t.TempDir()
	c := &crashed{model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
		Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02", "pgdata": folder, "tmpdir": folder},
		Meta:       map[string]string{model.MetaAutoRejoin: "rewind"},
		Roles:      map[string]model.Role{"pm01": model.RoleStopped, "pm02": model.RolePromoted},
	}}
	observer := &controller.Observer{
		Node: "pm01", Clusters: c, Connect: func(controller.Target) controller.Server { return server{} },
		AutoRejoin: func() *model.AutoRejoin { return operation.AutoRejoin(folder) },
	}
	n, tries = &notified{}, new(int)
	a = &AutoRejoin{
		Observer: observer, Notify: n, Log: logr.Discard(), Tick: time.Millisecond, Idle: time.Millisecond, Wait: time.Millisecond,
		Engine: &operation.Engine{Folder: folder, Observer: observer, Who: model.AutoRejoinWho},
	}
	a.tries = func(_ context.Context, c reconcile.Comeback) (*model.Returned, error) {
		*tries++
		if r, err := operation.Remembered(folder); err != nil || r.Tries == 0 {
			t.Errorf("it tries before that is on disk: %+v, %v", r, err)
		}
		if c.Act != reconcile.ActRejoin || c.Dearest != model.DearestRewind {
			t.Errorf("it tries to %s, up to %s", c.Act, c.Dearest)
		}
		return &model.Returned{At: time.Now(), By: model.AutoRejoinWho, Way: "rewind", Primary: "pm02"}, outcome(*tries)
	}
	return a, n, tries
}

// until runs a host until its status has some words.
func (n *notified) until(t *testing.T, a *AutoRejoin, words string) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
	defer end()
	for ctx.Err() == nil {
		a.look(ctx)
		if last := n.status[len(n.status)-1]; strings.Contains(last, words) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("it never says %q; last: %s", words, n.status[len(n.status)-1])
}

// Three tries that fail are the last, and each waits longer. It stays so for the next process.
func TestThreeTries(t *testing.T) {
	a, n, tries := newAlone(t, func(n int) error { return fmt.Errorf("the disk is full, %d", n) })
	n.until(t, a, "3 tries in a row have failed; the last one: the disk is full, 3")
	for range 10 {
		a.look(t.Context())
	}
	if *tries != model.MaxTries {
		t.Errorf("it has tried %d times", *tries)
	}
}

// Three returns within an hour are the last, though each of them ended well.
func TestThreeReturns(t *testing.T) {
	a, n, tries := newAlone(t, func(int) error { return nil })
	n.until(t, a, "it has come back 3 times within an hour")
	r, err := operation.Remembered(a.Engine.Folder)
	if *tries != model.MaxReturns || err != nil || r.Tries != 0 || r.Last == nil || r.Last.Way != "rewind" {
		t.Errorf("after %d tries it remembers %+v, %v", *tries, r, err)
	}
}

// What changes nothing is no try: no way that is allowed, a primary that does not answer yet, another host's operation,
// and an end of this process.
func TestNoTry(t *testing.T) {
	for name, outcome := range map[string]error{
		"refused": refused("it needs a copy"), "not looked at": fmt.Errorf("%w: no answer", errLook),
		"a person spoke": fmt.Errorf("look: %w: paused", operation.ErrNotAllowed), "another's": fmt.Errorf("token: %w", operation.ErrOther),
		"a person's here": fmt.Errorf("%w: rejoin", operation.ErrUnderWay),
	} {
		a, _, tries := newAlone(t, func(int) error { return outcome })
		a.look(t.Context())
		r, err := operation.Remembered(a.Engine.Folder)
		if err != nil || *tries != 1 || r.Tries != 0 || r.Problem != outcome.Error() || !r.Next.After(time.Now().Add(-time.Second)) {
			t.Errorf("%s: after %d tries it remembers %+v, %v", name, *tries, r, err)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	a, _, _ := newAlone(t, func(int) error { end(); return context.Canceled })
	a.look(ctx)
	if r, err := operation.Remembered(a.Engine.Folder); err != nil || r.Tries != 0 {
		t.Errorf("after its end it remembers %+v, %v", r, err)
	}
}

// A host that was left alone is looked at again at once if more is allowed.
func TestMoreIsAllowed(t *testing.T) {
	a, _, tries := newAlone(t, func(int) error { return refused("it needs a rewind") })
	for range 3 {
		a.look(t.Context())
	}
	if *tries != 1 {
		t.Fatalf("it has looked closely %d times", *tries)
	}
	a.left.dearest = model.DearestStart // as if less had been allowed then
	a.look(t.Context())
	if *tries != 2 {
		t.Errorf("it has looked closely %d times", *tries)
	}
	a.left.online = "pm01" // as if pm02 had come back since
	a.look(t.Context())
	if *tries != 3 {
		t.Errorf("it has looked closely %d times", *tries)
	}
}

// A host that is left alone again and again waits longer each time, up to an hour.
func TestWaitsLonger(t *testing.T) {
	a, _, tries := newAlone(t, func(int) error { return refused("the cheapest way back is copy") })
	for i, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
		a.look(t.Context())
		for range 3 { // it is not due yet
			a.look(t.Context())
		}
		if got := a.left.wait; got != want*time.Minute || *tries != i+1 {
			t.Errorf("after %d close looks it waits %s", *tries, got)
		}
		r, err := operation.Remembered(a.Engine.Folder)
		if err != nil || !r.Refused {
			t.Fatalf("it remembers %+v, %v", r, err)
		}
		r.Next = time.Now().Add(-time.Second) // as if it had waited
		a.remember(r)
	}
}

// readied notes that the service was reported as ready.
type readied struct {
	notified
	ready bool
}

func (r *readied) Ready() { r.ready = true }

// systemd ends a service that is not ready in time, and the first try may be a copy.
func TestReadyBeforeTheFirstTry(t *testing.T) {
	a, _, _ := newAlone(t, nil)
	r := &readied{}
	a.Notify = r
	ctx, end := context.WithCancel(t.Context())
	tried := false
	a.tries = func(context.Context, reconcile.Comeback) (*model.Returned, error) {
		if tried = true; !r.ready {
			t.Error("it tries before it is ready")
		}
		end()
		return nil, ctx.Err()
	}
	a.Run(ctx)
	if !tried {
		t.Error("it never tries")
	}
}

// A journal is gone on with by its own operation only: a start is no end of a rejoin, and a rejoin none of a start.
func TestOtherJournal(t *testing.T) {
	for name, act := range map[string]func(a *AutoRejoin) (*model.Returned, error){
		"rejoin": func(a *AutoRejoin) (*model.Returned, error) { return a.start(t.Context()) },
		"start":  func(a *AutoRejoin) (*model.Returned, error) { return a.rejoin(t.Context(), model.DearestCopy) },
	} {
		a, _, _ := newAlone(t, nil)
		text := fmt.Sprintf(`{"pgrex_operation": 1, "operation": %q, "who": "pgrex-rejoin", "node": "pm01", "primitive": "pgsql", "plan": {}}`, name)
		if err := os.WriteFile(filepath.Join(a.Engine.Folder, "operation.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := act(a); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "is unfinished") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// streams is a server that streams from the primary.
type streams struct{ server }

func (streams) Observe(context.Context) (model.Instance, error) {
	return model.Instance{
		State: model.ServerUp, Version: 150000, InRecovery: true, Receiver: &model.WALReceiver{Status: "streaming", SlotName: "pgrex_pm01"},
	}, nil
}

func (streams) ObserveUpstream(context.Context, []string) (model.Upstream, error) {
	return model.Upstream{}, errors.New("it is not asked")
}

// What a person has typed since the look that led to a try ends the try before its first step.
func TestAPersonSpeaksMeanwhile(t *testing.T) {
	for paused, want := range map[string]error{"false": nil, "true": operation.ErrNotAllowed} {
		fakes.Tools(t, "never")
		a, _, _ := newAlone(t, nil)
		c := a.Observer.Clusters.(*crashed)
		c.clone.Parameters["replication_slot_name"] = "pgrex"
		c.clone.Roles["pm01"] = model.RoleUnpromoted
		c.clone.Meta[model.MetaPaused] = paused
		a.Observer.Connect = func(controller.Target) controller.Server { return streams{} }
		if err := os.WriteFile(filepath.Join(a.Engine.Folder, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		a.Engine.Report = func(line string) { t.Log(line) }
		if _, err := a.rejoin(t.Context(), model.DearestCopy); !errors.Is(err, want) {
			t.Errorf("paused %s: %v", paused, err)
		}
	}
}

// A process that is killed in a try has tried.
func TestKilledInATry(t *testing.T) {
	a, _, _ := newAlone(t, func(int) error { panic("killed") })
	func() {
		defer func() { _ = recover() }()
		a.look(t.Context())
	}()
	if r, err := operation.Remembered(a.Engine.Folder); err != nil || r.Tries != 1 {
		t.Errorf("it remembers %+v, %v", r, err)
	}
}

// If what was tried cannot be remembered, nothing is tried.
func TestNotRemembered(t *testing.T) {
	a, _, tries := newAlone(t, func(int) error { return nil })
	a.Engine.Folder = "/not/there"
	a.look(t.Context())
	if *tries != 0 {
		t.Error("it tries, and nothing would limit that")
	}
}

// The cheapest way is taken if it is allowed, and only if what it gives up can be named.
func TestChooseWay(t *testing.T) {
	rungs := func(ways ...rejoin.Method) (ladder []rejoin.Rung) {
		for _, way := range ways {
			ladder = append(ladder, rejoin.Rung{Method: way, Possible: true})
		}
		return ladder
	}
	shared := []model.Timeline{{ID: 1}}
	named := rejoin.Return{Timelines: shared}
	named.Local.Timelines, named.Local.End, named.Primary.Flushed = shared, 100, 100
	differs := named
	differs.Differs = true
	for _, test := range []struct {
		found   rejoin.Case
		dearest model.Dearest
		want    rejoin.Method
	}{
		{rejoin.Case{Ladder: rungs("start", "copy")}, model.DearestStart, "start"},
		{rejoin.Case{Ladder: rungs("archive", "copy")}, model.DearestStart, "archive"},
		{rejoin.Case{Ladder: rungs("rewind", "copy")}, model.DearestStart, ""},
		{rejoin.Case{Ladder: rungs("rewind", "copy")}, model.DearestRewind, "rewind"},
		{rejoin.Case{Ladder: rungs("copy"), Return: named}, model.DearestRewind, ""},
		{rejoin.Case{Ladder: rungs("copy"), Return: named}, model.DearestCopy, "copy"},
		{rejoin.Case{Ladder: rungs("copy"), Return: differs}, model.DearestCopy, ""},
		{rejoin.Case{Ladder: rungs("copy")}, model.DearestCopy, ""},
		{rejoin.Case{Ladder: rungs("restored", "copy")}, model.DearestCopy, ""},
		{rejoin.Case{Ladder: []rejoin.Rung{{Method: "copy", Possible: true, OnlyIfAsked: true}}, Return: named}, model.DearestCopy, ""},
	} {
		way, err := chooseWay(&test.found, test.dearest)
		if way != test.want || (way == "") != errors.Is(err, errRefused) {
			t.Errorf("of %v up to %s: %q, %v", test.found.Ladder, test.dearest, way, err)
		}
	}
}

// A look that is refused waits longer each time, until something changes.
func TestWaitsGrow(t *testing.T) {
	same := func(kind kind, why string) leftAlone { return leftAlone{why: why, primary: "pm02", kind: kind} }
	for _, test := range []struct {
		before, now leftAlone
		last, want  time.Duration
	}{
		{leftAlone{}, same(kindRefused, "a"), 0, time.Second},
		{same(kindRefused, "a"), same(kindRefused, "a"), 4 * time.Second, 8 * time.Second},
		{same(kindRefused, "a"), same(kindRefused, "a"), 8 * time.Second, 10 * time.Second},
		{same(kindRefused, "a"), same(kindRefused, "b"), 4 * time.Second, time.Second},
		{same(kindLook, "a"), same(kindLook, "b"), 4 * time.Second, 8 * time.Second},
		{same(kindLook, "a"), same(kindRefused, "a"), 4 * time.Second, time.Second},
		{leftAlone{kind: kindLook, primary: "pm02", online: "pm01"}, same(kindLook, "a"), 4 * time.Second, time.Second},
		{leftAlone{kind: kindLook, primary: "pm03"}, same(kindLook, "a"), 4 * time.Second, time.Second},
	} {
		test.before.wait = test.last
		if got := test.now.again(test.before, time.Second, 10*time.Second); got != test.want {
			t.Errorf("%+v after %+v: %s", test.now, test.before, got)
		}
	}
	a, _, tries := newAlone(t, func(int) error { return fmt.Errorf("%w: no answer", errLook) })
	a.Wait = looksAgain * time.Millisecond
	for *tries < 4 {
		a.look(t.Context())
	}
	if a.left.wait != 8*time.Millisecond {
		t.Errorf("after %d looks it waits %s", *tries, a.left.wait)
	}
}

// In an outage a refused start is looked at again soon.
func TestRefusedStart(t *testing.T) {
	a, _, _ := newAlone(t, nil)
	a.tries = func(context.Context, reconcile.Comeback) (*model.Returned, error) {
		return nil, refused("pm02 is away")
	}
	a.Wait = time.Minute
	for range 5 {
		a.act(t.Context(), reconcile.Comeback{Act: reconcile.ActStart}, leftAlone{})
	}
	if r, err := operation.Remembered(a.Engine.Folder); err != nil || a.left.wait != startMost || time.Until(r.Next) > startMost {
		t.Errorf("it waits %s: %+v, %v", a.left.wait, r, err)
	}
}

// A database that is stopped for weeks is looked at with each tick only in the beginning.
func TestFastOnlyAtFirst(t *testing.T) {
	a, _, _ := newAlone(t, nil)
	runs, now := true, time.Now()
	a.running = func() bool { return runs }
	next := now.Add(time.Hour)
	if a.due(now, next) {
		t.Error("it looks though the server runs")
	}
	runs = false
	for after, want := range map[time.Duration]bool{0: true, fast / 2: true, fast + time.Second: false, time.Hour: true} {
		a.ran, a.hasty = after == 0, now.Add(fast)
		if got := a.due(now.Add(after), next); got != want {
			t.Errorf("after %s: %t", after, got)
		}
	}
	a.hasty = time.Time{}
	a.say("left alone", "a new reason")
	if !a.due(time.Now(), next) {
		t.Error("it does not look again soon after a new reason")
	}
}

// What cannot be remembered is said once, and not looked at with each tick.
func TestNotRememberedOnce(t *testing.T) {
	a, n, _ := newAlone(t, func(int) error { return nil })
	var lines []string
	a.Log = funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
	a.Engine.Folder, a.Idle = "/not/there", time.Hour
	for range 3 {
		next := a.look(t.Context())
		a.running = func() bool { return false }
		if time.Until(next) < time.Minute || a.due(time.Now(), next) {
			t.Error("it looks again at once")
		}
	}
	if len(lines) != 1 || !strings.Contains(n.status[len(n.status)-1], "left alone: keep what is remembered") {
		t.Errorf("it logs %s, and says %s", lines, n.status)
	}
}

// A host that is back after failed tries has returned, and what they have given up stays known.
func TestSettledIsAReturn(t *testing.T) {
	a, _, _ := newAlone(t, nil)
	given := &model.GivenUp{Folder: "/kept/here"}
	a.remember(model.AutoRejoin{Tries: 2, Problem: "it does not stream", Last: &model.Returned{Way: "copy", GivenUp: given}})
	a.settled(reconcile.Who{Standing: model.Primary, Primary: "pm01"})
	r, err := operation.Remembered(a.Engine.Folder)
	if err != nil || r.Tries != 0 || len(r.Returns) != 1 || r.Last.GivenUp == nil || *r.Last.GivenUp != *given || r.Last.Primary != "pm01" {
		t.Errorf("it remembers %+v, %v", r, err)
	}
}

// What a try has given up is remembered, whatever its end is, and named by the return after it.
func TestGivenUpStays(t *testing.T) {
	var a *AutoRejoin
	a, _, _ = newAlone(t, func(n int) error {
		if n == 1 {
			a.gaveUp = &model.GivenUp{Folder: "/kept/here"}
			return errors.New("it does not stream")
		}
		return nil
	})
	a.look(t.Context())
	if r, err := operation.Remembered(a.Engine.Folder); err != nil || r.Tries != 1 || r.GivenUp == nil || r.GivenUp.Folder != "/kept/here" {
		t.Fatalf("it remembers %+v, %v", r, err)
	}
	a.act(t.Context(), reconcile.Comeback{Act: reconcile.ActRejoin, Dearest: model.DearestRewind}, leftAlone{primary: "pm02"})
	r, err := operation.Remembered(a.Engine.Folder)
	if err != nil || r.Last == nil || r.GivenUp != nil || r.Last.GivenUp == nil || r.Last.GivenUp.Folder != "/kept/here" {
		t.Errorf("it remembers %+v, %v", r, err)
	}
}

// How far something is goes to the status, not into the log.
func TestProgressIsStatus(t *testing.T) {
	a, n, _ := newAlone(t, nil)
	a.Engine.Report = func(line string) { t.Errorf("it reports %s", line) }
	a.way(nil).Redraw("   [###...] 50%")
	if got := n.status; len(got) != 1 || got[0] != "[###...] 50%" {
		t.Errorf("its status is %s", got)
	}
}

// systemd leaves pg_rewind the time that it may take to its end, and signals only the first part.
func TestUnitOutlastsRewind(t *testing.T) {
	for _, name := range []string{"pgrex-rejoin.service", "pgrex-rejoin@.service"} {
		unit, err := os.ReadFile("../../../hack/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var seconds int
		_, stop, _ := strings.Cut(string(unit), "\nTimeoutStopSec=")
		if _, err := fmt.Sscanf(stop, "%d\n", &seconds); err != nil || time.Duration(seconds)*time.Second < rewindOutlasts+3*time.Minute {
			t.Errorf("%s leaves %d seconds, %v", name, seconds, err)
		}
		if !strings.Contains(string(unit), "\nKillMode=mixed\n") {
			t.Errorf("%s signals pg_rewind", name)
		}
	}
}
