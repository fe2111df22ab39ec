package operation_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
)

// Without a person, no ban is removed. What a person does while the operation is under way ends it before Pacemaker may
// start the database, and before the first step.
func TestAlone(t *testing.T) {
	const begun = "allowed-before-first first"
	const all = begun + " allowed-before-cleanup cleanup allowed-before-let-back let-back"
	stop := model.Location{ID: model.StopConstraint("pgsql", "pm02"), Node: "pm02", Score: "-INFINITY"}
	for name, test := range map[string]struct {
		meta, value string
		location    model.Location
		standby     string
		way, why    string
	}{
		"nothing":            {},
		"paused":             {meta: model.MetaPaused, value: "true", why: "pgrex-paused is true"},
		"none":               {meta: model.MetaAutoRejoin, value: "none", why: "pgrex-auto-rejoin is none"},
		"less":               {meta: model.MetaAutoRejoin, value: "start", why: "does not allow rewind"},
		"the data as is":     {meta: model.MetaAutoRejoin, value: "start", way: "start"},
		"target-role":        {meta: "target-role", value: "Stopped", why: "target-role is Stopped"},
		"a ban":              {location: model.Location{ID: "cli-ban-ms-on-pm02", Node: "pm02", Score: "-INFINITY"}, why: "the constraint cli-ban-ms-on-pm02"},
		"a timed ban":        {location: model.Location{ID: "cli-ban-ms-on-pm02"}, why: "the constraint cli-ban-ms-on-pm02"},
		"standby":            {standby: "pm02", why: "standby mode"},
		"another is banned":  {location: model.Location{ID: "cli-ban-ms-on-pm03", Node: "pm03", Score: "-INFINITY"}},
		"another is standby": {standby: "pm03"},
	} {
		for _, at := range []string{"", "first", "cleanup"} {
			c := fakes.NewTrio(t)
			c.Clone.Meta = map[string]string{model.MetaAutoRejoin: "rewind"}
			c.Clone.Locations = []model.Location{stop}
			speak := func() {
				if test.meta != "" {
					c.Clone.Meta[test.meta] = test.value
				}
				if test.location.ID != "" {
					c.Clone.Locations = append(c.Clone.Locations, test.location)
				}
				c.Standby = test.standby
			}
			steps := append([]operation.Step{{ID: "first"}}, new(rejoin.Rejoin).LetBack(new(rejoin.Case))...)
			way := test.way
			if way == "" {
				way = "rewind"
			}
			var did []string
			var err error
			if at == "" {
				speak()
			}
			for _, s := range operation.Alone(c.On("pm02", "pm02"), steps, way, true) {
				if look, is := s.Action.(operation.Look); is {
					err = look.Do(t.Context())
				}
				if did = append(did, s.ID); err != nil {
					break
				}
				if s.ID == at {
					speak()
				}
			}
			want := map[string]string{"": "allowed-before-first", "first": begun + " allowed-before-cleanup", "cleanup": strings.TrimSuffix(all, " let-back")}[at]
			if test.why == "" {
				want = all
			}
			if strings.Join(did, " ") != want || (err != nil) != (test.why != "") || err != nil && (!errors.Is(err, operation.ErrNotAllowed) || !strings.Contains(err.Error(), test.why)) {
				t.Errorf("%s after %q: %s, %v", name, at, did, err)
			}
		}
	}
	if none := operation.Alone(nil, nil, "start", false); len(none) > 0 {
		t.Errorf("of nothing: %v", none)
	}
}

// A person may type pgrex stop while something is planned without one. What an operation keeps stopped itself is known
// by then.
func TestStoppedWhileItWasPlanned(t *testing.T) {
	c := fakes.NewTrio(t)
	c.Clone.Meta = map[string]string{model.MetaAutoRejoin: "start"}
	c.Clone.Locations = []model.Location{{ID: model.StopConstraint("pgsql", "pm02"), Node: "pm02", Score: "-INFINITY"}}
	steps := append([]operation.Step{{ID: "first"}}, new(rejoin.Rejoin).LetBack(new(rejoin.Case))...)
	for goesOn, want := range map[bool]string{true: "", false: "pgrex keeps the database here stopped"} {
		for i, s := range operation.Alone(c.On("pm02", "pm02"), steps, "start", goesOn) {
			look, is := s.Action.(operation.Look)
			if !is {
				continue
			}
			if err := look.Do(t.Context()); i == 0 && want != "" {
				if !errors.Is(err, operation.ErrNotAllowed) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", s.ID, err)
				}
			} else if err != nil {
				t.Errorf("goes on %t: %s: %v", goesOn, s.ID, err)
			}
		}
	}
}
