package rejoin

import (
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
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
