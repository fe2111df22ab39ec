package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

var comebackTime = time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)

// crashed is a cluster in which pm02 has taken over from pm01, whose start has then failed on the agent's lock. With
// alone, no host is the primary, and pm01 was the last one.
func crashed(t *testing.T, alone bool) reconcile.Input {
	t.Helper()
	cluster := `meta pgrex-auto-rejoin=rewind
lock /tmp/PGSQL.lock
pm01 stopped STOP DISCONNECT
pm02 promoted PRI LATEST
pm03 unpromoted HS:sync STREAMING|SYNC
`
	if alone {
		cluster = `meta pgrex-auto-rejoin=start
lock /tmp/PGSQL.lock
without-primary 60
pm01 stopped STOP LATEST
pm02 stopped STOP DISCONNECT
pm03 unpromoted HS:alone DISCONNECT
`
	}
	in := parseScenario(t, txtar.Parse([]byte("-- cluster --\n"+cluster+"-- instance --\nhost pm01\ndown nothing listens\n")))
	in = published(in, "pm01", "fail-count-pgsql#start_0", "INFINITY")
	in.AutoRejoin = &model.AutoRejoin{Running: true}
	return in
}

func comeback(t *testing.T, in reconcile.Input) reconcile.Comeback {
	t.Helper()
	who, err := reconcile.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	return who.Comeback(comebackTime)
}

// node changes a node of a cluster.
func node(in *reconcile.Input, name string, change func(n *model.Node)) {
	for i := range in.Cluster.Nodes {
		if in.Cluster.Nodes[i].Name == name {
			change(&in.Cluster.Nodes[i])
		}
	}
}

func failedThere(in *reconcile.Input, action, value string) {
	node(in, "pm01", func(n *model.Node) { n.Transient["fail-count-pgsql#"+action] = value })
}

// A host comes back without a person only while everything speaks for it. Each of these speaks against it, with and
// without a primary.
func TestComebackGuards(t *testing.T) {
	clone := func(change func(c *model.Clone)) func(in *reconcile.Input) {
		return func(in *reconcile.Input) { change(&in.Cluster.Clones[0]) }
	}
	token := func(host string) func(in *reconcile.Input) {
		return func(in *reconcile.Input) {
			in.Cluster.Properties = map[string]string{model.TokenName("pgsql"): "rejoin host=" + host +
				" phase=begun begun=2026-11-30T03:00:00Z value=" + strings.Repeat("1", 32)}
		}
	}
	for why, change := range map[string]func(in *reconcile.Input){
		"is none":                func(in *reconcile.Input) { in.Cluster.Clones[0].Meta["pgrex-auto-rejoin"] = "none" },
		"pgrex-paused":           func(in *reconcile.Input) { in.Cluster.Clones[0].Meta["pgrex-paused"] = "true" },
		"in doubt":               func(in *reconcile.Input) { in.Cluster.Clones[0].Meta["pgrex-paussed"] = "true" },
		"in doubt: see":          func(in *reconcile.Input) { in.LocalName.Name = "pm02" },
		"older than one":         func(in *reconcile.Input) { in.Newest.Epoch = 1000 },
		"cluster is not known":   func(in *reconcile.Input) { in.Cluster = nil },
		"no quorum":              func(in *reconcile.Input) { in.Cluster.Quorate = false },
		"no DC":                  func(in *reconcile.Input) { in.Cluster.DC = "" },
		"in maintenance":         func(in *reconcile.Input) { in.Cluster.Maintenance = true },
		"is in maintenance":      func(in *reconcile.Input) { node(in, "pm01", func(n *model.Node) { n.Maintenance = true }) },
		"unmanaged":              clone(func(c *model.Clone) { c.Managed = false }),
		"in standby mode":        func(in *reconcile.Input) { node(in, "pm01", func(n *model.Node) { n.Standby = true }) },
		"not online":             func(in *reconcile.Input) { node(in, "pm01", func(n *model.Node) { n.Online = false }) },
		"target-role is Stopped": clone(func(c *model.Clone) { c.Meta["target-role"] = "Stopped" }),
		"target-role is Slave":   clone(func(c *model.Clone) { c.Meta["target-role"] = "Slave" }),
		"keeps the database here stopped": clone(func(c *model.Clone) {
			c.Locations = []model.Location{{ID: model.StopConstraint("pgsql", "pm01"), Node: "pm01", Score: "-INFINITY"}}
		}),
		"the constraint ban": clone(func(c *model.Clone) { c.Locations = []model.Location{{ID: "ban", Node: "pm01", Score: "-INFINITY"}} }),
		"the constraint kept": clone(func(c *model.Clone) {
			c.Locations = []model.Location{{ID: "kept", Node: "pm01", Score: "-INFINITY", Role: "Promoted"}}
		}),
		"the constraint cli-ban-ms-on-pm01": clone(func(c *model.Clone) { c.Locations = []model.Location{{ID: "cli-ban-ms-on-pm01"}} }),
		"the constraint ruled":              clone(func(c *model.Clone) { c.Locations = []model.Location{{ID: "ruled"}} }),
		"stop-all-resources is true":        func(in *reconcile.Input) { in.Cluster.StopAll = true },
		"under way here":                    func(in *reconcile.Input) { in.Operation = &model.LocalOperation{Operation: "stop", Running: true} },
		"is unfinished":                     func(in *reconcile.Input) { in.Operation = &model.LocalOperation{Operation: "rejoin", Who: "admin"} },
		"the stop that was begun": func(in *reconcile.Input) {
			in.Operation = &model.LocalOperation{Operation: "stop", Who: model.AutoRejoinWho}
		},
		"the rejoin that was begun on pm03": token("pm03"),
		"the rejoin that was begun on pm01": token("pm01"),
		"token is not understood": func(in *reconcile.Input) {
			in.Cluster.Properties = map[string]string{model.TokenName("pgsql"): "what"}
		},
		"begun on pm03 is unfinished": func(in *reconcile.Input) {
			node(in, "pm03", func(n *model.Node) { n.Transient[model.OperationAttribute("pgsql")] = "switchover" })
		},
		"pm03 is joining":                       func(in *reconcile.Input) { node(in, "pm03", func(n *model.Node) { n.Pending = true }) },
		"or is to be fenced":                    func(in *reconcile.Input) { node(in, "pm03", func(n *model.Node) { n.Unclean = true }) },
		"the database on pm03 is stopping":      clone(func(c *model.Clone) { c.Unsettled = map[string]model.Unsettled{"pm03": model.UnsettledStopping} }),
		"the database on pm01 is failed":        clone(func(c *model.Clone) { c.Unsettled = map[string]model.Unsettled{"pm01": model.UnsettledFailed} }),
		"here is up":                            func(in *reconcile.Input) { in.Instance.State = model.ServerUp },
		"here is starting":                      func(in *reconcile.Input) { in.Instance.State = model.ServerStarting },
		"here is unreachable":                   func(in *reconcile.Input) { in.Instance.State = model.ServerUnreachable },
		"PGSQL.lock is not the reason":          func(in *reconcile.Input) { in.Lock = "" },
		"has not given the database":            func(in *reconcile.Input) { failedThere(in, "start_0", "0") },
		"(fail-count-pgsql#stop_0=1)":           func(in *reconcile.Input) { failedThere(in, "stop_0", "1") },
		"(fail-count-pgsql#promote_0=INFINITY)": func(in *reconcile.Input) { failedThere(in, "promote_0", "INFINITY") },
		"(fail-count-pgsql=INFINITY)": func(in *reconcile.Input) {
			node(in, "pm01", func(n *model.Node) { n.Transient["fail-count-pgsql"] = "INFINITY" })
		},
		"3 tries in a row have failed; the last one: the network": func(in *reconcile.Input) { in.AutoRejoin.Tries, in.AutoRejoin.Problem = 3, "the network" },
		"3 times within an hour": func(in *reconcile.Input) {
			at := comebackTime.Add(-100 * time.Hour)
			in.AutoRejoin.Returns = []time.Time{at, at, at.Add(time.Hour)}
		},
		"the next try is at 2026-11-30T03:01:00Z: the disk": func(in *reconcile.Input) {
			in.AutoRejoin.Tries, in.AutoRejoin.Next, in.AutoRejoin.Problem = 1, comebackTime.Add(time.Minute), "the disk"
		},
	} {
		for alone, act := range map[bool]reconcile.Act{false: reconcile.ActRejoin, true: reconcile.ActStart} {
			if c := comeback(t, crashed(t, alone)); c.Act != act {
				t.Fatalf("%q instead of %q: %s", c.Act, act, c.Why)
			}
			in := crashed(t, alone)
			change(&in)
			if c := comeback(t, in); c.Act != reconcile.ActNothing || !strings.Contains(c.Why, why) {
				t.Errorf("%q, alone %t: %q: %s", why, alone, c.Act, c.Why)
			}
		}
	}
}

// A person's word, and a failure that nobody knows, also hold back an operation of this host's own that was left.
func TestComebackOwnLeft(t *testing.T) {
	bans := func(l model.Location) func(in *reconcile.Input) {
		return func(in *reconcile.Input) {
			in.Cluster.Clones[0].Locations = append(in.Cluster.Clones[0].Locations, l)
		}
	}
	for _, test := range []struct {
		why    string
		change func(in *reconcile.Input)
	}{
		{"", func(*reconcile.Input) {}},
		{"", func(in *reconcile.Input) { in.Lock = "" }}, // it has removed the lock
		{"the constraint ban", bans(model.Location{ID: "ban", Node: "pm01", Score: "-INFINITY"})},
		{"the constraint cli-ban-ms-on-PM01", bans(model.Location{ID: "cli-ban-ms-on-PM01"})},
		{"the constraint ruled", bans(model.Location{ID: "ruled"})},
		{"stop-all-resources", func(in *reconcile.Input) { in.Cluster.StopAll = true }},
		{"(fail-count-pgsql#stop_0=1)", func(in *reconcile.Input) { failedThere(in, "stop_0", "1") }},
		{"(fail-count-pgsql#notify_0=1)", func(in *reconcile.Input) { failedThere(in, "notify_0", "1") }},
		{"(fail-count-pgsql#promote_0=INFINITY)", func(in *reconcile.Input) { failedThere(in, "promote_0", "INFINITY") }},
	} {
		for alone, act := range map[bool]reconcile.Act{false: reconcile.ActRejoin, true: reconcile.ActStart} {
			in := ownLeft(crashed(t, alone), act)
			test.change(&in)
			if test.why != "" {
				act = reconcile.ActNothing
			}
			if c := comeback(t, in); c.Act != act || !strings.Contains(c.Why, test.why) {
				t.Errorf("%q, alone %t: %q: %s", test.why, alone, c.Act, c.Why)
			}
		}
	}
}

// ownLeft is a cluster in which an operation that was begun here without a person was left.
func ownLeft(in reconcile.Input, act reconcile.Act) reconcile.Input {
	in.Operation = &model.LocalOperation{Operation: string(act), Who: model.AutoRejoinWho}
	in.Cluster.Clones[0].Locations = []model.Location{{ID: model.StopConstraint("pgsql", "pm01"), Node: "pm01", Score: "-INFINITY"}}
	in.Cluster.Properties = map[string]string{model.TokenName("pgsql"): string(act) +
		" host=pm01 phase=begun begun=2026-11-30T03:00:00Z value=" + strings.Repeat("1", 32)}
	return in
}

// An operation of this host's own that was left is ended though this host is back. Its token holds up the others.
func TestComebackEndsOwnLeft(t *testing.T) {
	scenario := func(roles, instance string) reconcile.Input {
		return parseScenario(t, txtar.Parse([]byte("-- cluster --\nmeta pgrex-auto-rejoin=rewind\n"+roles+"-- instance --\nhost pm01\n"+instance)))
	}
	const standby, primary = "pm01 unpromoted HS:sync STREAMING|SYNC\npm02 promoted PRI LATEST\n", "pm01 promoted PRI LATEST\npm02 unpromoted HS:sync STREAMING|SYNC\n"
	const streams = "in-recovery\nreceiver pgrex_pm01\n"
	for name, test := range map[string]struct {
		in    reconcile.Input
		begun reconcile.Act
		want  reconcile.Act
	}{
		"a rejoin that streams":          {scenario(standby, streams), reconcile.ActRejoin, reconcile.ActRejoin},
		"a start that followed":          {scenario(standby, streams), reconcile.ActStart, reconcile.ActStart},
		"a start as the primary":         {scenario(primary, ""), reconcile.ActStart, reconcile.ActStart},
		"a rejoin that became a primary": {scenario(primary, ""), reconcile.ActRejoin, reconcile.ActNothing},
		"it does not stream yet":         {scenario(standby, "in-recovery\n"), reconcile.ActRejoin, reconcile.ActNothing},
		"nothing was left":               {scenario(standby, streams), "", reconcile.ActNothing},
	} {
		if test.begun != "" {
			test.in = ownLeft(test.in, test.begun)
			test.in.Cluster.Clones[0].Locations = nil
		}
		if c := comeback(t, test.in); c.Act != test.want {
			t.Errorf("%s: %q: %s", name, c.Act, c.Why)
		}
	}
}

// What may also be so when a host comes back without a person.
func TestComebackAllowed(t *testing.T) {
	for name, change := range map[string]func(in *reconcile.Input){
		"given up by the monitor": func(in *reconcile.Input) {
			failedThere(in, "start_0", "0")
			failedThere(in, "monitor_9000", "1")
			in.Cluster.Clones[0].Meta["migration-threshold"] = "1"
		},
		"unpromoted without a server, after its score was taken away": func(in *reconcile.Input) {
			failedThere(in, "start_0", "0")
			in.Cluster.Clones[0].Roles["pm01"] = model.RoleUnpromoted
		},
		"another member has failed": func(in *reconcile.Input) {
			in.Cluster.Clones[0].Unsettled = map[string]model.Unsettled{"pm03": model.UnsettledFailed}
		},
		"a preference": func(in *reconcile.Input) {
			in.Cluster.Clones[0].Locations = []model.Location{{ID: "p", Node: "pm01", Score: "100"}}
		},
		"another is kept": func(in *reconcile.Input) {
			in.Cluster.Clones[0].Locations = []model.Location{{ID: "p", Node: "pm03", Score: "-INFINITY"}}
		},
		"wanted": func(in *reconcile.Input) { in.Cluster.Clones[0].Meta["target-role"] = "started" },
		"another is banned for a while": func(in *reconcile.Input) {
			in.Cluster.Clones[0].Locations = []model.Location{{ID: "cli-ban-ms-on-pm03"}, {ID: "cli-prefer-ms"}}
		},
		"the clock was years ahead": func(in *reconcile.Input) {
			in.AutoRejoin.Tries, in.AutoRejoin.Next = 1, comebackTime.Add(61*time.Minute)
		},
		"two tries":          func(in *reconcile.Input) { in.AutoRejoin.Tries, in.AutoRejoin.Next = 2, comebackTime },
		"nothing remembered": func(in *reconcile.Input) { in.AutoRejoin = nil },
		"returns long ago": func(in *reconcile.Input) {
			in.AutoRejoin.Returns = []time.Time{comebackTime.Add(-5 * time.Hour), comebackTime.Add(-4 * time.Hour), comebackTime}
		},
		"failures of two actions": func(in *reconcile.Input) {
			in.Cluster.Clones[0].Meta["migration-threshold"] = "2"
			failedThere(in, "start_0", "0")
			failedThere(in, "monitor_9000", "1")
			failedThere(in, "monitor_10000", "1")
		},
		"returns with a clock that was put back": func(in *reconcile.Input) {
			in.AutoRejoin.Returns = []time.Time{comebackTime.AddDate(1, 0, 0), comebackTime.AddDate(0, -3, 0), comebackTime}
		},
		"its own was left": func(in *reconcile.Input) {
			in.Operation = &model.LocalOperation{Operation: "rejoin", Who: model.AutoRejoinWho}
			in.Cluster.Clones[0].Locations = []model.Location{{ID: model.StopConstraint("pgsql", "pm01"), Node: "pm01", Score: "-INFINITY"}}
			in.Cluster.Properties = map[string]string{model.TokenName("pgsql"): "rejoin host=pm01 phase=begun begun=2026-11-30T03:00:00Z value=" +
				strings.Repeat("1", 32)}
			failedThere(in, "start_0", "0")
			in.Lock = ""
		},
	} {
		in := crashed(t, false)
		change(&in)
		if c := comeback(t, in); c.Act != reconcile.ActRejoin || c.Dearest != model.DearestRewind {
			t.Errorf("%s: %q up to %s: %s", name, c.Act, c.Dearest, c.Why)
		}
	}
}

// With no primary, a host starts only if the CIB names no other one, and only once that has lasted.
func TestComebackAlone(t *testing.T) {
	for why, change := range map[string]func(in *reconcile.Input){
		"pm02 is said to have the newest data": func(in *reconcile.Input) {
			node(in, "pm01", func(n *model.Node) { n.Permanent["pgsql-data-status"] = "DISCONNECT" })
			node(in, "pm02", func(n *model.Node) { n.Permanent["pgsql-data-status"] = "LATEST" })
		},
		"more than one host's data": func(in *reconcile.Input) {
			node(in, "pm02", func(n *model.Node) { n.Permanent["pgsql-data-status"] = "LATEST" })
		},
		"no host is confirmed as primary yet": func(in *reconcile.Input) { in.WithoutPrimary = 5 },
		"the agent lets pm03 be the primary": func(in *reconcile.Input) {
			in.WithoutPrimary = 400
			node(in, "pm03", func(n *model.Node) { n.Permanent["pgsql-data-status"] = "STREAMING|SYNC" })
		},
	} {
		in := crashed(t, true)
		change(&in)
		if c := comeback(t, in); c.Act != reconcile.ActNothing || !strings.Contains(c.Why, why) {
			t.Errorf("%q: %q: %s", why, c.Act, c.Why)
		}
	}
	in := crashed(t, true)
	node(&in, "pm01", func(n *model.Node) { n.Permanent["pgsql-data-status"] = "DISCONNECT" })
	if c := comeback(t, in); c.Act != reconcile.ActStart {
		t.Errorf("with nobody's data said to be the newest: %q: %s", c.Act, c.Why)
	}
}

// An operation without a person that must not go on blocks all others: that is said, and only of one's own.
func TestRefusedHalfWay(t *testing.T) {
	for _, test := range []struct {
		refused bool
		who     string
		want    bool
	}{{true, model.AutoRejoinWho, true}, {false, model.AutoRejoinWho, false}, {true, "root", false}} {
		in := crashed(t, false)
		in.Operation = &model.LocalOperation{Operation: "rejoin", Who: test.who}
		in.AutoRejoin.Refused, in.AutoRejoin.Problem = test.refused, "the cheapest way back is copy"
		plan, err := reconcile.Plan(in)
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(plan.Findings, func(f model.Finding) bool {
			return f.Code == model.CodeAutoRejoinFailed && f.Severity == model.Critical && strings.Contains(f.Text, in.AutoRejoin.Problem)
		})
		if said != test.want {
			t.Errorf("%+v: %s", test, plan)
		}
	}
}

// With several databases, each has its own service, and the other one would stop theirs.
func TestServiceOfEachDatabase(t *testing.T) {
	in := crashed(t, false)
	in.AutoRejoin.Running = false
	other := in.Cluster.Clones[0]
	other.ID, other.Primitive = "msOther", "other"
	in.Cluster.Clones, in.Resource = append(in.Cluster.Clones, other), in.Cluster.Clones[0].Primitive
	plan, err := reconcile.Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(plan.String(), "sudo systemctl enable --now pgrex-rejoin@pgsql") {
		t.Error(plan)
	}
}

// What keeps a host from coming back without a person is a condition on that host, and nowhere else.
func TestAutoRejoinFindings(t *testing.T) {
	for code, change := range map[model.Code]func(in *reconcile.Input){
		"":                         func(*reconcile.Input) {},
		model.CodeAutoRejoinFailed: func(in *reconcile.Input) { in.AutoRejoin.Tries = 3 },
		model.CodeFlapping:         func(in *reconcile.Input) { in.AutoRejoin.Returns = make([]time.Time, 3) },
		model.CodeAutoRejoinOff:    func(in *reconcile.Input) { in.AutoRejoin.Running = false },
	} {
		for _, policy := range []string{"start", "none"} {
			in := crashed(t, false)
			in.Cluster.Clones[0].Meta["pgrex-auto-rejoin"] = policy
			change(&in)
			plan, err := reconcile.Plan(in)
			if err != nil {
				t.Fatal(err)
			}
			var found []model.Code
			for _, f := range plan.Findings {
				if strings.Contains(string(f.Code), "AutoRejoin") || f.Code == model.CodeFlapping {
					found = append(found, f.Code)
				}
			}
			if want := []model.Code{code}; policy == "none" || code == "" {
				if len(found) > 0 {
					t.Errorf("%s, %s: %s", code, policy, found)
				}
			} else if !slices.Equal(found, want) {
				t.Errorf("%s: %s", code, found)
			}
		}
	}
}
