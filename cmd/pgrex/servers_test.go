package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// serverCommands are what scripts do with real PostgreSQL servers. A server has the name of its host; it ends with the
// script. (The name "stop" is testscript's own.)
var serverCommands = map[string]func(*testscript.TestScript, bool, []string){
	"server": startServer, "standby": startStandby, "twin": startTwin, "follow": follow,
	"sql": sql, "await": await, "rereads": rereads, "knows-primary": knowsPrimary,
	"start":            func(ts *testscript.TestScript, _ bool, args []string) { hostsOf(ts).get(ts, args[0]).Start() },
	"shutdown":         func(ts *testscript.TestScript, _ bool, args []string) { hostsOf(ts).get(ts, args[0]).Stop("fast") },
	"promote":          func(ts *testscript.TestScript, _ bool, args []string) { hostsOf(ts).get(ts, args[0]).Promote() },
	"config-elsewhere": func(ts *testscript.TestScript, _ bool, args []string) { hostsOf(ts).get(ts, args[0]).MoveConfig() },
	"access": func(ts *testscript.TestScript, _ bool, args []string) {
		hostsOf(ts).get(ts, args[0]).Access(args[1:]...)
	},
}

// hosts are one script's servers.
type hosts struct {
	t       testing.TB
	servers map[string]*pgserver.Server
}

type hostsKey struct{}

func hostsOf(ts *testscript.TestScript) *hosts { return ts.Value(hostsKey{}).(*hosts) }

func (h *hosts) get(ts *testscript.TestScript, name string) *pgserver.Server {
	s := h.servers[name]
	if s == nil {
		ts.Fatalf("the script has started no server %s", name)
	}
	return s
}

// add makes a server known to the script: $NAME_dir and $NAME_port say where it is, NAME.yaml are the settings of a
// pgrex on that host, with a state folder of its own. Its intervals are short, so that scripts need not wait.
func (h *hosts) add(ts *testscript.TestScript, name string, s *pgserver.Server) {
	h.servers[name] = s
	ts.Setenv(name+"_dir", s.Dir)
	ts.Setenv(name+"_port", fmt.Sprint(s.Port))
	settings := fmt.Sprintf("node: %s\npg-data: %[2]s/data\npg-socket-dir: %[2]s\nstate-dir: %[2]s/state\npg-port: %d\n"+
		"socket: %s.sock\ncib-dir: %s\nlook-interval: 100ms\nread-interval: 500ms\n",
		name, s.Dir, s.Port, name, ts.MkAbs("cib"))
	ts.Check(os.WriteFile(ts.MkAbs(name+".yaml"), []byte(settings), 0o644))
}

// server NAME [SETTING...] makes a database, starts it, and adds it.
func startServer(ts *testscript.TestScript, _ bool, args []string) {
	h := hostsOf(ts)
	h.add(ts, args[0], pgserver.New(h.t, args[1:]...))
}

// standby NAME OF [SETTING...] makes a standby of another host's server, and adds it.
func startStandby(ts *testscript.TestScript, _ bool, args []string) {
	h := hostsOf(ts)
	h.add(ts, args[0], h.get(ts, args[1]).Standby(args[2:]...))
}

// twin NAME OF ADDRESS makes a standby of the server OF, with the same port at another address, and adds it.
func startTwin(ts *testscript.TestScript, _ bool, args []string) {
	h := hostsOf(ts)
	h.add(ts, args[0], h.get(ts, args[1]).StandbyAt(args[2]))
}

// follow NAME OF starts a stopped server as a standby of another one, as the agent starts every server.
func follow(ts *testscript.TestScript, _ bool, args []string) {
	h := hostsOf(ts)
	h.get(ts, args[0]).Follow(h.get(ts, args[1]))
}

// knows-primary NAME [MEMBER=ADDRESS...] keeps in a host's state folder what its daemon would: how far its data go as
// those of the primary, and where the members stream from.
func knowsPrimary(ts *testscript.TestScript, _ bool, args []string) {
	s := hostsOf(ts).get(ts, args[0])
	flushed, err := model.ParseLSN(s.SQL("SELECT pg_current_wal_flush_lsn()"))
	ts.Check(err)
	state := controller.State{Format: 1, Standbys: map[string]string{}, Primary: &controller.LastPrimary{
		At: time.Now(), System: s.SQL("SELECT system_identifier FROM pg_control_system()"), Timeline: 1, Flushed: flushed,
	}}
	for _, arg := range args[1:] {
		member, address, _ := strings.Cut(arg, "=")
		state.Standbys[member] = address
	}
	text, err := json.Marshal(state)
	ts.Check(err)
	folder := filepath.Join(s.Dir, "state")
	owner, err := os.Stat(filepath.Join(s.Dir, "data"))
	ts.Check(err)
	ts.Check(os.MkdirAll(folder, 0o700))
	ts.Check(os.WriteFile(filepath.Join(folder, "state.json"), text, 0o600))
	for _, path := range []string{folder, filepath.Join(folder, "state.json")} {
		uid := owner.Sys().(*syscall.Stat_t)
		ts.Check(os.Chown(path, int(uid.Uid), int(uid.Gid)))
	}
}

// sql NAME QUERY prints the rows, columns separated by "|".
func sql(ts *testscript.TestScript, _ bool, args []string) {
	fmt.Fprintln(ts.Stdout(), hostsOf(ts).get(ts, args[0]).SQL(args[1]))
}

// await NAME QUERY ROWS waits until a query gives these rows.
func await(ts *testscript.TestScript, _ bool, args []string) {
	s, want := hostsOf(ts).get(ts, args[0]), args[2]
	var got string
	defer func() {
		if got != want {
			ts.Logf("%s: the last answer of %s was %q, not %q", args[0], args[1], got, want)
		}
	}()
	s.Await(args[1]+" gives "+want, func() bool {
		got, _ = s.Try(args[1]) // a server that is down has not answered yet
		return got == want
	})
}

// rereads SOCKET... waits until each daemon has looked at everything anew, from the beginning: the first pass that ends
// from now on may have begun before. What has not been done by then would not be done.
func rereads(ts *testscript.TestScript, _ bool, sockets []string) {
	seen := map[string][]time.Time{}
	deadline := time.Now().Add(patience)
	for len(sockets) > 0 {
		for _, socket := range sockets {
			status, err := controller.FetchStatus(hostsOf(ts).t.Context(), ts.MkAbs(socket))
			if err == nil && !slices.Contains(seen[socket], status.Read) {
				seen[socket] = append(seen[socket], status.Read)
			}
			if time.Now().After(deadline) {
				ts.Fatalf("%s: the daemon does not look again: %v", socket, err)
			}
		}
		sockets = slices.DeleteFunc(slices.Clone(sockets), func(s string) bool { return len(seen[s]) > 2 })
		time.Sleep(20 * time.Millisecond)
	}
}
