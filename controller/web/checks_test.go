package web

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

var now = time.Unix(1700000000, 0)

func of[T any](value T) *T { return &value }

// primary is the status of one, just looked at; change makes it another one.
func primary(change ...func(s *controller.Status)) *controller.Status {
	s := &controller.Status{
		Node: "pm01", Looked: now, Read: now, Role: model.Primary, Server: controller.ServerStatus{State: model.ServerUp},
		Members: []controller.Member{{Host: "pm01"}, {Host: "pm02", LagBytes: of(uint64(5))}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// standby is one that streams, 1 MiB behind.
func standby(change ...func(s *controller.Status)) *controller.Status {
	return primary(append([]func(s *controller.Status){func(s *controller.Status) {
		s.Node, s.Role, s.Server.Streaming = "PM02", model.Standby, true
		s.Members[1].LagBytes = of(uint64(1 << 20))
	}}, change...)...)
}

func looked(at time.Time) func(s *controller.Status) {
	return func(s *controller.Status) { s.Looked = at }
}

func read(at time.Time) func(s *controller.Status) {
	return func(s *controller.Status) { s.Read = at }
}

func inTransition(s *controller.Status) { s.Role = model.InTransition }
func notStreaming(s *controller.Status) { s.Server.Streaming = false }
func lagUnknown(s *controller.Status)   { s.Members[1].LagBytes = nil }

func server(state model.ServerState) func(s *controller.Status) {
	return func(s *controller.Status) { s.Server.State = state }
}

func finds(code model.Code) func(s *controller.Status) {
	return func(s *controller.Status) {
		s.Conditions = []controller.Condition{{Finding: model.Finding{Code: model.CodeForeignSlot}}, {Finding: model.Finding{Code: code}}}
	}
}

// TestDecide: which checks succeed. All others answer 503.
func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		status  *controller.Status
		succeed string
	}{
		"primary":                      {primary(), "primary health liveness readiness"},
		"standby":                      {standby(), "replica health liveness readiness"},
		"standby that does not stream": {standby(notStreaming), "replica health liveness"},
		"no daemon":                    {nil, ""},
		"an empty status":              {&controller.Status{}, ""},
		"in transition":                {primary(inTransition), "liveness"},
		"standby in transition":        {standby(inTransition), "liveness"},
		"an unknown role":              {primary(func(s *controller.Status) { s.Role = "" }), "liveness"},
		"just young enough":            {primary(looked(now.Add(-3 * time.Second))), "primary health liveness readiness"},
		"too old":                      {primary(looked(now.Add(-3001 * time.Millisecond))), ""},
		"a cluster just young enough":  {primary(read(now.Add(-25 * time.Second))), "primary health liveness readiness"},
		"an old cluster":               {primary(read(now.Add(-26 * time.Second))), "health liveness"},
		"a standby of an old cluster":  {standby(read(now.Add(-26 * time.Second))), "health liveness"},
		"too old a standby":            {standby(looked(now.Add(-time.Hour))), ""},
		"of a clock that ran fast":     {primary(looked(now.Add(3001 * time.Millisecond))), ""},
		"server down":                  {primary(server(model.ServerDown)), "liveness"},
		"server starting":              {standby(server(model.ServerStarting)), "liveness"},
		"server unreachable":           {primary(server(model.ServerUnreachable)), "liveness"},
		"no quorum":                    {primary(finds(model.CodeNoQuorum)), "health liveness"},
		"standby without quorum":       {standby(finds(model.CodeNoQuorum)), "health liveness"},
		"split brain":                  {primary(finds(model.CodeSplitBrain)), "health liveness"},
		"old CIB":                      {primary(finds(model.CodeCIBStale)), "health liveness"},
		"another database":             {standby(finds(model.CodeOtherSystem)), "health liveness"},
		"maintenance":                  {primary(finds(model.CodeMaintenance)), "primary health liveness readiness"},
		"slot lost":                    {primary(finds(model.CodeSlotLost)), "primary health liveness readiness"},
	} {
		for _, check := range checks {
			code, why := Decide(check, "", test.status, now)
			want := http.StatusServiceUnavailable
			for succeeds := range strings.FieldsSeq(test.succeed) {
				if string(check) == succeeds {
					want = http.StatusOK
				}
			}
			if code != want || why == "" {
				t.Errorf("%s: /%s is %d (%s), not %d", name, check, code, why, want)
			}
		}
	}
}

// TestLag: a standby is a replica up to the limit, as far as the primary's end is known. What is no limit is an error, on every
// host and in every state.
func TestLag(t *testing.T) {
	for query, want := range map[string]int{
		"":                         200,
		"lag=1048576":              200,
		"lag=1048575":              503,
		"lag=1048576B":             200,
		"lag=1024kB":               200,
		"lag=1023kB":               503,
		"lag=1MB":                  200,
		"lag=1GB":                  200,
		"lag=8388607TB":            200,
		"lag=0":                    503,
		"lag=8388608TB":            400, // more than 2^63
		"lag=1" + "%4D" + "B":      200, // %4D is M
		"lag=99999999999999999999": 400,
		"lag=9999999999999999999":  400,
		"lag=":                     400,
		"lag":                      400,
		"lag=-1":                   400,
		"lag=1.5MB":                400,
		"lag=1mb":                  400,
		"lag=1 MB":                 400,
		"lag=1MB&lag=1GB":          400,
		"lag=0x10":                 400,
		"Lag=1MB":                  400,
		"max_lag=1MB":              400,
		"lag=1MB&tag=x":            400,
		"lag=1MB;x":                400,
		"lag=%zz":                  400,
		"%zz":                      400,
		"x":                        400,
	} {
		if code, why := Decide(Replica, query, standby(), now); code != want {
			t.Errorf("/replica?%s is %d (%s), not %d", query, code, why, want)
		}
		for _, status := range []*controller.Status{nil, primary(), standby(inTransition)} {
			if code, _ := Decide(Replica, query, status, now); (code == 400) != (want == 400) || code == 200 {
				t.Errorf("/replica?%s is %d where it is no replica", query, code)
			}
		}
		for _, check := range checks {
			if code, _ := Decide(check, query, primary(), now); check != Replica && query != "" && code != 400 {
				t.Errorf("/%s?%s is %d, though it has no parameter", check, query, code)
			}
		}
	}
	for query, want := range map[string]int{"": 200, "lag=1TB": 503} {
		for name, status := range map[string]*controller.Status{
			"unknown": standby(lagUnknown), "of no member": standby(func(s *controller.Status) { s.Node = "pm09" }),
		} {
			if code, why := Decide(Replica, query, status, now); code != want {
				t.Errorf("lag %s: /replica?%s is %d (%s), not %d", name, query, code, why, want)
			}
		}
	}
}

// TestSizes: the units are PostgreSQL's.
func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{"3": 3, "3B": 3, "3kB": 3 << 10, "3MB": 3 << 20, "3GB": 3 << 30, "3TB": 3 << 40} {
		if got, err := sizeOf(text); got != want || err != nil {
			t.Errorf("%s is %d, %v, not %d", text, got, err, want)
		}
	}
}

// FuzzLag: no query is taken for a limit that it does not say.
func FuzzLag(f *testing.F) {
	for _, seed := range []string{"lag=1MB", "lag=%31", "lag=1&lag=2", "lag=9223372036854775807", "a=b;c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		code, why := Decide(Replica, query, standby(func(s *controller.Status) { s.Members[1].LagBytes = of(uint64(math.MaxUint64)) }), now)
		if query != "" && strings.Trim(query, "&") != "" && code == http.StatusOK {
			t.Errorf("%q is no limit at all: %s", query, why)
		}
	})
}
