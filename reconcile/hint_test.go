package reconcile_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// crashing is pm01, the primary, in a cluster in which a hint is given, and its crash.
func crashing() (reconcile.Input, reconcile.Crash) {
	cluster := &model.Cluster{
		Quorate: true, DC: "pm02", Version: model.Version{Epoch: 10}, Properties: map[string]string{},
		Nodes: []model.Node{
			{Name: "pm01", Online: true, Permanent: map[string]string{"pgsql-data-status": "LATEST"},
				Transient: map[string]string{"pgsql-status": "PRI", "master-pgsql": "1000"}},
			{Name: "pm02", Online: true, Permanent: map[string]string{"pgsql-data-status": "STREAMING|SYNC"},
				Transient: map[string]string{"pgsql-status": "HS:sync", "master-pgsql": "100"}},
			{Name: "pm03", Online: true, Permanent: map[string]string{"pgsql-data-status": "STREAMING|POTENTIAL"},
				Transient: map[string]string{"pgsql-status": "HS:potential", "master-pgsql": "-INFINITY"}},
		},
		Clones: []model.Clone{{
			ID: "msPostgresql", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
			Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02 pm03"},
			Meta:       map[string]string{model.MetaCrashHint: "true"},
			Roles:      map[string]model.Role{"pm01": model.RolePromoted, "pm02": model.RoleUnpromoted, "pm03": model.RoleUnpromoted},
			Unsettled:  map[string]model.Unsettled{},
		}},
	}
	in := reconcile.Input{Node: "pm01", LocalName: model.LocalName{Name: "pm01"}, Cluster: cluster, Newest: cluster.Version}
	return in, reconcile.Crash{End: model.PostmasterEnd{PID: 4711, State: model.InProduction}, Age: 100 * time.Millisecond}
}

func hintFor(t interface {
	Helper()
	Fatal(args ...any)
}, in reconcile.Input, c reconcile.Crash) reconcile.Verdict {
	t.Helper()
	who, err := reconcile.ResolveCluster(in)
	if err != nil {
		t.Fatal(err)
	}
	return who.Hint(c)
}

// TestHintGuards: each guard alone is enough for no hint, and says why.
func TestHintGuards(t *testing.T) {
	in, crash := crashing()
	if v := hintFor(t, in, crash); !v.OK || v.Why != "" {
		t.Fatalf("a crash of the primary: %+v", v)
	}
	type look struct {
		*reconcile.Input
		crash *reconcile.Crash
		c     *model.Cluster
		clone *model.Clone
		next  *model.Node // pm02
	}
	for name, c := range map[string]struct {
		spoil func(l look)
		why   string
	}{
		"not known how it ended": {func(l look) { l.crash.End.Problem = "no such file" }, "is not known: no such file"},
		"told to stop":           {func(l look) { l.crash.End.Told = true }, "told to stop"},
		"another postmaster":     {func(l look) { l.crash.End.Replaced = true }, "another postmaster"},
		"a clean stop":           {func(l look) { l.crash.End.State = "shut down" }, `"shut down"`},
		"a standby's crash":      {func(l look) { l.crash.End.State = "in archive recovery" }, `"in archive recovery"`},
		"no state":               {func(l look) { l.crash.End.State = "" }, "not \"in production\""},
		"an old look":            {func(l look) { l.crash.Age = time.Second + 1 }, "the look took"},
		"no cluster":             {func(l look) { l.Cluster, l.ClusterProblem = nil, "Pacemaker is down" }, "Pacemaker is down"},
		"not wanted":             {func(l look) { delete(l.clone.Meta, model.MetaCrashHint) }, "pgrex-crash-hint is not true"},
		"switched off":           {func(l look) { l.clone.Meta[model.MetaCrashHint] = "no" }, "pgrex-crash-hint is not true"},
		"no boolean":             {func(l look) { l.clone.Meta[model.MetaCrashHint] = "maybe" }, "pgrex-crash-hint is not true"},
		"paused":                 {func(l look) { l.clone.Meta[model.MetaPaused] = "true" }, "pgrex-paused"},
		"a misspelt policy":      {func(l look) { l.clone.Meta["pgrex-crash-hints"] = "true" }, "not known for sure"},
		"by a rule":              {func(l look) { l.clone.Conditional = []string{model.MetaCrashHint} }, "not known for sure"},
		"another name":           {func(l look) { l.LocalName.Name = "pm02" }, "not known for sure"},
		"no name":                {func(l look) { l.LocalName = model.LocalName{Problem: "no answer"} }, "not known for sure"},
		"no member":              {func(l look) { l.clone.Parameters["node_list"] = "pm02 pm03" }, "not known for sure"},
		"a stale CIB":            {func(l look) { l.Newest.Epoch++ }, "older than one already seen"},
		"no quorum":              {func(l look) { l.c.Quorate = false }, "no quorum"},
		"no DC":                  {func(l look) { l.c.DC = "" }, "no DC"},
		"cluster in maintenance": {func(l look) { l.c.Maintenance = true }, "maintenance"},
		"node in maintenance":    {func(l look) { l.c.Nodes[0].Maintenance = true }, "maintenance"},
		"unmanaged":              {func(l look) { l.clone.Managed = false }, "unmanaged"},
		"an operation": {func(l look) {
			l.c.Properties[model.TokenName("pgsql")] = model.Token{Operation: "switchover", Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("1", 32)}.String()
		}, "an operation holds"},
		"an unknown token": {func(l look) { l.c.Properties[model.TokenName("pgsql")] = "x" }, "an operation holds"},
		"begun here":       {func(l look) { l.Operation = &model.LocalOperation{Operation: "stop", Running: true} }, "the operation stop"},
		"a standby":        {func(l look) { l.Node, l.LocalName.Name = "pm02", "pm02" }, "not the primary"},
		"demoting":         {func(l look) { l.clone.Unsettled["pm01"] = model.UnsettledDemoting }, "demoting"},
		"failed already":   {func(l look) { l.clone.Unsettled["pm01"] = model.UnsettledFailed }, "failed"},
		"demoted":          {func(l look) { l.clone.Roles["pm01"] = model.RoleUnpromoted }, "no primary is confirmed"},
		"two primaries":    {func(l look) { l.next.Transient["pgsql-status"] = "PRI" }, "more than one host"},
		"node in standby":  {func(l look) { l.c.Nodes[0].Standby = true }, "in standby"},
		"to be stopped":    {func(l look) { l.clone.Meta["target-role"] = "stopped" }, "target-role"},
		"to be demoted":    {func(l look) { l.clone.Meta["target-role"] = "Slave" }, "target-role"},
		"kept from it": {func(l look) {
			l.clone.Locations = []model.Location{{ID: "x", Node: "pm01", Score: "-INFINITY", Role: "Master"}}
		}, "the constraint x"},
		"starting there":  {func(l look) { l.clone.Unsettled["pm03"] = model.UnsettledStarting }, "on pm03 is starting"},
		"stopping there":  {func(l look) { l.clone.Unsettled["pm03"] = model.UnsettledStopping }, "on pm03 is stopping"},
		"on-fail=fence":   {func(l look) { l.clone.Watched.OnFail = []string{"fence"} }, "on-fail of a monitor is fence"},
		"on-fail=block":   {func(l look) { l.clone.Watched.OnFail = []string{"restart", "block"} }, "is block"},
		"on-fail by rule": {func(l look) { l.clone.Watched.ByRule = true }, "a rule sets on-fail"},
		"not monitored":   {func(l look) { l.clone.Watched.Unmonitored = true }, "has no monitor"},
		"not recorded":    {func(l look) { l.clone.Watched.Unrecorded = true }, "record-pending"},
		"heir offline":    {func(l look) { l.next.Online = false }, "pm02: offline, pm03"},
		"heir joining":    {func(l look) { l.next.Pending = true }, "pm02: offline"},
		"heir unclean":    {func(l look) { l.next.Unclean = true }, "pm02: unclean"},
		"heir in standby": {func(l look) { l.next.Standby = true }, "pm02: in standby"},
		"heir maintained": {func(l look) { l.next.Maintenance = true }, "pm02: in maintenance"},
		"heir stopped":    {func(l look) { l.clone.Roles["pm02"] = model.RoleStopped }, "pm02: stopped"},
		"heir failed":     {func(l look) { l.clone.Unsettled["pm02"] = model.UnsettledFailed }, "pm02: failed"},
		"heir demoted": {func(l look) {
			l.next.Transient["pgsql-status"], l.next.Permanent["pgsql-data-status"] = "STOP", "DISCONNECT"
		}, "pm02: unpromoted, but without a server"},
		"heir banned for a while": {func(l look) { l.clone.Locations = []model.Location{{ID: "cli-ban-msPostgresql-on-PM02"}} }, "pm02: kept from it"},
		"a rule for promotion":    {func(l look) { l.clone.Locations = []model.Location{{ID: "x", Role: "Promoted"}} }, "pm02: kept from it"},
		"heir barred":             {func(l look) { l.clone.Locations = []model.Location{{ID: "x", Node: "PM02", Score: "-INFINITY"}} }, "pm02: kept from it"},
		"heir gave up":            {func(l look) { l.next.Transient["fail-count-pgsql#promote_0"] = "INFINITY" }, "pm02: has failed"},
		"no score":                {func(l look) { delete(l.next.Transient, "master-pgsql") }, "pm02: promotion score none"},
		"score 0":                 {func(l look) { l.next.Transient["master-pgsql"] = "0" }, "pm02: promotion score 0"},
		"a negative score":        {func(l look) { l.next.Transient["master-pgsql"] = "-INFINITY" }, "pm02: promotion score -INFINITY"},
		"no number":               {func(l look) { l.next.Transient["master-pgsql"] = "much" }, "pm02: promotion score much"},
		"heir no member":          {func(l look) { l.clone.Parameters["node_list"] = "pm01 pm03" }, "no other host may be promoted now (pm03"},
	} {
		t.Run(name, func(t *testing.T) {
			in, crash := crashing()
			c.spoil(look{&in, &crash, in.Cluster, &in.Cluster.Clones[0], &in.Cluster.Nodes[1]})
			if v := hintFor(t, in, crash); v.OK || !strings.Contains(v.Why, c.why) {
				t.Errorf("%+v, not %q", v, c.why)
			}
		})
	}
}

// TestHintAllTheSame: what looks like a doubt, and is none.
func TestHintAllTheSame(t *testing.T) {
	for name, change := range map[string]func(in *reconcile.Input, clone *model.Clone){
		"on-fail=restart":         func(_ *reconcile.Input, clone *model.Clone) { clone.Watched.OnFail = []string{"demote", "restart"} },
		"a third host has failed": func(_ *reconcile.Input, clone *model.Clone) { clone.Unsettled["pm03"] = model.UnsettledFailed },
		"a third host is off":     func(in *reconcile.Input, _ *model.Clone) { in.Cluster.Nodes[2].Online = false },
		"a third host is barred": func(_ *reconcile.Input, clone *model.Clone) {
			clone.Locations = []model.Location{{ID: "x", Node: "pm03", Score: "-INFINITY"}}
		},
		"a third host is banned for a while": func(_ *reconcile.Input, clone *model.Clone) {
			clone.Locations = []model.Location{{ID: "cli-ban-msPostgresql-on-pm03"}}
		},
		"a rule for every role":  func(_ *reconcile.Input, clone *model.Clone) { clone.Locations = []model.Location{{ID: "x"}} },
		"a status left over":     func(in *reconcile.Input, _ *model.Clone) { in.Cluster.Nodes[1].Transient["pgsql-status"] = "STOP" },
		"an infinite score":      func(in *reconcile.Input, _ *model.Clone) { in.Cluster.Nodes[1].Transient["master-pgsql"] = "INFINITY" },
		"no operation here":      func(in *reconcile.Input, _ *model.Clone) { in.Operation = &model.LocalOperation{} },
		"another database's":     func(in *reconcile.Input, _ *model.Clone) { in.Cluster.Properties[model.TokenName("other")] = "x" },
		"names in another case":  func(in *reconcile.Input, _ *model.Clone) { in.Node, in.LocalName.Name = "PM01", "Pm01" },
		"to be promoted":         func(_ *reconcile.Input, clone *model.Clone) { clone.Meta["target-role"] = "Master" },
		"one failure is no more": func(in *reconcile.Input, _ *model.Clone) { in.Cluster.Nodes[1].Transient["fail-count-pgsql"] = "0" },
	} {
		t.Run(name, func(t *testing.T) {
			in, crash := crashing()
			change(&in, &in.Cluster.Clones[0])
			if v := hintFor(t, in, crash); !v.OK {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestWithoutServer: the agent's status is left over where the standby streams, or this host's server is up.
func TestWithoutServer(t *testing.T) {
	for name, c := range map[string]struct {
		node, data string
		state      model.ServerState
		want       bool
	}{
		"demoted":          {"pm01", "DISCONNECT", model.ServerUp, true},
		"it streams":       {"pm01", "STREAMING|ASYNC", model.ServerUp, false},
		"here":             {"pm02", "DISCONNECT", model.ServerDown, true},
		"here, and is up":  {"pm02", "DISCONNECT", model.ServerUp, false},
		"not looked at":    {"pm02", "DISCONNECT", "", true},
		"unknown data yet": {"pm01", "", model.ServerUp, true},
	} {
		in, _ := crashing()
		in.Node, in.LocalName.Name, in.Instance.State = c.node, c.node, c.state
		in.Cluster.Nodes[1].Transient["pgsql-status"], in.Cluster.Nodes[1].Permanent["pgsql-data-status"] = "STOP", c.data
		who, err := reconcile.ResolveCluster(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := who.WithoutServer("pm02"); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestDiagnoseCrashHint: where it is off, it is recommended once every other host's pgrex knows it. Where it is on, doctor
// says whether a hint would be given now.
func TestDiagnoseCrashHint(t *testing.T) {
	forecast := model.ForecastAttribute("pgsql")
	for name, c := range map[string]struct {
		change func(in *reconcile.Input)
		want   []string // parts of what is said; nil for nothing
	}{
		"on":              {func(*reconcile.Input) {}, []string{"at once; now it would be, if pgrex.service runs here and watches PostgreSQL"}},
		"on, but no heir": {func(in *reconcile.Input) { in.Cluster.Nodes[1].Transient["master-pgsql"] = "0" }, []string{"now it would not be: no other host"}},
		"on, elsewhere":   {func(in *reconcile.Input) { in.Node, in.LocalName.Name = "pm02", "pm02" }, []string{"on pm01, pgrex doctor says"}},
		"off":             {func(in *reconcile.Input) { delete(in.Cluster.Clones[0].Meta, model.MetaCrashHint) }, []string{"--set-parameter pgrex-crash-hint --parameter-value true", "now it would be"}},
		"off, one is silent": {func(in *reconcile.Input) {
			delete(in.Cluster.Clones[0].Meta, model.MetaCrashHint)
			delete(in.Cluster.Nodes[2].Transient, forecast)
		}, nil},
		"off, one is older": {func(in *reconcile.Input) {
			delete(in.Cluster.Clones[0].Meta, model.MetaCrashHint)
			in.Cluster.Nodes[2].Transient[model.FormerForecastAttribute] = "pm01=rewind"
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in, _ := crashing()
			for _, n := range in.Cluster.Nodes[1:] {
				n.Transient[forecast] = "pm01=rewind"
			}
			c.change(&in)
			who, err := reconcile.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			said := slices.DeleteFunc(reconcile.Diagnose(who, reconcile.Settings{}, reconcile.Owner{}), func(f model.Finding) bool { return f.Code != model.CodeCrashHintNow })
			if len(said) != min(len(c.want), 1) {
				t.Fatalf("%v", said)
			}
			for _, want := range c.want {
				if said[0].Severity != model.Info || !strings.Contains(said[0].Text, want) {
					t.Errorf("%v, not %q", said, want)
				}
			}
		})
	}
}

// TestI11 holds I11 over random clusters and crashes: no hint without all guards. The guards are said here once more, from
// what was drawn.
func TestI11(t *testing.T) {
	given, refused := 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		crash := drawCrash(t, &in)
		v := hintFor(t, in, crash)
		missing := missingGuard(in, crash)
		switch {
		case v.OK && missing != "":
			t.Fatalf("a hint is given: %s", missing)
		case v.OK:
			given++
		case v.Why == "":
			t.Fatalf("no hint, and nothing says why")
		default:
			refused[missing]++
		}
	})
	t.Logf("%d hints given; not given, by the first guard: %v", given, refused)
	if given < 30 {
		t.Errorf("only %d hints were given: this proves nothing", given)
	}
	for _, guard := range []string{
		"state", "told", "replaced", "unknown", "old", "off", "paused", "quorum", "DC", "maintenance", "unmanaged", "operation", "role",
		"action", "on-fail", "unrecorded", "unmonitored", "heir", "stale",
	} {
		if refused[guard] == 0 {
			t.Errorf("the guard %q was never the first that was missing", guard)
		}
	}
}

// drawCrash draws a crash of a host, mostly of the primary, and what a hint depends on.
func drawCrash(t *rapid.T, in *reconcile.Input) reconcile.Crash {
	c := in.Cluster
	clone := &c.Clones[0]
	clone.Meta = maps.Clone(clone.Meta)
	clone.Meta[model.MetaCrashHint] = map[bool]string{false: "true", true: "false"}[rarely(t, "off")]
	if rarely(t, "paused") {
		clone.Meta[model.MetaPaused] = "yes"
	}
	clone.Unsettled = map[string]model.Unsettled{}
	for i, n := range c.Nodes {
		n.Transient = maps.Clone(n.Transient)
		if n.Transient == nil {
			n.Transient = map[string]string{}
		}
		n.Transient["master-pgsql"] = rapid.SampledFrom([]string{"100", "-INFINITY", "0", "1000", "INFINITY", "-1"}).Draw(t, "score of "+n.Name)
		if n.Transient["pgsql-status"] == "PRI" {
			if !rarely(t, "elsewhere") {
				in.Node = n.Name
			}
		} else if rarely(t, "demoted "+n.Name) {
			n.Transient["pgsql-status"] = "STOP"
		}
		n.Standby, n.Maintenance = rarely(t, "standby "+n.Name), rarely(t, "maintenance "+n.Name)
		c.Nodes[i] = n
		if rarely(t, "unsettled "+n.Name) && rarely(t, "really") {
			clone.Unsettled[n.Name] = rapid.SampledFrom([]model.Unsettled{model.UnsettledDemoting, model.UnsettledFailed, model.UnsettledStopping}).Draw(t, "why")
		}
	}
	if rarely(t, "no DC") {
		c.DC = ""
	}
	if rarely(t, "in maintenance, too") {
		c.Maintenance = true
	}
	if rarely(t, "stale") {
		in.Newest.Epoch++
	}
	if rarely(t, "on-fail") {
		clone.Watched.OnFail = []string{rapid.SampledFrom([]string{"restart", "demote", "fence", "block", "standby", "stop", "ignore"}).Draw(t, "on-fail is")}
	}
	clone.Watched.ByRule, clone.Watched.Unrecorded = rarely(t, "on-fail by a rule"), rarely(t, "unrecorded")
	clone.Watched.Unmonitored = rarely(t, "unmonitored")
	crash := reconcile.Crash{End: model.PostmasterEnd{State: model.InProduction}, Age: time.Duration(rapid.IntRange(0, 999).Draw(t, "ms")) * time.Millisecond}
	switch rapid.IntRange(0, 14).Draw(t, "end") {
	case 10:
		crash.End.State = rapid.SampledFrom([]model.DatabaseState{"shut down", "shutting down", "in archive recovery", ""}).Draw(t, "state")
	case 11:
		crash.End.Told = true
	case 12:
		crash.End.Replaced = true
	case 13:
		crash.End.Problem = "no such file"
	case 14:
		crash.Age += time.Second + time.Millisecond
	}
	return crash
}

// missingGuard names the first guard of the design that does not hold; "" if all do.
func missingGuard(in reconcile.Input, crash reconcile.Crash) string {
	c, clone := in.Cluster, in.Cluster.Clones[0]
	self, _ := c.Node(in.Node)
	truth := func(name string) bool { return slices.Contains([]string{"true", "yes"}, clone.Meta[name]) }
	token := c.Properties[model.TokenName("pgsql")] != "" || in.Operation != nil && in.Operation.Operation != ""
	pris, action := 0, false
	for _, n := range c.Nodes {
		why := clone.Unsettled[n.Name]
		if n.Transient["pgsql-status"] == "PRI" {
			pris++
		}
		action = action || why == model.UnsettledDemoting || why == model.UnsettledStopping && strings.Contains(" "+clone.Parameters["node_list"]+" ", " "+n.Name+" ")
	}
	role := clone.Roles[in.Node] == model.RolePromoted && clone.Unsettled[in.Node] == "" && self.Transient["pgsql-status"] == "PRI" &&
		self.Permanent["pgsql-data-status"] == "LATEST" && pris == 1 && !self.Standby
	for _, guard := range []struct {
		name    string
		missing bool
	}{
		{"unknown", crash.End.Problem != ""},
		{"told", crash.End.Told},
		{"replaced", crash.End.Replaced},
		{"state", crash.End.State != "in production"},
		{"old", crash.Age > time.Second},
		{"off", !truth("pgrex-crash-hint")},
		{"paused", truth("pgrex-paused")},
		{"stale", in.Newest.Epoch > c.Version.Epoch},
		{"quorum", !c.Quorate},
		{"DC", c.DC == ""},
		{"maintenance", c.Maintenance || self.Maintenance},
		{"unmanaged", !clone.Managed},
		{"operation", token},
		{"role", !role},
		{"action", action},
		{"on-fail", clone.Watched.ByRule || slices.ContainsFunc(clone.Watched.OnFail, func(v string) bool { return v != "restart" && v != "demote" })},
		{"unrecorded", clone.Watched.Unrecorded},
		{"unmonitored", clone.Watched.Unmonitored},
		{"heir", !slices.ContainsFunc(c.Nodes, func(n model.Node) bool { return isHeir(in.Node, n, clone) })},
	} {
		if guard.missing {
			return guard.name
		}
	}
	return ""
}

// isHeir reports whether Pacemaker can promote another node.
func isHeir(self string, n model.Node, clone model.Clone) bool {
	member := slices.Contains(strings.Fields(strings.ToLower(clone.Parameters["node_list"])), strings.ToLower(n.Name))
	score := n.Transient["master-pgsql"]
	return n.Name != self && member && n.Online && !n.Unclean && !n.Pending && !n.Standby && !n.Maintenance &&
		clone.Roles[n.Name] == model.RoleUnpromoted && clone.Unsettled[n.Name] == "" && (n.Transient["pgsql-status"] != "STOP" || strings.HasPrefix(n.Permanent["pgsql-data-status"], "STREAMING")) &&
		slices.Contains([]string{"100", "1000", "INFINITY"}, score)
}
