package switchover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// maintenance is a cluster in maintenance-mode, or not, of which pm01 is the primary.
type maintenance bool

func (m *maintenance) Read(context.Context) (model.Cluster, error) {
	return model.Cluster{
		Quorate: true, DC: "pm01", Maintenance: bool(*m), Nodes: []model.Node{{Name: "pm01", Online: true}},
		Clones: []model.Clone{{
			ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql",
			Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01"}, Roles: fakes.Roles{"pm01": model.RolePromoted},
		}},
	}, nil
}

func (m *maintenance) observer() *controller.Observer {
	return &controller.Observer{Node: "pm01", Clusters: m}
}

// observerOf is an observer of a host with a server.
func (m *maintenance) observerOf(t *testing.T, server *pgserver.Server) *controller.Observer {
	t.Helper()
	o := m.observer()
	o.Connect = func(controller.Target) controller.Server {
		return postgres.NewServer(postgres.Config{
			DataDir: filepath.Join(server.Dir, "data"), SocketDir: server.Dir, Port: server.Port, User: "postgres", Database: "postgres",
		})
	}
	t.Cleanup(o.Close)
	return o
}

// Maintenance-mode is left when the CIB says so, whatever the tool said.
func TestLeaveMaintenance(t *testing.T) {
	fakes.Tools(t, "--modify")
	on := maintenance(true)
	leave := operation.Maintenance{Primitive: "pgsql"}.Leave(on.observer())
	if err := leave.Do(t.Context()); err == nil {
		t.Error("it is still on, but to leave it is no error")
	}
	on = false
	if err := leave.Do(t.Context()); err != nil {
		t.Errorf("it is off, but: %v", err)
	}
}

// Undone, maintenance-mode stays on while this host is banned: Pacemaker would stop the primary that was started again.
// The journal stays, too, and a second undo goes on where the first one has ended.
func TestLookAwayUndone(t *testing.T) {
	for _, test := range []struct {
		fails string
		left  bool
	}{{"--clear", false}, {"never", true}} {
		t.Run(test.fails, func(t *testing.T) {
			ran := fakes.Tools(t, test.fails)
			on := maintenance(false)
			s := &Switchover{Observer: on.observer(), Who: reconcile.Who{Clone: model.Clone{ID: "ms", Primitive: "pgsql"}}}
			s.Cluster, s.Here.Name = &model.Cluster{}, "pm01"
			leave := operation.Maintenance{Primitive: "pgsql"}.Back()[0].(operation.Command)
			lift := fakes.Typed(cib.ClearBan("ms", "pm01"))
			broken := operation.Look{Text: "broken", See: func(context.Context) error { return errors.New("broken") }}
			job := fakes.Job(append(fakes.UpTo(t, s.handOver(), "ban-here"), operation.Step{ID: "broken", Action: broken}))
			e := fakes.Engine(t, s.Observer)
			err := e.Do(t.Context(), job)
			text := ran()
			lifted, left := strings.LastIndex(text, lift), strings.Index(text, fakes.Typed(leave.Command))
			if err == nil || lifted < 0 || left >= 0 != test.left || test.left && left < lifted {
				t.Errorf("%v; run were:\n%s", err, text)
			}
			says := strings.Contains(err.Error(), "the steps before it stay done") && strings.Contains(err.Error(), "type: sudo pgrex operation undo")
			if stays := !operation.Left(e.Folder).None(); says == test.left || stays == test.left {
				t.Errorf("its journal is there: %t; it says: %v", stays, err)
			}
			if test.left {
				return
			}
			ran = fakes.Tools(t, "never")
			j, err := operation.LoadJournal(e.Folder)
			if err != nil {
				t.Fatal(err)
			}
			job.Token.Value = j.Token
			if err := e.Undo(t.Context(), j, job); err != nil {
				t.Error(err)
			}
			text = ran()
			lifted, left = strings.Index(text, lift), strings.Index(text, fakes.Typed(leave.Command))
			if lifted < 0 || left < lifted || !operation.Left(e.Folder).None() {
				t.Errorf("mended, and undone again; run were:\n%s", text)
			}
		})
	}
}

// A shutdown ends when the standby has everything, which it is then found to have; and it can be undone: the server is
// the primary again, with the options of its start, on the same timeline, and the standby streams.
func TestShutDownAndBack(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	standby := server.Standby()
	server.Stop("fast")
	server.Start("-c", "cluster_name=of_the_command_line")
	t.Cleanup(func() { server.Stop("immediate") })
	streams := func() bool {
		return server.SQL("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
	}
	server.Await("the standby streams", streams)
	on := maintenance(true)
	s := &Switchover{
		Observer: on.observerOf(t, server),
		place:    datadir.Place{Data: filepath.Join(server.Dir, "data"), Bin: fakes.Programs(t, server)},
		conninfo: standby.Conninfo(), plan: Plan{Address: "127.0.0.1", Target: "pm02"},
	}
	s.Clone.Parameters = map[string]string{"logfile": filepath.Join(server.Dir, "log-after-undo")}

	server.SQL("CREATE TABLE written AS SELECT generate_series(1, 10000) AS n")
	before := time.Now()
	step := s.shutDown()
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.place.Runs() || s.plan.Stopped.Before(before) || !s.plan.End.IsValid() {
		t.Errorf("it runs: %t, its WAL ends at %s", s.place.Runs(), s.plan.End)
	}
	if err := s.hasAll(t.Context()); err != nil {
		t.Errorf("after a clean shutdown: %v", err)
	}
	end := s.plan.End
	s.plan.End++
	if err := s.hasAll(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("up to %s, of %s", end, end+1)) {
		t.Errorf("a byte that nobody has: %v", err)
	}

	on = false
	if err := fakes.Undo(t.Context(), step); err == nil || s.place.Runs() {
		t.Errorf("Pacemaker has the database, but it was started: %v, %t", err, s.place.Runs())
	}
	on = true
	if err := fakes.Undo(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	if now := server.SQL("SELECT pg_is_in_recovery(), current_setting('cluster_name'), timeline_id FROM pg_control_checkpoint()"); now != "f|of_the_command_line|1" {
		t.Errorf("after undo: %s", now)
	}
	server.Await("the standby streams again", streams)

	server.Stop("fast")
	server.Configured("shared_preload_libraries = 'not_there'")
	if err := fakes.Undo(t.Context(), step); err == nil || !strings.Contains(err.Error(), `could not access file "not_there"`) {
		t.Errorf("a server that cannot start: %v", err)
	}
	server.Deconfigure("shared_preload_libraries")
	if err := fakes.Undo(t.Context(), step); err != nil {
		t.Errorf("a server that was mended: %v", err)
	}

	standby.Promote()
	if err := s.hasAll(t.Context()); err == nil || !strings.Contains(err.Error(), "no longer a standby") {
		t.Errorf("a standby that was promoted: %v", err)
	}
	if err := fakes.Undo(t.Context(), step); err == nil || !strings.Contains(err.Error(), "must not be started here") {
		t.Errorf("beside another primary: %v", err)
	}
	s.Observer = &controller.Observer{Node: "pm01", Clusters: fakes.ClusterOf(promoted)}
	if err := s.hasAll(t.Context()); err != nil {
		t.Errorf("Pacemaker has promoted it: %v", err)
	}
}

// promoted is the cluster after maintenance-mode was left by hand: pm02 is the primary.
func promoted() model.Cluster {
	return model.Cluster{
		Quorate: true, DC: "pm01", Nodes: []model.Node{{Name: "pm01", Online: true}, {
			Name: "pm02", Online: true, Transient: map[string]string{"pgsql-status": "PRI"},
			Permanent: map[string]string{"pgsql-data-status": "LATEST"},
		}},
		Clones: []model.Clone{{
			ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
			Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02"},
			Roles:      fakes.Roles{"pm01": model.RoleStopped, "pm02": model.RolePromoted},
		}},
	}
}

// A shutdown that was begun by a process which is gone: whether it was done is seen at the server, and what undoes it
// leaves a server alone that still answers, and starts any other one again.
func TestShutDownFound(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	t.Cleanup(func() { server.Stop("immediate") })
	on := maintenance(true)
	s := &Switchover{
		Observer: on.observerOf(t, server), place: datadir.Place{Data: filepath.Join(server.Dir, "data"), Bin: fakes.Programs(t, server)},
	}
	s.Clone.Parameters = map[string]string{"logfile": filepath.Join(server.Dir, "log-after-undo")}
	step := s.shutDown()
	for _, test := range []struct {
		name  string
		end   func()
		state operation.State
		why   string
	}{
		{"it runs", func() {}, operation.NotDone, ""},
		{"shut down", func() { server.Stop("fast") }, operation.Done, ""},
		{"stopped at once", func() { server.Stop("immediate") }, operation.CannotTell, `pg_controldata shows "in production"`},
		{"killed", func() { killHard(t, server) }, operation.CannotTell, `pg_controldata shows "in production"`},
	} {
		server.Stop("fast")
		server.Start() // as this process's own child, for which it waits when that is killed
		began := server.PID()
		test.end()
		s.plan.End = 0
		state, err := step.Check(t.Context())
		switch {
		case state != test.state || (err != nil) != (test.why != ""):
			t.Errorf("%s: found is %d, %v", test.name, state, err)
		case err != nil && (!strings.Contains(err.Error(), test.why) || !strings.Contains(err.Error(), "sudo pgrex operation undo")):
			t.Errorf("%s: it says %v", test.name, err)
		}
		if s.plan.End.IsValid() != (test.state == operation.Done) {
			t.Errorf("%s: its WAL ends at %s", test.name, s.plan.End)
		}
		if err := fakes.Undo(t.Context(), step); err != nil {
			t.Fatalf("%s: undone: %v", test.name, err)
		}
		if again := server.PID() != began; again != (test.state != operation.NotDone) {
			t.Errorf("%s: it was started again: %t", test.name, again)
		}
		if now := server.SQL("SELECT pg_is_in_recovery(), timeline_id FROM pg_control_checkpoint()"); now != "f|1" {
			t.Errorf("%s: undone, it is %s", test.name, now)
		}
	}
	server.SQL("CREATE TABLE it_takes_writes AS SELECT 1")
}

// killHard kills a postmaster with SIGKILL, and waits until its children have ended, too.
func killHard(t *testing.T, server *pgserver.Server) {
	t.Helper()
	processes := []int{server.PID()}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", processes[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, pid)
	}
	if len(processes) < 3 {
		t.Fatalf("the postmaster has these processes only: %v", processes)
	}
	server.Signal(syscall.SIGKILL)
	server.Await("all of its processes have ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", processes[0])) // there until this process has waited for it
		return os.IsNotExist(err) && !slices.ContainsFunc(processes, func(pid int) bool {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // none of a process that has ended
			return len(name) > 0
		})
	})
}
