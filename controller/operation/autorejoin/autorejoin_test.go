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
