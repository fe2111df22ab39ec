package switchover

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// maintenance is a cluster in maintenance-mode, or not.
type maintenance bool

func (m *maintenance) Read(context.Context) (model.Cluster, error) {
	return model.Cluster{
		Maintenance: bool(*m), Nodes: []model.Node{{Name: "pm01", Online: true}},
		Clones: []model.Clone{{ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql"}},
	}, nil
}

func (m *maintenance) observer() *controller.Observer {
	return &controller.Observer{Node: "pm01", Clusters: m}
}

// Maintenance-mode is left when the CIB says so, whatever the tool said.
func TestLeaveMaintenance(t *testing.T) {
	on := maintenance(true)
	s := &Switchover{Observer: on.observer()}
	step := operation.NoReturn(operation.LeaveMaintenance(cib.Command{Path: "false"}, s.Observer), &s.given)
	if err := step.Do(t.Context()); err == nil || s.given {
		t.Errorf("it is still on, but: %v, %t", err, s.given)
	}
	on = false
	if err := step.Do(t.Context()); err != nil || !s.given {
		t.Errorf("it is off, but: %v, %t", err, s.given)
	}
}

// Undone, maintenance-mode stays on while this host is banned: Pacemaker would stop the primary that was started
// again. What
// to type then is said in the order in which it is safe.
func TestLookAwayUndone(t *testing.T) {
	for _, test := range []struct {
		fails string
		left  bool
	}{{"--clear", false}, {"never", true}} {
		t.Run(test.fails, func(t *testing.T) {
			ran := fakes.Tools(t, test.fails)
			s := &Switchover{Who: reconcile.Who{Clone: model.Clone{ID: "ms"}}, back: &rejoin.Case{Node: "pm01"}}
			leave, lift := cib.DeleteProperty(operation.MaintenanceMode).String(), cib.ClearBan("ms", "pm01").String()
			broken := operation.Step{Text: "broken", Do: func(context.Context) error { return errors.New("broken") }}
			err := operation.Do(t.Context(), append(s.handOver()[:3], broken), func(string) {}) // maintenance, quiet, the ban
			text := ran()
			lifted, left := strings.LastIndex(text, lift), strings.Index(text, leave)
			if err == nil || lifted < 0 || left >= 0 != test.left || test.left && left < lifted {
				t.Errorf("%v; run were:\n%s", err, text)
			}
			typed := strings.Index(err.Error(), "type in this order: "+lift)
			if says := typed >= 0 && strings.LastIndex(err.Error(), leave) > typed; says == test.left {
				t.Errorf("it says: %v", err)
			}
		})
	}
}

// A shutdown ends when the standby has everything, which it is then found to have; and it can be undone: the server is the
// primary again, with the options of its start, on the same timeline, and the standby streams.
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
		Observer: on.observer(),
		place:    datadir.Place{Data: filepath.Join(server.Dir, "data"), Bin: fakes.Programs(t, server)},
		conninfo: standby.Conninfo(), address: "127.0.0.1", target: "pm02",
	}
	s.Clone.Parameters = map[string]string{"logfile": filepath.Join(server.Dir, "log-after-undo")}

	server.SQL("CREATE TABLE written AS SELECT generate_series(1, 10000) AS n")
	before := time.Now()
	step := s.shutDown()
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.place.Runs() || s.stopped.Before(before) || !s.end.IsValid() {
		t.Errorf("it runs: %t, its WAL ends at %s", s.place.Runs(), s.end)
	}
	if err := s.hasAll(t.Context()); err != nil {
		t.Errorf("after a clean shutdown: %v", err)
	}
	end := s.end
	s.end++
	if err := s.hasAll(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("up to %s, of %s", end, end+1)) {
		t.Errorf("a byte that nobody has: %v", err)
	}

	on = false
	if err := step.Undo(t.Context()); err == nil || s.place.Runs() {
		t.Errorf("Pacemaker has the database, but it was started: %v, %t", err, s.place.Runs())
	}
	on = true
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := server.SQL("SELECT pg_is_in_recovery(), current_setting('cluster_name'), timeline_id FROM pg_control_checkpoint()"); now != "f|of_the_command_line|1" {
		t.Errorf("after undo: %s", now)
	}
	server.Await("the standby streams again", streams)
	if err := step.Undo(t.Context()); err != nil { // of a shutdown that hangs, it must end it
		t.Errorf("undone while it runs: %v", err)
	}
	server.Await("the standby streams again", streams)

	server.Stop("fast")
	server.Configured("shared_preload_libraries = 'not_there'")
	if err := step.Undo(t.Context()); err == nil || !strings.Contains(err.Error(), `could not access file "not_there"`) {
		t.Errorf("a server that cannot start: %v", err)
	}
	server.Deconfigure("shared_preload_libraries")
	if err := step.Undo(t.Context()); err != nil {
		t.Errorf("a server that was mended: %v", err)
	}

	standby.Promote()
	if err := s.hasAll(t.Context()); err == nil || !strings.Contains(err.Error(), "no standby any more") {
		t.Errorf("a standby that was promoted: %v", err)
	}
}
