package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// world is pm01, whose CIB is in a file, and on which this test does what Pacemaker and its agent would do.
type world struct {
	*fakes.CIB
	t      *testing.T
	state  string
	server *pgserver.Server // real, nil where none is needed
	runs   bool
	// was is what pgrex has kept of the server as the primary.
	was *controller.LastPrimary
	// had is what pgrex has kept of it as a standby.
	had *controller.LastStandby
	// waits has Pacemaker do nothing, and holds has it start the database, and not promote it.
	waits, holds bool
}

// newWorld makes one without a server, in which Pacemaker does nothing.
func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{CIB: fakes.NewCIB(t, "../../.."), t: t, state: t.TempDir() + "/state", waits: true}
}

// newServed makes one with a server that runs. pm02 is stopped.
func newServed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.server, w.runs, w.waits = pgserver.New(t), true, false
	w.Data = filepath.Join(w.server.Dir, "data")
	version := filepath.Join(w.Data, "PG_VERSION") // whose owner pgrex has to be
	w.must(errors.Join(os.Chown(version, os.Geteuid(), os.Getegid()), os.Chmod(version, 0o644)))
	flushed, err := model.ParseLSN(w.server.SQL("SELECT pg_current_wal_flush_lsn()"))
	w.must(err)
	w.was = &controller.LastPrimary{
		At: time.Now(), System: w.server.SQL("SELECT system_identifier FROM pg_control_system()"), Timeline: 1, Flushed: flushed,
	}
	w.had = &controller.LastStandby{At: w.was.At, System: w.was.System, Timeline: w.was.Timeline, Replayed: w.was.Flushed}
	w.Run(cib.SetParameter("pgsql", "pgdata", w.Data))
	w.Run(cib.SetParameter("pgsql", "pgctl", filepath.Join(fakes.Programs(t, w.server), "pg_ctl")))
	w.Primary()
	w.Did("pm02", "stop")
	w.Run(cib.SetAttribute("pm02", "pgsql-status", "STOP"))
	w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "DISCONNECT"))
	return w
}

// has makes data without a server. They have WAL of these timelines, and their last checkpoint was on the first one.
func (w *world) has(timelines ...int) {
	w.t.Helper()
	wal := filepath.Join(w.Data, "pg_wal")
	w.must(errors.Join(os.RemoveAll(wal), os.Mkdir(wal, 0o700), os.WriteFile(filepath.Join(w.Bin, "pg_controldata"),
		fmt.Appendf(nil, "#!/bin/sh\necho \"Latest checkpoint's TimeLineID: %d\"\n", timelines[0]), 0o700)))
	for i, id := range timelines {
		w.must(os.WriteFile(filepath.Join(wal, fmt.Sprintf("%08X0000000000000001", id)), nil, 0o600))
		if i > 0 {
			w.must(os.WriteFile(filepath.Join(wal, fmt.Sprintf("%08X.history", id)), fmt.Appendf(nil, "%d\t0/1000100\tno recovery target\n", timelines[i-1]), 0o600))
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Read implements the controller's reader of the cluster. Whatever Pacemaker has to do is done by then.
func (w *world) Read(ctx context.Context) (model.Cluster, error) {
	cluster, err := new(cib.Client).Read(ctx)
	if err != nil || w.waits {
		return cluster, err
	}
	node, _ := cluster.Node("pm01")
	role, _ := cluster.Clones[0].Role("pm01")
	_, locked := os.Stat(w.lock())
	latest := node.Permanent["pgsql-data-status"] == "LATEST" && !w.holds
	away := node.Standby || cluster.Clones[0].KeptStopped("pm01")
	switch {
	case away && role != model.RoleStopped:
		w.run(false)
		w.Did("pm01", "stop")
		w.Run(cib.SetAttribute("pm01", "pgsql-status", "STOP"))
	case !away && role == model.RoleStopped && locked != nil && !latest:
		w.run(true)
		w.Did("pm01", "start")
		w.Run(cib.SetAttribute("pm01", "pgsql-status", "HS:alone"))
	case !away && role != model.RolePromoted && locked != nil && latest:
		w.run(true)
		w.Did("pm01", "promote")
		w.Run(cib.SetAttribute("pm01", "pgsql-status", "PRI"))
	default:
		return cluster, nil
	}
	return new(cib.Client).Read(ctx)
}

// run has the server run, or not.
func (w *world) run(runs bool) {
	switch {
	case runs && !w.runs:
		w.server.Start()
	case !runs && w.runs:
		w.server.Stop("fast")
	}
	w.runs = runs
}

func (w *world) lock() string { return filepath.Join(w.Tmp, "PGSQL.lock") }

// down is a server that is stopped.
type down struct{ controller.Server }

// Observe implements the controller's server.
func (down) Observe(context.Context) (model.Instance, error) {
	return model.Instance{State: model.ServerDown}, nil
}

// service is one of a new process.
func (w *world) service(left *operation.Journal) *Service {
	o := &controller.Observer{Node: "pm01", Clusters: w, Connect: func(controller.Target) controller.Server { return down{} }}
	o.Kept.Primary, o.Kept.Standby = w.was, w.had
	if w.server != nil {
		o.Override = controller.Target{SocketDir: w.server.Dir, Port: w.server.Port}
		o.Connect = func(t controller.Target) controller.Server {
			return postgres.NewServer(postgres.Config{DataDir: t.DataDir, SocketDir: t.SocketDir, Port: t.Port, User: t.User, Database: t.Database})
		}
		w.t.Cleanup(func() { o.Close() })
	}
	conf := filepath.Join(w.t.TempDir(), "corosync.conf")
	w.must(os.WriteFile(conf, []byte("quorum {\n\tprovider: corosync_votequorum\n}\n"), 0o600))
	return &Service{Observer: o, Left: left, CorosyncConf: conf}
}

func (w *world) engine(s *Service) *operation.Engine {
	e := fakes.Engine(w.t, s.Observer)
	e.Folder = w.state
	return e
}

// planning is how an operation is planned.
type planning func(*Service) (operation.Job, error)

func stops(t *testing.T, force bool) planning {
	return func(s *Service) (operation.Job, error) {
		return s.Stop(t.Context(), s.Observer.Override.Port != 0, force)
	}
}

func starts(t *testing.T, force bool) planning {
	return func(s *Service) (operation.Job, error) { return s.Start(t.Context(), force) }
}

func (w *world) kill(plan planning, id string, at fakes.Point) {
	w.t.Helper()
	s := w.service(nil)
	job, err := plan(s)
	w.must(err)
	fakes.Killed(w.t, w.engine(s), job, id, at)
}

func (w *world) journal() *operation.Journal {
	w.t.Helper()
	j, err := operation.LoadJournal(w.state)
	w.must(err)
	if j == nil {
		w.t.Fatal("no journal is left")
	}
	return j
}

// finish plans an operation that was left once more, and goes on with it.
func (w *world) finish(plan planning) error {
	w.t.Helper()
	s := w.service(w.journal())
	job, err := plan(s)
	w.must(err)
	if len(job.Steps) > 0 {
		return w.engine(s).Do(w.t.Context(), job)
	}
	return w.engine(s).EndLeft(w.t.Context(), func(j *operation.Journal) bool { return j.Token == s.Left.Token })
}

func (w *world) undo() error {
	w.t.Helper()
	s := w.service(nil)
	j := w.journal()
	job, err := s.Resume(w.t.Context(), j)
	w.must(err)
	return w.engine(s).Undo(w.t.Context(), j, job)
}

// moment is all that a kill leaves.
type moment struct {
	cluster, state, tmp map[string][]byte
	runs                bool
}

func (w *world) kept() moment {
	w.t.Helper()
	return moment{w.Kept(), fakes.Files(w.t, w.state), fakes.Files(w.t, w.Tmp), w.runs}
}

func (w *world) set(m moment) {
	w.t.Helper()
	w.holds = false
	w.run(m.runs)
	w.Set(m.cluster)
	fakes.SetFiles(w.t, w.state, m.state)
	fakes.SetFiles(w.t, w.Tmp, m.tmp)
}

// part has a part of the test begin at a moment.
func (w *world) part(t *testing.T, m moment) {
	t.Helper()
	w.t = t
	w.For(t)
	w.set(m)
}

// now is the cluster, when Pacemaker has done what there was to do.
func (w *world) now() model.Cluster {
	w.t.Helper()
	cluster, err := w.Read(w.t.Context())
	w.must(err)
	cluster.Version = model.Version{}
	return cluster
}

// keeps reports whether pgrex keeps the database stopped here.
func (w *world) keeps() bool { return w.now().Clones[0].KeptStopped("pm01") }

// wantEnd wants the cluster to be so, the lock to be there or not, and no journal.
func (w *world) wantEnd(how string, cluster model.Cluster, locked bool) {
	w.t.Helper()
	if diff := cmp.Diff(cluster, w.now()); diff != "" {
		w.t.Errorf("%s, the cluster is (-wanted +there):\n%s", how, diff)
	}
	if _, err := os.Stat(w.lock()); (err == nil) != locked {
		w.t.Errorf("%s, the lock: %v", how, err)
	}
	if left := operation.Left(w.state); !left.None() {
		w.t.Errorf("%s, a journal is there: %+v", how, left)
	}
}

// The last host's database is stopped, killed on the way: it is finished, or from the same point undone, and runs
// again.
func TestStopKilled(t *testing.T) {
	w := newServed(t)
	running, begin := w.now(), w.kept()
	s := w.service(nil)
	job, err := stops(t, false)(s)
	w.must(err)
	if text := strings.Join(job.Says, "\n"); !strings.Contains(text, "this is the last host that runs: the database is down then") {
		t.Errorf("it says %q", text)
	}
	w.must(w.engine(s).Do(t.Context(), job))
	stopped := w.now()
	if node, _ := stopped.Node("pm01"); node.Standby || !stopped.Clones[0].KeptStopped("pm01") || stopped.Clones[0].Roles["pm01"] != model.RoleStopped || w.runs {
		t.Fatalf("it is not stopped: %+v", stopped)
	}
	for _, point := range []struct {
		id string
		at fakes.Point
	}{{"checkpoint", fakes.Between}, {"keep-away", fakes.Before}, {"keep-away", fakes.Between}, {"keep-away", fakes.After}, {"ended", fakes.Between}} {
		t.Run(point.id+" "+string(point.at), func(t *testing.T) {
			w.part(t, begin)
			w.kill(stops(t, false), point.id, point.at)
			left := w.kept()
			w.must(w.finish(stops(t, false)))
			w.wantEnd("finished", stopped, false)

			w.set(left)
			w.must(w.undo())
			w.wantEnd("undone", running, false)
			if !w.runs {
				t.Error("undone, it does not run")
			}
		})
	}
	t.Run("finished while Pacemaker stops the database", func(t *testing.T) {
		w.part(t, begin)
		w.waits = true
		w.kill(stops(t, false), "keep-away", fakes.After)
		s := w.service(w.journal())
		job, err := stops(t, false)(s)
		w.must(err)
		w.waits = false
		w.now()
		w.must(w.engine(s).Do(t.Context(), job))
		w.wantEnd("finished", stopped, false)
	})
	w.part(t, begin)
}

// A start by force, of data that nobody says are the newest, is killed on the way. Until this host is the primary it
// can be undone: the data status and the lock, too, and what has kept it stopped.
func TestStartKilled(t *testing.T) {
	startKilled(t, cib.KeepAway("msPostgresql", "pgsql", "pm01"), []startPoint{
		{"data-status", fakes.Before, false, ""},
		{"data-status", fakes.Between, false, ""},
		{"unlock", fakes.Between, false, ""},
		{"cleanup", fakes.Between, false, ""},
		{"clear-clone", fakes.After, false, ""},
		{"let-back", fakes.Between, true, ""},
		{"let-back", fakes.Between, false, "it is the primary now, or may be: type sudo pgrex operation finish"},
		{"promoted", fakes.Between, false, "it is the primary now, or may be: type sudo pgrex operation finish"},
		{"promoted", fakes.After, false, "whole"},
	})
}

// Earlier versions stopped a database by standby mode: a start ends that mode, and its undo puts the mode back.
func TestStartOutOfStandbyKilled(t *testing.T) {
	startKilled(t, cib.SetStandby("pm01", true), []startPoint{
		{"cleanup", fakes.Between, false, ""},
		{"unstandby", fakes.Between, true, ""},
		{"let-back", fakes.Between, true, ""},
	})
}

// startPoint is where a start is killed, and what its undo says then.
type startPoint struct {
	id    string
	at    fakes.Point
	holds bool // Pacemaker has not promoted this host yet
	past  string
}

func startKilled(t *testing.T, keep cib.Command, points []startPoint) {
	t.Helper()
	w := newServed(t)
	w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "DISCONNECT"))
	w.Run(keep)
	stopped := w.now()
	w.must(os.WriteFile(w.lock(), nil, 0o600))
	begin := w.kept()
	s := w.service(nil)
	job, err := starts(t, true)(s)
	w.must(err)
	w.must(w.engine(s).Do(t.Context(), job))
	running := w.now()
	if node, _ := running.Node("pm01"); node.Standby || w.keeps() || node.Permanent["pgsql-data-status"] != "LATEST" || running.Clones[0].Roles["pm01"] != model.RolePromoted {
		t.Fatalf("it is not started: %+v", running)
	}
	for _, point := range points {
		t.Run(point.id+" "+string(point.at), func(t *testing.T) {
			w.part(t, begin)
			w.kill(starts(t, true), point.id, point.at)
			left := w.kept()
			job, err := starts(t, true)(w.service(w.journal()))
			w.must(err)
			if p, planned := job.Plan.(*Plan); planned && (p.DataStatus != "DISCONNECT" || !p.Locked) {
				t.Errorf("planned once more, it takes what it has changed for what was before: %+v", p)
			}
			w.must(w.finish(starts(t, true)))
			w.wantEnd("finished", running, false)

			w.set(left)
			w.holds = point.holds
			err = w.undo()
			switch {
			case point.past == "":
				w.must(err)
				w.wantEnd("undone", stopped, true)
			case point.past == "whole":
				w.must(err)
				w.wantEnd("past the point of no return", running, false)
			case err == nil || !strings.Contains(err.Error(), point.past):
				t.Errorf("undo says %v", err)
			default:
				w.must(w.finish(starts(t, true)))
				w.wantEnd("finished after all", running, false)
			}
		})
	}
	w.part(t, begin)
}

// The data status and the lock are put back only while the database is stopped: under one that runs they would be
// untrue.
func TestClaimIsTakenBackOfAStoppedDatabase(t *testing.T) {
	for before, id := range map[string]string{"DISCONNECT": "unlock", "": "data-status"} {
		w := newWorld(t)
		w.has(1)
		w.Did("pm01", "stop")
		w.Did("pm02", "stop")
		w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", before))
		w.must(os.WriteFile(w.lock(), nil, 0o600))
		stopped := w.now()
		s := w.service(nil)
		h, err := s.look(t.Context())
		w.must(err)
		p := &Plan{Force: true, DataStatus: before, Locked: true, Timeline: 1}
		job := s.job(t.Context(), Start, h, p)
		job.Steps = append(s.claim(h, p), s.hand(h, p)...)
		fakes.Killed(t, w.engine(s), job, id, fakes.After)
		w.Did("pm01", "start")
		if err := w.undo(); err == nil || !strings.Contains(err.Error(), "to Pacemaker it is unpromoted") {
			t.Errorf("%q: undo says %v", before, err)
		}
		node, _ := w.now().Node("pm01")
		if _, err := os.Stat(w.lock()); (err == nil) != (id == "data-status") || node.Permanent["pgsql-data-status"] != "LATEST" || operation.Left(w.state).None() {
			t.Errorf("%q: it was put back: %v, lock %v", before, node.Permanent, err)
		}
		w.Did("pm01", "stop")
		w.must(w.undo())
		w.wantEnd("undone", stopped, true)
	}
}

// Trap 48: data that were promoted meanwhile are the newest. Their status is not put back, though the database is
// stopped again; nor is a host stopped that may be the primary for all that Pacemaker shows.
func TestTrap48UndoAfterAPromotion(t *testing.T) {
	w := newWorld(t)
	w.has(1)
	w.Did("pm01", "stop")
	w.Did("pm02", "stop")
	w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "DISCONNECT"))
	w.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01"))
	stopped, begin := w.now(), w.kept()
	kill := func(id string) {
		s := w.service(nil)
		h, err := s.look(t.Context())
		w.must(err)
		p := &Plan{Force: true, DataStatus: "DISCONNECT", Kept: true, Timeline: 1}
		job := s.job(t.Context(), Start, h, p)
		job.Steps = append(s.claim(h, p), s.hand(h, p)...)
		fakes.Killed(t, w.engine(s), job, id, fakes.After)
	}
	kill("data-status")
	w.Run(cib.SetParameter("pgsql", "restart_on_promote", "true"))
	if err := w.undo(); err == nil || !strings.Contains(err.Error(), "with restart_on_promote their timeline does not show it") {
		t.Errorf("perhaps promoted, and stopped again: undo says %v", err)
	}
	w.Run(cib.DeleteParameter("pgsql", "restart_on_promote"))
	w.has(1, 2) // it has crashed before its first checkpoint
	if err := w.undo(); err == nil || !strings.Contains(err.Error(), "they are on timeline 2 now, and were on 1") {
		t.Errorf("promoted, and stopped again: undo says %v", err)
	}
	if node, _ := w.now().Node("pm01"); node.Permanent["pgsql-data-status"] != "LATEST" {
		t.Errorf("the status was put back: %v", node.Permanent)
	}
	w.must(os.RemoveAll(filepath.Join(w.Data, "pg_wal")))
	if err := w.undo(); err == nil || !strings.Contains(err.Error(), "their timeline is not known") {
		t.Errorf("without WAL, undo says %v", err)
	}
	w.has(1)
	w.must(w.undo())
	w.wantEnd("undone", stopped, false)

	w.set(begin)
	kill("let-back")
	w.Did("pm01", "promote") // the agent has not written PRI yet
	if err := w.undo(); err == nil || !strings.Contains(err.Error(), "it is the primary now, or may be") {
		t.Errorf("promoted, and not confirmed: undo says %v", err)
	}
	if w.keeps() {
		t.Error("it is kept stopped")
	}
}

// A plan that was left keeps what was before it: what it has changed itself is not taken for that.
func TestLeftKeepsWhatWasBefore(t *testing.T) {
	plan := func(name, text string) *Service {
		return &Service{Left: &operation.Journal{Operation: name, Plan: []byte(text)}}
	}
	const text = `{"force": true, "checkpoint": false, "node_standby": false, "kept_stopped": true, "failover": false, "data_status": "DISCONNECT", "locked": true}`
	want := &Plan{Force: true, Kept: true, DataStatus: "DISCONNECT", Locked: true}
	if diff := cmp.Diff(want, plan(Start, text).before(Start)); diff != "" {
		t.Errorf("what was before is (-wanted +got):\n%s", diff)
	}
	for name, s := range map[string]*Service{
		"nothing left": {}, "another's": plan(Stop, text), "damaged": plan(Start, text[:30]), "a later pgrex's": plan(Start, `{"later": true}`),
	} {
		if p := s.before(Start); p != nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	// On the CIB: a stop was killed when it kept the database stopped, which nobody had before.
	w := newWorld(t)
	w.Did("pm01", "start")
	w.Did("pm02", "promote")
	w.Run(cib.SetAttribute("pm02", "pgsql-status", "PRI"))
	w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "LATEST"))
	w.kill(stops(t, false), "keep-away", fakes.Between)
	s := w.service(w.journal())
	job, err := stops(t, false)(s)
	w.must(err)
	if p := job.Plan.(*Plan); p.Kept || len(fakes.Step(t, job.Steps, "keep-away").Back) == 0 {
		t.Errorf("planned once more, the database was kept stopped before: %+v", p)
	}
}

// Two stops of one host are planned at the same time, and done one after the other. The second one must do nothing: if
// it were interrupted, its undo would start what the first one has stopped.
func TestStopTwice(t *testing.T) {
	w := newWorld(t)
	w.Did("pm01", "start")
	w.Did("pm02", "promote")
	w.Run(cib.SetAttribute("pm02", "pgsql-status", "PRI"))
	w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "LATEST"))
	s := w.service(nil)
	second, err := stops(t, false)(s)
	w.must(err)
	w.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01")) // as the first one has
	w.Did("pm01", "stop")
	stopped := w.now()
	if err := w.engine(s).Do(t.Context(), second); err == nil || !strings.Contains(err.Error(), "another operation has stopped it") {
		t.Errorf("it ends with %v", err)
	}
	w.wantEnd("refused", stopped, false)
}

// A forced stop of the primary is a failover: once the database is kept away, nothing undoes that.
func TestFailover(t *testing.T) {
	w := newWorld(t)
	w.Primary()
	begin, before := w.kept(), w.now()
	if _, err := stops(t, false)(w.service(nil)); err == nil || !strings.Contains(err.Error(), "its standbys run (pm02)") {
		t.Errorf("without force: %v", err)
	}
	for at, says := range map[fakes.Point]string{
		fakes.Before: "", fakes.Between: "another host is the primary now or soon: type sudo pgrex operation finish", fakes.After: "",
	} {
		t.Run(string(at), func(t *testing.T) {
			w.part(t, begin)
			w.kill(stops(t, true), "keep-away", at)
			left := w.kept()
			err := w.undo()
			if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("undo says %v", err)
			}
			if kept := w.keeps(); kept != (at != fakes.Before) || operation.Left(w.state).None() != (says == "") {
				t.Errorf("undone, it is kept stopped: %t, and left %v", kept, operation.Left(w.state))
			}
			if at == fakes.Before {
				w.wantEnd("undone", before, false)
			}

			w.set(left)
			w.Did("pm01", "stop")
			w.Did("pm02", "promote")
			w.must(w.finish(stops(t, true)))
			if !w.keeps() || !operation.Left(w.state).None() {
				t.Errorf("finished, it is kept stopped: %t, and left %v", w.keeps(), operation.Left(w.state))
			}
		})
	}
	w.part(t, begin)
}

// A failover that fails after the point of no return is not undone, and says what to type.
func TestFailoverFailsLater(t *testing.T) {
	w := newWorld(t)
	w.Primary()
	s := w.service(nil)
	job, err := stops(t, true)(s)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	e := w.engine(s)
	e.Report = func(line string) {
		if strings.Contains(line, "cibadmin --create") {
			cancel()
		}
	}
	var left *operation.LeftError
	if err := e.Do(ctx, job); !errors.As(err, &left) || !strings.Contains(left.Left, "to bring this one back, type: sudo pgrex rejoin") {
		t.Errorf("it ends with %v", err)
	}
	if !w.keeps() || !operation.Left(w.state).None() {
		t.Errorf("it is kept stopped: %t, and left %v", w.keeps(), operation.Left(w.state))
	}
}

// Who is not the first to start where nobody is the primary, and why; force is for who knows better.
func TestNotFirst(t *testing.T) {
	w := newServed(t)
	w.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01"))
	w.now()
	begin := w.kept()
	for name, test := range map[string]struct {
		mine, others string // data status
		location     string // of pm02's data
		locked       bool
		says         string // why not
		steps        string // by force
	}{
		"the newest":      {"LATEST", "DISCONNECT", "", false, "", "no-primary cleanup clear-primitive clear-clone let-back promoted writes"},
		"locked":          {"LATEST", "DISCONNECT", "", true, "", "no-primary unlock cleanup clear-primitive clear-clone let-back promoted writes"},
		"not proven":      {"LATEST", "STREAMING|SYNC", "", true, "is there: this host was a primary", "no-primary unlock cleanup clear-primitive clear-clone let-back promoted writes"},
		"another's":       {"DISCONNECT", "LATEST", "", false, "pm02 has the newest data", "no-primary data-status cleanup clear-primitive clear-clone let-back promoted writes"},
		"two":             {"LATEST", "LATEST", "", false, "more than one host has the data status LATEST", "no-primary cleanup clear-primitive clear-clone let-back promoted writes"},
		"in step":         {"STREAMING|SYNC", "DISCONNECT", "", false, "", "no-primary data-status cleanup clear-primitive clear-clone let-back promoted writes"},
		"pm02 is further": {"LATEST", "DISCONNECT", "00000000FF000000", false, "pm02 runs and has data up to 0/FF000000", "no-primary cleanup clear-primitive clear-clone let-back promoted writes"},
		"nobody's":        {"DISCONNECT", "DISCONNECT", "", true, "no host has the data status LATEST", "no-primary data-status unlock cleanup clear-primitive clear-clone let-back promoted writes"},
	} {
		t.Run(name, func(t *testing.T) {
			w.part(t, begin)
			w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", test.mine))
			w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", test.others))
			if test.location != "" {
				w.Run(cib.SetAttribute("pm02", "pgsql-xlog-loc", test.location))
			}
			if test.locked {
				w.must(os.WriteFile(w.lock(), nil, 0o600))
			}
			job, err := starts(t, false)(w.service(nil))
			if (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) || err == nil && len(job.Steps) == 0 {
				t.Errorf("it says %v, and has %d steps", err, len(job.Steps))
			}
			job, err = starts(t, true)(w.service(nil))
			w.must(err)
			var ids []string
			for _, s := range job.Steps {
				ids = append(ids, s.ID)
			}
			if got := strings.Join(ids, " "); got != test.steps {
				t.Errorf("by force, the steps are %s", got)
			}
		})
	}
	w.part(t, begin)
}

// Trap 40: what a restore has left would end the recovery with which the agent starts the database. Not even force
// starts it so.
func TestTrap40FirstWithATarget(t *testing.T) {
	w := newServed(t)
	w.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01"))
	w.now()
	w.server.Configured("recovery_target_time = '2020-01-01 00:00:00+00'")
	for _, force := range []bool{false, true} {
		_, err := starts(t, force)(w.service(nil))
		if err == nil || !strings.Contains(err.Error(), "recovery_target_time = '2020") || !strings.Contains(err.Error(), "ALTER SYSTEM RESET") {
			t.Errorf("by force %t: %v", force, err)
		}
	}
	w.server.Deconfigure("recovery_target_time")
	_, err := starts(t, false)(w.service(nil))
	w.must(err)
}

// An operation goes on with the one that it was told of, and with no other; a plan that cannot be read is not guessed
// at.
func TestResumeOfAnother(t *testing.T) {
	w := newWorld(t)
	w.Primary()
	w.kill(stops(t, true), "keep-away", fakes.Before)
	j := w.journal()
	for _, plan := range []string{``, `{"kept_stopped": 7}`, `{"standby": true}`, `{"later": true}`} {
		damaged := *j
		damaged.Plan = []byte(plan)
		if _, err := w.service(nil).Resume(t.Context(), &damaged); err == nil || !strings.Contains(err.Error(), "read the plan in the journal") {
			t.Errorf("the plan %q: %v", plan, err)
		}
	}
	for _, left := range []*operation.Journal{nil, {Operation: Stop, Token: strings.Repeat("7", 32)}} {
		job, err := stops(t, true)(w.service(left))
		w.must(err)
		s := w.service(nil)
		if err := w.engine(s).Do(t.Context(), job); err == nil || !strings.Contains(err.Error(), "stop, started by somebody") {
			t.Errorf("%+v goes on with it: %v", left, err)
		}
	}
}

// The constraint of a stop was changed by hand: a further stop could not make it again, and Pacemaker could start the
// database in the middle of it.
func TestStopConstraintAltered(t *testing.T) {
	w := newWorld(t)
	w.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01"))
	w.CIBAdmin("--modify", "--scope", "constraints", "--xml-text", `<rsc_location id="pgrex-stop-pgsql-pm01" score="0"/>`)
	before := w.now()
	if _, err := stops(t, false)(w.service(nil)); err == nil || !strings.Contains(err.Error(),
		`was changed, and does not keep the database from this node: type: sudo cibadmin --delete --xml-text '<rsc_location id="pgrex-stop-pgsql-pm01"/>'`) {
		t.Errorf("it says %v", err)
	}
	w.wantEnd("refused", before, false)
	w.CIBAdmin("--delete", "--xml-text", `<rsc_location id="pgrex-stop-pgsql-pm01"/>`) // as it says
	_, err := stops(t, false)(w.service(nil))
	w.must(err)
}

// A pause is in the CIB, once, until it ends; one that is set elsewhere, too, is not ended in silence.
func TestPause(t *testing.T) {
	w := newWorld(t)
	o := w.service(nil).Observer
	pause := func(paused bool, steps int) error {
		t.Helper()
		actions, err := Pause(t.Context(), o, paused)
		w.must(err)
		if len(actions) != steps {
			t.Errorf("to have it paused %t takes %v", paused, actions)
		}
		return w.engine(w.service(nil)).Run(t.Context(), actions)
	}
	w.must(pause(false, 0))
	w.must(pause(true, 2))
	if got := w.now().Clones[0].Meta[model.MetaPaused]; got != "true" {
		t.Errorf("it is paused: %q", got)
	}
	w.must(pause(true, 0))
	w.CIBAdmin("--modify", "--scope", "resources", "--xml-text",
		`<primitive id="pgsql"><meta_attributes id="more"><nvpair id="more-1" name="`+model.MetaPaused+`" value="true"/></meta_attributes></primitive>`)
	if err := pause(false, 2); err == nil || !strings.Contains(err.Error(), "it is still true, because it is set elsewhere, too") {
		t.Errorf("set twice, it ends with %v", err)
	}
	w.must(pause(false, 2))
	w.must(pause(false, 0))
}

// A start that was to follow a primary makes nothing of this host the newest, and waits for no promotion: what is shown
// of it once it was killed says so, too.
func TestStartThatFollowedLeft(t *testing.T) {
	w := newWorld(t)
	shown := func(plan string) (text string) {
		job, err := w.service(nil).Resume(t.Context(), &operation.Journal{Operation: Start, Plan: []byte(plan)})
		w.must(err)
		for _, s := range job.Steps {
			text += s.String() + "\n"
		}
		return text
	}
	if text := shown(`{"follow": true}`); strings.Contains(text, "LATEST") || strings.Contains(text, "primary") ||
		!strings.Contains(text, "wait until this host streams through pgrex_pm01") || !strings.Contains(text, "--cleanup") {
		t.Errorf("it is to do:\n%s", text)
	}
	if text := shown(`{}`); !strings.Contains(text, "LATEST") || !strings.Contains(text, "wait until this host is confirmed as primary") {
		t.Errorf("of one that was to be the primary:\n%s", text)
	}
}

// A host that is no member of the database is not started, not even by force: it would be another primary.
func TestStartOfNoMember(t *testing.T) {
	w := newWorld(t)
	w.Run(cib.SetParameter("pgsql", "node_list", "pm02 pm03"))
	for _, force := range []bool{false, true} {
		if _, err := starts(t, force)(w.service(nil)); err == nil || !strings.Contains(err.Error(), "pm01, is not in the agent's node_list") {
			t.Errorf("by force %t: %v", force, err)
		}
	}
}
