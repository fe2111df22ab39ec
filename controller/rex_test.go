package controller_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// rex is a PG-REX cluster of real servers, on which plans are made and applied as the daemon does it. What Pacemaker would
// say is told by hand: who is the primary, and who is off.
type rex struct {
	forecasts map[string]string // what the hosts have published
	t         *testing.T
	hosts     []*host // those that have a server, in order of name; pm01 is the first primary
	members   []string
	primary   string
	off       []string
	orphans   string // pgrex-orphans
	xminAge   string // pgrex-xmin-age
	budget    string // pgrex-wal-budget; a share of the disk would change with what others write there
}

// host is one server and pgrex on it.
type host struct {
	*pgserver.Server
	rex      *rex
	name     string
	observer *controller.Observer
	digest   string // of the last plan, so that one that goes on saying the same is logged once
}

// newRex starts pm01 and its standbys. They know of no slot yet.
func newRex(t *testing.T, servers int, settings ...string) *rex {
	t.Helper()
	r := &rex{t: t, primary: "pm01", orphans: "report", xminAge: "0", budget: "1GB"}
	primary := pgserver.New(t, append([]string{"cluster_name = pm01"}, settings...)...)
	r.add("pm01", primary)
	for i := range servers - 1 {
		name := fmt.Sprintf("pm%02d", i+2)
		r.add(name, primary.Standby("cluster_name = "+name)) // the application_name of its walreceiver
	}
	t.Logf("PostgreSQL %s", primary.SQL("SHOW server_version"))
	return r
}

func (r *rex) add(name string, server *pgserver.Server) {
	h := &host{Server: server, rex: r, name: name}
	h.observer = &controller.Observer{
		Node: name, Clusters: r, Attributes: r,
		Override: controller.Target{DataDir: server.Dir + "/data", SocketDir: server.Dir, Port: server.Port},
		Connect: func(t controller.Target) controller.Server {
			return postgres.NewServer(postgres.Config{DataDir: t.DataDir, SocketDir: t.SocketDir, Port: t.Port, User: t.User, Database: t.Database})
		},
	}
	r.t.Cleanup(h.observer.Close)
	r.hosts, r.members = append(r.hosts, h), append(r.members, name)
}

// addAbsent adds a member that has never been there.
func (r *rex) addAbsent(name string) { r.members, r.off = append(r.members, name), append(r.off, name) }

func (r *rex) host(name string) *host {
	return r.hosts[slices.IndexFunc(r.hosts, func(h *host) bool { return h.name == name })]
}

// running are the hosts that are not off, the primary first.
func (r *rex) running() []*host {
	return append([]*host{r.host(r.primary)}, r.standbys()...)
}

func (r *rex) standbys() []*host {
	return slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return h.name == r.primary || slices.Contains(r.off, h.name) })
}

// Read implements controller.ClusterReader: a healthy cluster, in which some hosts are off.
func (r *rex) Read(context.Context) (model.Cluster, error) {
	clone := model.Clone{
		ID: "msPostgresql", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
		Parameters: map[string]string{"rep_mode": "sync", "node_list": strings.Join(r.members, " ")},
		Meta:       map[string]string{model.MetaOrphans: r.orphans, model.MetaXMinAge: r.xminAge, model.MetaWALBudget: r.budget},
		Roles:      map[string]model.Role{},
	}
	c := model.Cluster{Quorate: true, DC: "pm01", Version: model.Version{Epoch: 10}}
	attached := r.attached()
	names := slices.Clone(r.members)
	for _, h := range r.hosts {
		names = append(names, h.name) // one that is no member any more is a node all the same
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		n := model.Node{Name: name, Online: !slices.Contains(r.off, name)}
		switch {
		case name == r.primary:
			clone.Roles[name] = model.RolePromoted
			n.Transient = map[string]string{"pgsql-status": "PRI"}
			n.Permanent = map[string]string{"pgsql-data-status": "LATEST"}
		case n.Online:
			clone.Roles[name] = model.RoleUnpromoted
			n.Permanent = map[string]string{"pgsql-data-status": cmp.Or(attached[name], "DISCONNECT")}
		}
		if text, ok := r.forecasts[name]; ok && n.Online {
			n.Transient = maps.Clone(n.Transient)
			if n.Transient == nil {
				n.Transient = map[string]string{}
			}
			n.Transient[model.ForecastAttribute("pgsql")] = text
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.Clones = []model.Clone{clone}
	return c, nil
}

// SetAttribute implements controller.AttributeSetter.
func (r *rex) SetAttribute(_ context.Context, node, _, value string) error {
	if r.forecasts == nil {
		r.forecasts = map[string]string{}
	}
	r.forecasts[node] = value
	return nil
}

// attached is what the agent on the primary makes of pg_stat_replication, by application_name.
func (r *rex) attached() map[string]string {
	states := map[string]string{}
	for _, h := range r.hosts {
		if h.name != r.primary {
			continue
		}
		rows, _ := h.Try("SELECT application_name, upper(state) || '|' || upper(sync_state) FROM pg_stat_replication") // none while it is down
		for row := range strings.Lines(rows) {
			name, state, _ := strings.Cut(strings.TrimSpace(row), "|")
			states[name] = state
		}
	}
	return states
}

// plan observes the host and its upstream, and decides.
func (h *host) plan() model.Plan {
	t := h.rex.t
	t.Helper()
	who, err := h.observer.Full(t.Context())
	if err != nil {
		t.Fatalf("%s: observe: %v", h.name, err)
	}
	plan := who.Plan()
	digest := fmt.Sprint(plan.Standing)
	for _, step := range plan.Steps {
		digest += " " + step.Kind() + " " + step.Text()
	}
	for _, f := range plan.Findings {
		digest += " " + string(f.Code) + " " + f.Subject
	}
	if digest != h.digest {
		t.Log(plan)
		h.digest = digest
	}
	return plan
}

func (h *host) apply(steps ...model.Step) controller.Result {
	log := funcr.New(func(_, line string) { h.rex.t.Logf("%s: %s", h.name, line) }, funcr.Options{Verbosity: 1})
	return controller.Apply(h.rex.t.Context(), h.observer, steps, log)
}

// planForServer is the plan without what is published: that is not the server's.
func (h *host) planForServer() model.Plan {
	h.rex.t.Helper()
	plan := h.plan()
	plan.Steps = slices.DeleteFunc(plan.Steps, func(s model.Step) bool { _, ok := s.(model.PublishAttribute); return ok })
	return plan
}

// pass is one of the daemon's.
func (h *host) pass() (model.Plan, controller.Result) {
	h.rex.t.Helper()
	plan := h.plan()
	result := h.apply(plan.Steps...)
	for _, f := range result.Failures {
		h.rex.t.Logf("%s: %s: %s: %s", h.name, f.Step, f.Class, f.Text)
	}
	return plan, result
}

// passUntil has every running host pass, again and again, until a condition holds.
func (r *rex) passUntil(what string, condition func() bool) {
	r.t.Helper()
	r.host(r.primary).Await(what, func() bool {
		for _, h := range r.running() {
			h.pass()
		}
		return condition()
	})
}

// settle passes until no host has anything to do or to wait for. The primary passes last, too: a standby that goes over to
// its slot is away for a moment, and what the primary publishes changes once it is back.
func (r *rex) settle() {
	r.t.Helper()
	r.host(r.primary).Await("nothing is left to do", func() bool {
		quiet := true
		for _, h := range append(r.running(), r.host(r.primary)) {
			plan, _ := h.pass()
			quiet = quiet && len(plan.Steps) == 0 && plan.RecheckAfter > time.Second
		}
		return quiet
	})
}

// write makes WAL, and a checkpoint on every running host that has it all.
func (r *rex) write(megabytes int) {
	r.t.Helper()
	r.host(r.primary).WriteWAL(megabytes)
	for _, s := range r.standbys() {
		r.host(r.primary).CatchUp(s.Server)
	}
}

// stop stops a host's server, and has Pacemaker know.
func (r *rex) stop(name, mode string) {
	r.t.Helper()
	r.host(name).Stop(mode)
	r.off = append(r.off, name)
}

// started has Pacemaker know that a host is back.
func (r *rex) started(name string) {
	r.off = slices.DeleteFunc(r.off, func(n string) bool { return n == name })
}

// promote makes a standby the primary. The others go with the primary's address, as they do with PG-REX.
func (r *rex) promote(name string) {
	r.t.Helper()
	h := r.host(name)
	h.Promote()
	r.primary = name
	for _, s := range r.standbys() {
		s.Configure("primary_conninfo = '" + h.Conninfo() + "'")
	}
}

// slotFor is a host's slot for another one, as it is now.
func (h *host) slotFor(member string) model.Slot {
	h.rex.t.Helper()
	slots := h.instance().Slots
	i := slices.IndexFunc(slots, func(s model.Slot) bool { return s.Name == "pgrex_"+member })
	if i < 0 {
		h.rex.t.Fatalf("%s has no slot for %s", h.name, member)
	}
	return slots[i]
}

func (h *host) instance() model.Instance {
	h.rex.t.Helper()
	in, err := h.observer.Look(h.rex.t.Context())
	if err == nil && in.Cluster == nil { // the first look of all
		in, err = h.observer.Full(h.rex.t.Context())
	}
	if err != nil {
		h.rex.t.Fatal(err)
	}
	return in.Instance
}

// wantProtected wants what pgrex is for: on every running host a slot for every other member that holds WAL, and no
// further one of ours, and every running standby streaming through its own.
func (r *rex) wantProtected() {
	r.t.Helper()
	for _, h := range r.running() {
		var want []string
		for _, m := range r.members {
			if m != h.name {
				want = append(want, "pgrex_"+m)
			}
		}
		var got []string
		for _, s := range h.instance().Slots {
			if s.Reserved() && s.Type == model.SlotPhysical && strings.HasPrefix(s.Name, "pgrex_") {
				got = append(got, s.Name)
			}
		}
		if !slices.Equal(got, want) {
			r.t.Errorf("%s has the reserved slots %v, not %v", h.name, got, want)
		}
	}
	for _, s := range r.standbys() {
		if i := s.instance(); !i.Receiver.Streaming() || i.Receiver.SlotName != "pgrex_"+s.name {
			r.t.Errorf("%s does not stream through its slot: %+v", s.name, i.Receiver)
		}
		if slot := r.host(r.primary).slotFor(s.name); !slot.Active {
			r.t.Errorf("nobody uses the slot for %s: %+v", s.name, slot)
		}
	}
}

// kept is what pgrex can change on a host: its slots, and the file that ALTER SYSTEM writes. An attached slot moves with
// its owner.
func (h *host) kept() string {
	h.rex.t.Helper()
	file := filepath.Join(h.Dir, "data", "postgresql.auto.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		h.rex.t.Fatal(err)
	}
	stat, err := os.Stat(file)
	if err != nil {
		h.rex.t.Fatal(err)
	}
	return h.SQL("SELECT slot_name, slot_type, active_pid, CASE WHEN NOT active THEN restart_lsn END, CASE WHEN NOT active THEN xmin END "+
		"FROM pg_replication_slots ORDER BY slot_name") + "\n" + string(text) + stat.ModTime().String()
}

// finding is the plan's of a code, or none.
func finding(plan model.Plan, code model.Code) model.Finding {
	i := slices.IndexFunc(plan.Findings, func(f model.Finding) bool { return f.Code == code })
	if i < 0 {
		return model.Finding{}
	}
	return plan.Findings[i]
}
