package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

const leftHere = "pgrex-operation-pgsql"

// An operation that was left is published from the next look on, though there is no primary and the cluster is in
// maintenance. Once it has been finished the attribute is removed.
func TestPublishesAnOperationThatIsLeft(t *testing.T) {
	w := newWorld()
	w.cluster.Maintenance = true
	w.cluster.Clones[0].Roles = map[string]model.Role{"pm01": model.RoleUnpromoted, "pm02": model.RoleUnpromoted}
	w.cluster.Nodes[0].Transient["pgsql-status"] = "HS:alone"
	w.instance.InRecovery = true
	live(t, w, false, func() {
		w.pass(time.Minute)
		if w.tried(leftHere) != 0 {
			t.Fatalf("did %q", w.applied)
		}
		w.left = &model.LocalOperation{Operation: "switchover", Running: true}
		w.pass(5 * time.Second)
		if w.tried(leftHere) != 0 || w.said("OperationUnfinished") != 0 {
			t.Errorf("while it runs: did %q", w.applied)
		}
		w.left = &model.LocalOperation{Operation: "switchover"}
		w.pass(2 * time.Second)
		told := strings.Contains(w.status.Summary, "sudo pgrex operation show")
		if w.tried("pm01 "+leftHere+"=switchover") != 1 || w.status.Healthy || !told {
			t.Errorf("it is left: did %q, and says %s", w.applied, w.status.Summary)
		}
		w.left = nil
		w.pass(5 * time.Second)
		if last := w.applied[len(w.applied)-1]; last != "pm01 "+leftHere+"=" || w.tried(leftHere) != 2 {
			t.Errorf("it is finished: did %q", w.applied)
		}
	})
}

// A token of this host without a journal means that the state folder was lost. But an operation that has just ended is
// not reported, though the CIB at hand still has its token.
func TestSaysThatAJournalIsLost(t *testing.T) {
	w := newWorld()
	w.cluster.Properties = map[string]string{model.TokenName("pgsql"): model.Token{
		Operation: "rejoin", Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("1", 32),
	}.String()}
	w.left = &model.LocalOperation{Operation: "rejoin", Running: true}
	live(t, w, false, func() {
		w.pass(5 * time.Second)
		if w.said("OperationUnderWay") == 0 {
			t.Errorf("while it runs: said %q", w.log)
		}
		w.left = &model.LocalOperation{}
		w.pass(5 * time.Second)
		if w.said("OperationUnfinished") != 0 {
			t.Errorf("it has just ended: said %q", w.log)
		}
		w.pass(time.Minute)
		if w.said("OperationUnfinished") == 0 || w.tried("pm01 "+leftHere+"=rejoin") != 1 {
			t.Errorf("its journal is lost: said %q, did %q", w.log, w.applied)
		}
	})
}

// What is left here is said without a cluster, too.
func TestSaysThatAnOperationIsLeftWithoutACluster(t *testing.T) {
	w := newWorld()
	w.clusterErr, w.left = errors.New("the cluster is down"), &model.LocalOperation{Operation: "rejoin"}
	live(t, w, false, func() {
		if w.said("OperationUnfinished") != 1 || len(w.applied) > 0 {
			t.Errorf("did %q, said %q", w.applied, w.log)
		}
	})
}

// The attribute about an operation depends on no slot, and no slot and no forecast on it.
func TestOperationAndSlotsAreIndependent(t *testing.T) {
	for _, fails := range []string{leftHere, "slot pgrex_pm02 for pm02"} {
		w := newWorld()
		w.left = &model.LocalOperation{Operation: "rejoin"}
		w.cluster.Nodes[0].Transient[model.ForecastAttribute("pgsql")] = "pm02=copy"
		w.fail[fails] = failing(postgres.Permission)
		live(t, w, false, func() {
			for _, step := range []string{leftHere, "slot pgrex_pm02"} {
				if w.tried(step) != 1 {
					t.Errorf("%s fails, and %s was tried %d times", fails, step, w.tried(step))
				}
			}
			if forecast := w.tried(model.ForecastAttribute("pgsql")); (forecast > 0) != (fails == leftHere) {
				t.Errorf("%s fails, and the forecast was published %d times", fails, forecast)
			}
		})
	}
}
