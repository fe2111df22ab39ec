package handover

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestHandoverHalfUndone: where Pacemaker cannot be told to look again, maintenance-mode stays: leaving it would
// restart the database. Where nothing was changed yet, it is left.
func TestHandoverHalfUndone(t *testing.T) {
	for _, test := range []struct {
		fails string // the option of crm_resource
		left  bool   // maintenance-mode
	}{
		{"--wait", true},
		{"--refresh", false},
	} {
		t.Run(test.fails, func(t *testing.T) {
			ran := fakes.Tools(t, test.fails)
			changed := fakes.ClusterOf(func() model.Cluster {
				return model.Cluster{Quorate: true, DC: "pm01", Nodes: []model.Node{{Name: "pm01", Online: true}}, Clones: []model.Clone{{ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true}}}
			})
			h := &Handover{Observer: &controller.Observer{Node: "pm01", Clusters: changed}}
			job := h.job(operation.Job{Operation: Adopt}, whoOf(changed()), &Plan{Prefix: "rex", Token: token})
			e := fakes.Engine(t, h.Observer)
			var said []string
			e.Report = func(line string) { said = append(said, line) }
			job.Steps = fakes.From(t, job.Steps, "maintenance") // all but the first look
			if err := e.Do(t.Context(), job); err == nil {
				t.Fatal("it has not failed")
			}
			left := operation.Maintenance{Primitive: "pgsql", Token: token}.Back()[0].(operation.Command)
			if left := strings.Contains(ran(), fakes.Typed(left.Command)); left != test.left {
				t.Errorf("maintenance-mode is left: %t, not %t; run were:\n%s", left, test.left, ran())
			}
			stays := strings.Contains(strings.Join(said, "\n"), "the steps before it stay done: crm_resource --resource pgsql --delete-parameter "+slotParameter)
			if stays == test.left || operation.Left(e.Folder).None() != test.left {
				t.Errorf("it says: %q, and leaves %v", said, operation.Left(e.Folder))
			}
		})
	}
}

// token is that of a hand-over.
var token = model.Token{Operation: Adopt, Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("7", 32)}

// whoOf is a cluster as the steps of a hand-over are made of it.
func whoOf(c model.Cluster) reconcile.Who {
	who := reconcile.Who{Clone: c.Clones[0]}
	who.Cluster = &c
	return who
}

// The journal is the data owner's: nothing of it gets into the CIB that pgrex would not have written there.
func TestForgedJournal(t *testing.T) {
	other := token
	other.Value = strings.Repeat("8", 32)
	blanks := token
	blanks.Host = "pm01 phase=maintenance"
	for name, plan := range map[string]Plan{
		"prefix": {Prefix: "$(id)", Token: token}, "empty prefix": {Token: token}, "another's token": {Prefix: "rex", Token: other},
		"a token with blanks": {Prefix: "rex", Token: blanks}, "": {Prefix: "rex", Token: token},
	} {
		text, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		h := &Handover{Observer: fakes.Lone()}
		_, err = h.Resume(t.Context(), &operation.Journal{Operation: Adopt, Token: token.Value, Plan: text})
		if (err == nil) != (name == "") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestHandoverPastLeaving: what goes wrong once maintenance-mode is left undoes nothing, because that would restart the
// database on every host. A standby that streams over another connection than before is found while it can still be
// undone; one that has connected anew before the first step is not taken for that.
func TestHandoverPastLeaving(t *testing.T) {
	const other = "rex"
	undo := cib.SetParameter("pgsql", slotParameter, other)
	const leave = "phase=given" // of the token, in the same change
	for name, test := range map[string]struct {
		after       string // what was run then
		interrupted bool
		reconnected bool
		undone      bool
		elsewhere   bool // the parameter is set, too
	}{
		"set elsewhere, too":            {undone: true, elsewhere: true},
		"interrupted after it was left": {after: leave, interrupted: true},
		"connected anew under it":       {after: "--refresh", reconnected: true, undone: true},
		"connected anew before":         {reconnected: true},
	} {
		t.Run(name, func(t *testing.T) {
			ran := fakes.Tools(t, "never")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			looks := 0
			now := func() bool { return strings.Contains(ran(), test.after) }
			clusters := fakes.ClusterOf(func() model.Cluster {
				role := model.RoleUnpromoted
				if test.interrupted && now() {
					role = model.RoleStopped // so that it goes on waiting
					cancel()
				}
				parameters := map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02"}
				if test.elsewhere || !strings.Contains(ran(), "--delete-parameter "+slotParameter) {
					parameters[slotParameter] = other
				}
				return model.Cluster{
					Quorate: true, DC: "pm01",
					Nodes: []model.Node{
						{Name: "pm01", Online: true, Transient: map[string]string{"pgsql-status": "PRI"}, Permanent: map[string]string{"pgsql-data-status": "LATEST"}},
						{Name: "pm02", Online: true},
					},
					Clones: []model.Clone{{ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
						Parameters: parameters,
						Roles:      map[string]model.Role{"pm01": model.RolePromoted, "pm02": role}}},
				}
			})
			slots := func() []model.Slot {
				pid := 7
				if test.reconnected && now() {
					pid = 8
					if looks++; test.undone && looks > 1 { // it would look again for two minutes
						cancel()
					}
				}
				return []model.Slot{{Name: other + "_pm02", Type: model.SlotPhysical, Active: true, ActivePID: pid}}
			}
			h := &Handover{Observer: &controller.Observer{Node: "pm01", Clusters: clusters,
				Connect: func(controller.Target) controller.Server { return fakes.Primary{Slots: slots} }}}
			who := whoOf(clusters())
			who.Policy, _ = model.PolicyOf(who.Clone)
			p := &Plan{
				Prefix: other, Token: token, Roles: who.Clone.Roles, Senders: map[string]int{"pm02": 7},
				Names: who.Policy.SlotNames(),
			}
			e := fakes.Engine(t, h.Observer)
			err := e.Do(ctx, h.job(operation.Job{Operation: Adopt, Token: token}, who, p))
			if (err != nil) != (test.interrupted || test.undone) {
				t.Errorf("it ends with %v", err)
			}
			text := ran()
			if undone := strings.Contains(text, fakes.Typed(undo)); undone != test.undone {
				t.Errorf("undone: %t, not %t (%v); run were:\n%s", undone, test.undone, err, text)
			}
			if !strings.Contains(text, "name=\"maintenance-mode\" value=\"false\"") {
				t.Errorf("maintenance-mode is still on (%v); run were:\n%s", err, text)
			}
		})
	}
}

// Trap 46: what a refresh would forget is put right before the slots are handed over; otherwise nobody could tell
// afterwards that all is as before, and maintenance-mode would stay.
func TestTrap46NoHandoverWhileUnsettled(t *testing.T) {
	for _, why := range []model.Unsettled{model.UnsettledFailed, model.UnsettledBlocked, model.UnsettledStarting} {
		c := fakes.NewTrio(t)
		c.Clone.Unsettled = fakes.Unsettled{"pm03": why}
		_, err := (&Handover{Observer: c.On("pm01", "pm01")}).Adopt(t.Context())
		if err == nil || !strings.Contains(err.Error(), "to Pacemaker the database on pm03 is "+string(why)) {
			t.Errorf("%s: %v", why, err)
		}
	}
	job, err := (&Handover{Observer: fakes.NewTrio(t).On("pm01", "pm01")}).Adopt(t.Context())
	if err != nil || len(job.Steps) == 0 {
		t.Errorf("with nothing unsettled: %v, %v", job.Steps, err)
	}
}
