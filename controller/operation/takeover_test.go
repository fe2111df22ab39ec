package operation_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

// holder is the token of an operation on pm01.
func holder(name string, phase model.Phase) model.Token {
	return model.Token{
		Operation: name, Host: "pm01", Phase: phase, Value: strings.Repeat("7", 32), Begun: time.Date(2026, 11, 30, 3, 20, 11, 0, time.UTC),
	}
}

// pair is a cluster of two, as pm02 sees it, whose pm01 is off and known to be.
func pair(change func(c *model.Cluster)) *controller.Observer {
	return &controller.Observer{Node: "pm02", Clusters: fakes.ClusterOf(func() model.Cluster {
		c := model.Cluster{
			Quorate: true, DC: "pm02", Nodes: []model.Node{{Name: "pm01"}, {Name: "pm02", Online: true}, {Name: "pm03", Online: true}},
			Clones: []model.Clone{{
				ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
				Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02 pm03"},
			}},
		}
		change(&c)
		return c
	})}
}

// Trap 48: nobody ends an operation that its own host may go on with: while that is there, or not known to be off, or
// nobody can know because the quorum is elsewhere. What was so at the question is looked at again before anything is
// changed.
func TestTrap48TakeOverOfWhatMayGoOn(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *model.Cluster)
		says   string // "" for nothing
	}{
		"off":       {func(*model.Cluster) {}, ""},
		"no node":   {func(c *model.Cluster) { c.Nodes = c.Nodes[1:] }, ""},
		"online":    {func(c *model.Cluster) { c.Nodes[0].Online = true }, "pm01 is online, and has the journal: type on pm01: sudo pgrex operation show"},
		"pending":   {func(c *model.Cluster) { c.Nodes[0].Pending = true }, "pm01 may still be running"},
		"unclean":   {func(c *model.Cluster) { c.Nodes[0].Unclean = true }, "pm01 may still be running"},
		"no quorum": {func(c *model.Cluster) { c.Quorate = false }, "this partition has no quorum"},
		"no quorum, and no node": {func(c *model.Cluster) { c.Quorate, c.Nodes = false, c.Nodes[1:] },
			"this partition has no quorum"},
		"just booted": {func(c *model.Cluster) { c.DC, c.Nodes[1].Online, c.Nodes[2].Online = "", false, false },
			"pm02, has not joined the cluster"},
		"joining": {func(c *model.Cluster) { c.Nodes[1].Pending = true }, "pm02, has not joined the cluster"},
		"no DC":   {func(c *model.Cluster) { c.DC = "" }, "no DC yet"},
	} {
		for _, phase := range []model.Phase{model.PhaseBegun, model.PhaseMaintenance, model.PhaseGiven} {
			_, err := operation.TakeOver(t.Context(), pair(test.change), holder("switchover", phase))
			if name == "unclean" && phase == model.PhaseMaintenance { // in which nobody is fenced
				if err != nil {
					t.Errorf("%s, %s: %v", name, phase, err)
				}
				continue
			}
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s, %s: %v", name, phase, err)
			}
		}
		now := func(*model.Cluster) {}
		o := pair(func(c *model.Cluster) { now(c) })
		actions, err := operation.TakeOver(t.Context(), o, holder("switchover", model.PhaseBegun))
		if err != nil {
			t.Fatal(err)
		}
		ran := fakes.Tools(t, "never")
		now = test.change
		err = fakes.Engine(t, o).Run(t.Context(), actions)
		if (err == nil) != (test.says == "") || err != nil && (!strings.Contains(err.Error(), test.says) || ran() != "") {
			t.Errorf("%s at the answer: %v; run were %s", name, err, ran())
		}
	}
}

// A host ends its own operation, whose journal is lost, from the token.
func TestTakeOverOfOnesOwn(t *testing.T) {
	o := pair(func(c *model.Cluster) { c.Nodes[0].Online = true })
	o.Node = "pm01"
	if actions, err := operation.TakeOver(t.Context(), o, holder("rejoin", model.PhaseBegun)); err != nil || len(actions) != 3 {
		t.Errorf("%v, %v", actions, err)
	}
}

// What ends each operation in each phase.
func TestTakeOverActions(t *testing.T) {
	const (
		see     = "see that the operation is still left on pm01"
		take    = "take over the token in the CIB"
		bans    = "crm_resource --clear --resource ms"
		settle  = "crm_resource --wait --timeout=25s"
		refresh = "crm_resource --refresh --resource pgsql --node "
		roles   = "wait until Pacemaker knows the role of every host"
		leave   = "set maintenance-mode=false, and the token to phase given (cibadmin --modify)"
		drop    = "remove maintenance-mode=false from the CIB"
		remove  = "remove the token from the CIB"
	)
	look := []string{settle, refresh + "pm02", refresh + "pm03", roles}
	for _, test := range []struct {
		operation string
		phase     model.Phase
		want      []string
	}{
		{"switchover", model.PhaseBegun, []string{see, take, bans, remove}},
		{"switchover", model.PhaseMaintenance, []string{see, take, bans, leave, drop, remove}},
		{"switchover", model.PhaseGiven, []string{see, take, bans, drop, remove}},
		{"adopt", model.PhaseBegun, []string{see, take, remove}},
		{"adopt", model.PhaseMaintenance, slices.Concat([]string{see, take}, look, []string{leave, drop, remove})},
		{"adopt", model.PhaseGiven, []string{see, take, drop, remove}},
		{"release", model.PhaseMaintenance, slices.Concat([]string{see, take}, look, []string{leave, drop, remove})},
		{"release", model.PhaseGiven, []string{see, take, drop, remove}},
		{"rejoin", model.PhaseBegun, []string{see, take, remove}},
		{"start", model.PhaseBegun, []string{see, take, remove}},
		{"stop", model.PhaseBegun, []string{see, take, remove}},
	} {
		actions, err := operation.TakeOver(t.Context(), pair(func(*model.Cluster) {}), holder(test.operation, test.phase))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range actions {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s in phase %s (-wanted +is):\n%s", test.operation, test.phase, diff)
		}
	}
}

// Where a parameter may be changed, maintenance-mode is left only once Pacemaker knows every role.
func TestTakeOverWaitsForRoles(t *testing.T) {
	ran := fakes.Tools(t, "never")
	looks := 0
	o := pair(func(c *model.Cluster) {
		if looks++; looks < 6 {
			c.Clones[0].Unsettled = fakes.Unsettled{"pm03": "unknown"}
		} else if strings.Contains(ran(), "maintenance-mode") {
			t.Errorf("maintenance-mode was left before; run were %s", ran())
		}
	})
	actions, err := operation.TakeOver(t.Context(), o, holder("adopt", model.PhaseMaintenance))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(actions, func(a operation.Action) bool {
		return a.String() == "wait until Pacemaker knows the role of every host"
	})
	if err := fakes.Engine(t, o).Run(t.Context(), actions[:i+1]); err != nil || looks != 6 {
		t.Errorf("%d looks, %v", looks, err)
	}
}

// Roles that Pacemaker never knows end it, and maintenance-mode stays.
func TestTakeOverWithoutRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := pair(func(c *model.Cluster) { c.Clones[0].Unsettled = fakes.Unsettled{"pm03": "blocked"} })
		actions, err := operation.TakeOver(t.Context(), o, holder("release", model.PhaseMaintenance))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(actions, func(a operation.Action) bool { return strings.HasPrefix(a.String(), "wait until Pacemaker knows") })
		if err := actions[i].Do(t.Context()); err == nil || !strings.Contains(err.Error(), "pm03 is blocked") {
			t.Errorf("it says %v", err)
		}
	})
}

// An operation whose host has gone off is ended from another one, on a CIB, and a process that is killed at that
// anywhere leaves what the next one ends.
func TestTakeOverOnACIB(t *testing.T) {
	w := newWorld(t)
	token := holder("switchover", model.PhaseBegun)
	m := operation.Maintenance{Primitive: "pgsql", Token: token}
	for _, command := range []cib.Command{
		cib.BanPromoted("msPostgresql", "pm02"), cib.CreateToken("pgsql", token), m.Enter().Command, cib.Ban("msPostgresql", "pm01"),
	} {
		w.must(command.Run(t.Context()))
	}
	data, err := os.ReadFile(w.cib())
	w.must(err)
	const online = `uname="pm01" in_ccm="true" crmd="online" join="member" expected="member"`
	off := strings.Replace(string(data), online, `uname="pm01" in_ccm="false" crmd="offline" join="down" expected="down"`, 1)
	w.must(os.WriteFile(w.cib(), []byte(off), 0o600))
	if c := w.cluster(); off == string(data) || !c.Maintenance || len(c.Clones[0].Locations) != 2 {
		t.Fatalf("the cluster is not as it was to be: %+v", c)
	}
	begin := w.kept()
	e := w.engine("pm02")
	actions := w.takeOver(e)
	if len(actions) != 6 {
		t.Fatalf("it does %v", actions)
	}
	for i := range actions {
		for _, at := range []fakes.Point{fakes.Before, fakes.Between} {
			w.set(begin)
			actions := w.takeOver(e)
			actions[i] = fakes.Kill(actions[i], at)
			if err := fakes.Ends(e, func(e *operation.Engine) error { return e.Run(t.Context(), actions) }); !errors.Is(err, fakes.ErrKilled) {
				t.Fatal(err)
			}
			if _, is, _ := w.cluster().Token("pgsql"); is {
				w.must(e.Run(t.Context(), w.takeOver(e)))
			} else if i != len(actions)-1 || at != fakes.Between {
				t.Errorf("the token went before the rest: %s, %s", actions[i], at)
			}
			c := w.cluster()
			_, is, err := c.Token("pgsql")
			text, readErr := os.ReadFile(w.cib())
			w.must(readErr)
			if is || err != nil || c.Maintenance || len(c.Clones[0].Locations) > 0 || strings.Contains(string(text), "maintenance-mode") {
				t.Errorf("killed at %s, %s, and done again: the token is there: %t, %v; %s", actions[i], at, is, err, text)
			}
		}
	}
}

// takeOver plans to end the operation of the token in the CIB.
func (w *world) takeOver(e *operation.Engine) []operation.Action {
	w.t.Helper()
	token, is, err := w.cluster().Token("pgsql")
	w.must(err)
	if !is {
		w.t.Fatal("there is no token")
	}
	actions, err := operation.TakeOver(w.t.Context(), e.Observer, token)
	w.must(err)
	return actions
}

// A host that is back goes on with its operation no more once another one has ended it.
func TestBackAfterTakeOver(t *testing.T) {
	w := newWorld(t)
	w.guarded = true
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "two", fakes.After)
	var commands []operation.Action
	token, _, err := w.cluster().Token("pgsql")
	w.must(err)
	m := operation.Maintenance{Primitive: "pgsql", Token: token}
	commands = append(commands, m.Leave(w.engine("pm02").Observer), m.Drop())
	token.Phase = model.PhaseGiven
	commands = append(commands, operation.Command{Command: cib.DeleteToken("pgsql", token)})
	w.must(w.engine("pm02").Run(t.Context(), commands))
	before := w.effects()
	w.must(w.undo())
	w.wantEnd(before)
	// Nor does a step of its own enter maintenance-mode under a token that is gone.
	if err := m.Enter().Do(t.Context()); !errors.Is(err, cib.ErrNoMatch) || w.cluster().Maintenance {
		t.Errorf("it is entered: %v", err)
	}
}
