package service

import (
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
)

// A start that has followed a primary is remembered as one, also if it was whole when it was gone on with.
func TestReturned(t *testing.T) {
	c := fakes.NewTrio(t)
	left := func(plan string) *operation.Journal { return &operation.Journal{Operation: Start, Plan: []byte(plan)} }
	for name, test := range map[string]struct {
		job          operation.Job
		left         *operation.Journal
		way, primary string
	}{
		"it has followed":      {operation.Job{Plan: &Plan{Follow: true}}, nil, "start", "pm01"},
		"as the primary":       {operation.Job{Plan: &Plan{}}, nil, "first", "pm02"},
		"whole, and followed":  {operation.Job{}, left(`{"follow": true}`), "start", "pm01"},
		"whole, as a primary":  {operation.Job{}, left(`{}`), "first", "pm02"},
		"nothing had to be so": {operation.Job{}, nil, "first", "pm02"},
	} {
		s := &Service{Observer: c.On("pm02", "pm02"), Left: test.left}
		if r := s.Returned(t.Context(), test.job, "somebody"); r.Way != test.way || r.Primary != test.primary || r.By != "somebody" || r.At.IsZero() {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
