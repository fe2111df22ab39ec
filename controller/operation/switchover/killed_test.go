package switchover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// world is a primary pm01 and its standby pm02: real servers, and a CIB in a file. Outside maintenance-mode the test
// does what Pacemaker and its agent would do.
type world struct {
	*fakes.CIB
	t       *testing.T
	state   string
	servers map[string]*pgserver.Server
	written int // rows that were acknowledged
	begin   map[string][]byte
}

const banned = "cli-ban-msPostgresql-on-pm01"

func newWorld(t *testing.T) *world {
	t.Helper()
	pm01 := pgserver.New(t, "synchronous_commit = off")
	pm01.SQL("CREATE TABLE written (n int); SELECT pg_create_physical_replication_slot('pgrex_pm02', true)")
	pm02 := pm01.Standby("primary_slot_name = 'pgrex_pm02'", "primary_conninfo = '"+pm01.Conninfo()+" application_name=pm02'")
	pm02.SQL("SELECT pg_create_physical_replication_slot('pgrex_pm01', true)")
	w := &world{
		CIB: fakes.NewCIB(t, "../../.."), t: t, state: t.TempDir() + "/state",
		servers: map[string]*pgserver.Server{"pm01": pm01, "pm02": pm02},
	}
	w.Run(cib.SetParameter("pgsql", "pgdata", w.data("pm01")))
	w.Run(cib.SetParameter("pgsql", "pgctl", filepath.Join(fakes.Programs(t, pm01), "pg_ctl")))
	w.Run(cib.SetParameter("pgsql", "logfile", filepath.Join(pm01.Dir, "log-after-undo")))
	w.Run(cib.SetParameter("pgsql", "master_ip", "127.0.0.1"))
	// Both servers run on this machine: pm02 answers at this address.
	recovery := fmt.Sprintf("primary_conninfo = '%s'\n", pm02.Conninfo())
	w.must(os.WriteFile(filepath.Join(w.Tmp, "recovery.conf"), []byte(recovery), 0o600))
	w.must(os.WriteFile(w.lock(), nil, 0o600))
	w.Primary()
	w.Run(cib.SetParameter("pgsql", "rep_mode", "async"))
	w.Run(cib.SetAttribute("pm02", "pgsql-status", "HS:async"))
	w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "STREAMING|ASYNC"))
	w.CIBAdmin("--create", "--scope", "constraints", "--xml-text", `<rsc_location id="x" rsc="msPostgresql" node="pm09" score="1"/>`)
	w.CIBAdmin("--delete", "--xml-text", `<rsc_location id="x"/>`) // the tools leave an empty section behind: make it now
	version := filepath.Join(w.data("pm01"), "PG_VERSION")         // its owner has to be pgrex's user
	w.must(errors.Join(os.Chown(version, os.Geteuid(), os.Getegid()), os.Chmod(version, 0o644)))
	w.streams("pm02", "pm01", "pgrex_pm02")
	w.each("fast", func(name string) { w.command("cp", "-a", w.data(name), w.saved(name)) })
	w.begin = w.Kept()
	t.Cleanup(func() { w.each("immediate", func(string) {}) }) // what an operation starts outlives this process
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) command(name string, args ...string) {
	w.t.Helper()
	if out, err := exec.CommandContext(w.t.Context(), name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (w *world) data(name string) string  { return filepath.Join(w.servers[name].Dir, "data") }
func (w *world) saved(name string) string { return filepath.Join(w.servers[name].Dir, "saved") }
func (w *world) lock() string             { return filepath.Join(w.Tmp, "PGSQL.lock") }

func (w *world) runs(name string) bool {
	_, err := os.Stat(filepath.Join(w.data(name), "postmaster.pid"))
	return err == nil
}

// each stops each server, the primary first, and does something with it.
func (w *world) each(mode string, do func(name string)) {
	for _, name := range []string{"pm01", "pm02"} {
		if w.runs(name) {
			w.servers[name].Stop(mode)
		}
		do(name)
	}
}

// streams waits until a standby streams from the primary, through its slot or without one.
func (w *world) streams(standby, primary, slot string) {
	w.t.Helper()
	w.servers[primary].Await(standby+" streams through slot '"+slot+"'", func() bool {
		return w.servers[primary].SQL("SELECT string_agg(coalesce(slot_name, ''), ' ') FROM pg_stat_replication "+
			"LEFT JOIN pg_replication_slots ON active_pid = pid WHERE state = 'streaming'") == slot
	})
}

// part runs a part of the test that begins in the same state as the first one.
func (w *world) part(t *testing.T) {
	t.Helper()
	w.t = t
	w.For(t)
	w.each("immediate", func(name string) {
		w.must(os.RemoveAll(w.data(name)))
		w.command("cp", "-a", w.saved(name), w.data(name))
		w.servers[name].Start()
	})
	w.Set(w.begin)
	w.must(os.RemoveAll(w.state))
	w.must(os.WriteFile(w.lock(), nil, 0o600))
	w.streams("pm02", "pm01", "pgrex_pm02")
	w.written = 0
	w.write("pm01")
}

// write writes a row, and waits until the primary and its standby have acknowledged it.
func (w *world) write(primary string) {
	w.t.Helper()
	w.servers[primary].SQL(fmt.Sprintf("INSERT INTO written VALUES (%d)", w.written))
	w.written++
}

// Read implements the controller's reader of the cluster. First it does whatever Pacemaker would have to do.
func (w *world) Read(ctx context.Context) (model.Cluster, error) {
	for {
		cluster, err := new(cib.Client).Read(ctx)
		if err != nil || cluster.Maintenance || !w.reacts(cluster) {
			return cluster, err
		}
	}
}

// settle does everything that Pacemaker would do now.
func (w *world) settle() {
	w.t.Helper()
	_, err := w.Read(w.t.Context())
	w.must(err)
}

// reacts does the next action that Pacemaker would take, if there is one.
func (w *world) reacts(cluster model.Cluster) bool {
	role := func(name string) model.Role {
		role, _ := cluster.Clones[0].Role(name)
		return role
	}
	is := strings.Contains(w.Configuration(), banned)
	_, locked := os.Stat(w.lock())
	switch {
	case is && role("pm01") != model.RoleStopped, role("pm01") == model.RolePromoted && !w.runs("pm01"):
		if w.runs("pm01") {
			w.servers["pm01"].Stop("immediate") // as the agent's demote does
		}
		w.Did("pm01", "stop")
		w.Run(cib.SetAttribute("pm01", "pgsql-status", "STOP"))
		w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "DISCONNECT"))
	case role("pm01") == model.RoleStopped && role("pm02") != model.RolePromoted:
		w.servers["pm02"].Promote()
		w.Did("pm02", "promote")
		w.Run(cib.SetAttribute("pm02", "pgsql-status", "PRI"))
		w.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "LATEST"))
	case !is && role("pm01") == model.RoleStopped && locked != nil:
		w.owned()
		w.servers["pm01"].Follow(w.servers["pm02"])
		w.Did("pm01", "start")
		w.Run(cib.SetAttribute("pm01", "pgsql-status", "HS:async"))
		w.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "STREAMING|ASYNC"))
	default:
		return false
	}
	return true
}

// owned makes the server's user the owner of what an operation has written here as root.
func (w *world) owned() {
	w.t.Helper()
	info, err := os.Stat(w.data("pm01"))
	w.must(err)
	as := info.Sys().(*syscall.Stat_t)
	w.command("chown", "-R", fmt.Sprintf("%d:%d", as.Uid, as.Gid), w.data("pm01"))
	w.must(os.Chown(filepath.Join(w.data("pm01"), "PG_VERSION"), os.Geteuid(), os.Getegid()))
}

// switchover is a switchover as in a new process.
func (w *world) switchover() *Switchover {
	server := w.servers["pm01"]
	o := &controller.Observer{Node: "pm01", Clusters: w, Connect: func(controller.Target) controller.Server {
		return postgres.NewServer(postgres.Config{
			DataDir: w.data("pm01"), SocketDir: server.Dir, Port: server.Port, User: "postgres", Database: "postgres",
		})
	}}
	w.t.Cleanup(o.Close)
	return &Switchover{Observer: o, Report: func(string) {}}
}

func (w *world) engine(s *Switchover) *operation.Engine {
	e := fakes.Engine(w.t, s.Observer)
	e.Folder = w.state
	e.Report = func(line string) {
		w.t.Log(line)
		w.settle() // not every step looks at the cluster
	}
	return e
}

func (w *world) plan() (*operation.Engine, operation.Job) {
	w.t.Helper()
	s := w.switchover()
	job, err := s.Job(w.t.Context())
	w.must(err)
	return w.engine(s), job
}

// resume makes the steps of the operation that was left.
func (w *world) resume() (*operation.Engine, *operation.Journal, operation.Job) {
	w.t.Helper()
	j, err := operation.LoadJournal(w.state)
	w.must(err)
	if j == nil {
		w.t.Fatal("no journal is left")
	}
	s := w.switchover()
	job, err := s.Resume(w.t.Context(), j)
	w.must(err)
	return w.engine(s), j, job
}

// wantEnd checks that a host is the primary and takes writes, that the other one streams from it through a slot ("" for
// none), that no row is lost, and that nothing of the operation is left.
func (w *world) wantEnd(primary, standby, slot, configuration string) {
	w.t.Helper()
	w.settle()
	if left := operation.Left(w.state); !left.None() {
		w.t.Errorf("a journal is there: %+v", left)
	}
	if diff := cmp.Diff(configuration, w.Configuration()); diff != "" {
		w.t.Errorf("the configuration is (-wanted +there):\n%s", diff)
	}
	if _, err := os.Stat(w.lock()); (err == nil) != (primary == "pm01") {
		w.t.Errorf("the lock: %v", err)
	}
	w.write(primary)
	w.streams(standby, primary, slot)
	for _, name := range []string{primary, standby} {
		want := fmt.Sprintf("%d|%.1s", w.written, strconv.FormatBool(name == standby))
		w.servers[name].Await("it has all rows, and is what it is to be", func() bool {
			return w.servers[name].SQL("SELECT count(DISTINCT n), pg_is_in_recovery() FROM written") == want
		})
	}
}

// A switchover is killed at each of its steps, and finished, or from the same point undone. No acknowledged row is
// lost, and there is one primary, which the other host follows.
func TestSwitchoverKilled(t *testing.T) {
	w := newWorld(t)
	w.part(t)
	before := w.Configuration()
	e, job := w.plan()
	w.must(e.Do(t.Context(), job))
	w.settle()
	after := w.Configuration()
	w.wantEnd("pm02", "pm01", "pgrex_pm01", after)

	points, long := []fakes.Point{fakes.Between}, os.Getenv("PGREX_LONG") != ""
	if long {
		points = fakes.Points
	}
	// Undone early, pm01 is the primary again. Once Pacemaker has the database, pm01 is a standby without a slot, which
	// its daemon sets. Once pm02 is the primary, rejoin has to bring pm01 back.
	want := func() { w.wantEnd("pm01", "pm02", "pgrex_pm02", before) }
	follows := func() { w.wantEnd("pm02", "pm01", "", after) }
	looks := []string{"look", "settle", "unwatched", "follows", "drop-maintenance", "slot-name", "streams"}
	for _, step := range job.Steps {
		if !long && slices.Contains(looks, step.ID) {
			continue // these change nothing, or rejoin's tests kill them
		}
		for _, at := range points {
			t.Run(step.ID+" "+string(at)+", finished", func(t *testing.T) {
				w.part(t)
				e, job := w.plan()
				fakes.Killed(t, e, job, step.ID, at)
				e, j, job := w.resume()
				w.must(e.Finish(t.Context(), j, job))
				w.wantEnd("pm02", "pm01", "pgrex_pm01", after)
			})
			switch {
			case step.ID == "leave" && at == fakes.Between:
				want = follows
			case step.ID == "promoted" && at == fakes.After:
				want = w.wantRejoin
			}
			t.Run(step.ID+" "+string(at)+", undone", func(t *testing.T) {
				w.part(t)
				e, job := w.plan()
				fakes.Killed(t, e, job, step.ID, at)
				e, j, job := w.resume()
				w.must(e.Undo(t.Context(), j, job))
				want()
			})
		}
		if step.ID == "promoted" {
			want = w.wantRejoin
		}
	}
}

// wantRejoin checks that pm02 is the primary, that no row is lost, and that nothing of the operation is left but what
// keeps pm01 from starting before rejoin has looked at its data.
func (w *world) wantRejoin() {
	w.t.Helper()
	w.settle()
	cluster := w.Cluster()
	if left := operation.Left(w.state); !left.None() || cluster.HasTokens() || cluster.Maintenance {
		w.t.Errorf("a journal is there: %+v; in the CIB: %v", left, cluster.Properties)
	}
	w.write("pm02")
	if rows := w.servers["pm02"].SQL("SELECT count(DISTINCT n), pg_is_in_recovery() FROM written"); rows != fmt.Sprintf("%d|f", w.written) {
		w.t.Errorf("of %d rows it has %s", w.written, rows)
	}
}

// Trap 40: a primary that would not come back as a standby, for what a restore has left, is not switched over.
func TestTrap40SwitchoverWithATarget(t *testing.T) {
	w := newWorld(t)
	w.part(t)
	w.servers["pm01"].SQL("ALTER SYSTEM SET recovery_target_time = '2020-01-01 00:00:00+00'")
	if _, err := w.switchover().Job(t.Context()); err == nil || !strings.Contains(err.Error(), "recovery_target_time = '2020") {
		t.Errorf("with a target: %v", err)
	}
	w.servers["pm01"].SQL("ALTER SYSTEM RESET recovery_target_time")
	_, err := w.switchover().Job(t.Context())
	w.must(err)
}
