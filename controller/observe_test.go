package controller

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// pacemaker is what Pacemaker says of itself, and how often it was asked.
type pacemaker struct {
	name  string
	err   error
	asked int
}

func (p *pacemaker) LocalName(context.Context) (string, error) {
	p.asked++
	return p.name, p.err
}

func (p *pacemaker) Tools(context.Context) (cib.Tools, error) {
	return cib.Tools{Version: "3.0.0"}, nil
}
func (p *pacemaker) AgentVersion(_ context.Context, agent string) string { return agent + " 4.16.0" }

// Trap 36: Pacemaker is asked for this host's name once, again after each outage, and at every look while it does not
// answer.
func TestAsksForItsOwnName(t *testing.T) {
	for _, variable := range []string{"CIB_file", "CIB_shadow"} {
		t.Setenv(variable, "")
	}
	w, p := newWorld(), &pacemaker{name: "PM01"}
	o := &Observer{Node: "pm01", Clusters: w, Pacemaker: p, Connect: func(Target) Server { return w }}
	look := func(asked int, standing model.Standing, code model.Code) {
		t.Helper()
		who, err := o.Full(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		plan := who.Plan()
		found := code == "" || len(plan.Findings) > 0 && plan.Findings[0].Code == code
		if p.asked != asked || plan.Standing != standing || !found {
			t.Errorf("asked %d times, not %d; it is %s, not %s: %v", p.asked, asked, plan.Standing, standing, plan.Findings)
		}
	}
	look(1, model.Primary, "")
	look(1, model.Primary, "")
	if who, err := o.Look(t.Context()); err != nil || who.Versions != (model.Versions{Pacemaker: "3.0.0", ResourceAgents: "ocf:heartbeat:pgsql 4.16.0"}) {
		t.Errorf("the versions are %v, %v", who.Versions, err)
	}

	w.clusterErr = errors.New("the cluster is down")
	look(1, model.InTransition, model.CodeClusterUnknown)
	w.clusterErr, p.name = nil, "pm02" // the host has been put into the cluster again, by another name
	look(2, model.InTransition, model.CodeNodeDiffers)
	look(2, model.InTransition, model.CodeNodeDiffers)

	w.clusterErr = errors.New("the cluster is down")
	look(2, model.InTransition, model.CodeClusterUnknown)
	w.clusterErr, p.name, p.err = nil, "", cib.ErrTimeout
	look(3, model.InTransition, model.CodeClusterUnknown)
	look(4, model.InTransition, model.CodeClusterUnknown)
	p.name, p.err = "pm01", nil
	look(5, model.Primary, "")

	if _, err := o.Cluster(t.Context()); err != nil || p.asked != 5 {
		t.Errorf("asked %d times, %v", p.asked, err)
	}
}

// With a CIB file nobody is asked, and the look says so.
func TestIsNotAskedAboutAFile(t *testing.T) {
	t.Setenv("CIB_file", "cib.xml")
	w, p := newWorld(), &pacemaker{name: "elsewhere"}
	o := &Observer{Node: "pm01", Clusters: w, Pacemaker: p, Connect: func(Target) Server { return w }}
	who, err := o.Full(t.Context())
	if err != nil || p.asked > 0 || who.Standing != model.Primary || who.LocalName != (model.LocalName{NotAsked: "CIB_file=cib.xml is set"}) {
		t.Errorf("asked %d times; %s, %v, %v", p.asked, who.Standing, who.LocalName, err)
	}
}

// A host that is no node of the cluster is an error that names the nodes; what is the cluster's own is known all the
// same.
func TestLooksFromElsewhere(t *testing.T) {
	w := newWorld()
	o := &Observer{Node: "pm09", Clusters: w}
	who, err := o.Cluster(t.Context())
	if _, is := errors.AsType[*reconcile.InputError](err); !is || !strings.Contains(err.Error(), "pm01, pm02") || who.Clone.ID != "ms" {
		t.Errorf("%v, %v", who.Clone.ID, err)
	}
}
