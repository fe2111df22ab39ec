package rejoin

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

// Trap 46: a database is stopped when Pacemaker says so for certain, and not while it is being stopped, or was never
// looked at.
func TestTrap46Stopped(t *testing.T) {
	for name, test := range map[string]struct {
		roles     fakes.Roles
		unsettled fakes.Unsettled
		stopped   bool
	}{
		"stopped":        {fakes.Roles{"pm01": "stopped"}, nil, true},
		"being stopped":  {fakes.Roles{}, fakes.Unsettled{"pm01": "stopping"}, false},
		"blocked":        {fakes.Roles{"pm01": "unpromoted"}, fakes.Unsettled{"pm01": "blocked"}, false},
		"nothing known":  {fakes.Roles{}, nil, false},
		"runs":           {fakes.Roles{"pm01": "unpromoted"}, nil, false},
		"others unclear": {fakes.Roles{"pm01": "stopped"}, fakes.Unsettled{"pm02": "failed"}, true},
	} {
		c := fakes.NewTrio(t)
		c.Clone.Roles, c.Clone.Unsettled = test.roles, test.unsettled
		if err := Stopped(t.Context(), c.On("pm01", "pm01"), datadir.Place{Data: c.Data}); (err == nil) != test.stopped {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A change between the question and the answer ends a rejoin before anything is done. Otherwise its undo would undo
// what another operation has done. For a rejoin that goes on, the change may be its own.
func TestNoLongerAsItWas(t *testing.T) {
	c := fakes.NewTrio(t)
	r := &Rejoin{Observer: c.On("pm02", "pm02")}
	found, err := r.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	still := func() error { return r.StillPrimary(found).Do(t.Context()) }
	if err := still(); err != nil {
		t.Error(err)
	}
	refused := func() {
		t.Helper()
		if err := still(); err == nil || !strings.Contains(err.Error(), "another operation has stopped or started the database here") {
			t.Errorf("after a stop: %v", err)
		}
	}
	c.Standby = "pm02"
	refused()
	c.Standby = ""
	c.Clone.Locations = []model.Location{{ID: model.StopConstraint("pgsql", "pm02"), Node: "pm02", Score: "-INFINITY"}}
	refused()
	r.Left = &operation.Journal{}
	if err := still(); err != nil {
		t.Error(err)
	}
}
