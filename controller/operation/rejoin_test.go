package operation

import "testing"

// Trap 46: a database is stopped when Pacemaker says so for certain, and not while it is being stopped, or was never looked at.
func TestTrap46Stopped(t *testing.T) {
	for name, test := range map[string]struct {
		roles     roles
		unsettled unsettled
		stopped   bool
	}{
		"stopped":        {roles{"pm01": "stopped"}, nil, true},
		"being stopped":  {roles{}, unsettled{"pm01": "stopping"}, false},
		"blocked":        {roles{"pm01": "unpromoted"}, unsettled{"pm01": "blocked"}, false},
		"nothing known":  {roles{}, nil, false},
		"runs":           {roles{"pm01": "unpromoted"}, nil, false},
		"others unclear": {roles{"pm01": "stopped"}, unsettled{"pm02": "failed"}, true},
	} {
		c := newTrio(t)
		c.clone.Roles, c.clone.Unsettled = test.roles, test.unsettled
		if err := stopped(t.Context(), c.on("pm01", "pm01"), place{data: c.data}); (err == nil) != test.stopped {
			t.Errorf("%s: %v", name, err)
		}
	}
}
