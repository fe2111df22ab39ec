package service

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// The data of this host in the tables: timeline 2, which began at 0/100, up to 0/200.
const (
	began = model.LSN(0x100)
	ended = model.LSN(0x200)
)

func oursHere() ours {
	return ours{LocalData: reconcile.LocalData{SystemID: "7", Timelines: []model.Timeline{{ID: 1}, {ID: 2, Begin: began}}, End: ended}}
}

// away is a member whose server does not run.
func away(status string, online bool) other {
	return other{Claim: reconcile.Claim{Host: "pm02", DataStatus: status}, Node: model.Node{Online: online}, Problem: "connection refused"}
}

// says is the answer of a standby that has the same WAL as this host, up to a position.
func says(flushed model.LSN, change ...func(a *answer)) other {
	a := answer{
		Upstream:  model.Upstream{SystemID: "7", Timeline: 2, InRecovery: true, Flushed: flushed},
		Timelines: []model.Timeline{{ID: 1}, {ID: 2, Begin: began}}, Same: true,
	}
	for _, c := range change {
		c(&a)
	}
	m := away("DISCONNECT", true)
	m.State, m.Said = "unpromoted", &a
	return m
}

func on(timelines ...model.Timeline) func(a *answer) {
	return func(a *answer) { a.Timelines, a.Timeline, a.Same = timelines, timelines[len(timelines)-1].ID, false }
}

func (m other) with(change func(m *other)) other {
	change(&m)
	return m
}

// TestTrap48Judge: what proves that a member has nothing newer than this host, and what the verdict says otherwise.
func TestTrap48Judge(t *testing.T) {
	runs := func(m *other) { m.State = "unpromoted" }
	others := func(o *ours) { o.Doubt, o.Unsure = notLatest, notLatest }
	inStep := func(o *ours) { o.Doubt = notLatest }
	replays := func(a *answer) { a.Replays = "it moves" }
	gone := func(a *answer) { a.Same, a.Gone = false, true }
	alone := func(o *ours) { o.Overlooks = "only 1 of 3 nodes are online" }
	for name, test := range map[string]struct {
		m      other
		change func(o *ours)
		ok     bool
		why    string
	}{
		// Its server answers.
		"as far":                            {m: says(ended), ok: true, why: "has the same WAL up to 0/200, 0 B less"},
		"behind":                            {m: says(0x180), ok: true, why: "the same WAL up to 0/180, 128 B less"},
		"not the last primary":              {m: says(0x180), change: others, ok: true, why: "128 B less"},
		"it replays":                        {m: says(0x180, replays), change: others, why: "has WAL up to 0/180 on timeline 2, and may still replay: it moves"},
		"it replays up to the end":          {m: says(ended, replays), change: others, why: "may still replay: it moves"},
		"it replays an older one":           {m: says(0x80, on(model.Timeline{ID: 1}), replays), change: others, why: "on timeline 1, and may still replay"},
		"it replays, further":               {m: says(0x308, replays, func(a *answer) { a.Same = false }), change: others, why: "264 B more"},
		"in step, and answers":              {m: says(ended).with(func(m *other) { m.DataStatus = "STREAMING|SYNC" }), ok: true, why: "0 B less"},
		"half a record more":                {m: says(0x208), ok: true, why: "the same WAL up to 0/208, 0 B less"},
		"further":                           {m: says(0x308, func(a *answer) { a.Same = false }), why: "up to 0/308, which is 264 B more"},
		"other WAL":                         {m: says(ended, func(a *answer) { a.Same = false }), why: "differs from that here"},
		"long behind":                       {m: says(0x180, func(a *answer) { a.Same, a.Gone = false, true }), ok: true, why: "it has WAL up to 0/180, 128 B less"},
		"long behind, not the last primary": {m: says(0x180, func(a *answer) { a.Same, a.Gone = false, true }), change: others, why: "no longer here to compare"},
		"further, in a file not here":       {m: says(0x308, func(a *answer) { a.Same, a.Gone = false, true }), why: "up to 0/308, which is 264 B more"},
		"a newer timeline":                  {m: says(0x300, on(model.Timeline{ID: 1}, model.Timeline{ID: 2, Begin: began}, model.Timeline{ID: 3, Begin: 0x180})), why: "newer timeline 3, which began at 0/180"},
		"newer, from the end on":            {m: says(0x300, on(model.Timeline{ID: 1}, model.Timeline{ID: 2, Begin: began}, model.Timeline{ID: 4, Begin: ended})), why: "type sudo pgrex rejoin here"},
		"knows a newer timeline":            {m: says(ended, func(a *answer) { a.Later = true }), why: "knows a timeline after 2"},
		"older, and knows a new":            {m: says(0x80, on(model.Timeline{ID: 1}), func(a *answer) { a.Later = true }), why: "knows a timeline after 2"},
		"an older timeline":                 {m: says(0x80, on(model.Timeline{ID: 1})), ok: true, why: "older timeline 1 up to 0/80"},
		"an old primary's":                  {m: says(0x180, on(model.Timeline{ID: 1})), ok: true, why: "was given up then, and it needs sudo pgrex rejoin"},
		"another's timeline was left":       {m: says(0x180, on(model.Timeline{ID: 1})), change: others, why: "has WAL up to 0/180 on timeline 1, which the timelines here left at 0/100: that may be newer, because this host was not the last primary"},
		"not left by the agent":             {m: says(0x180, on(model.Timeline{ID: 1})).with(func(m *other) { m.DataStatus = "STREAMING|POTENTIAL" }), why: "left at 0/100: that may be newer, because its data status is STREAMING|POTENTIAL"},
		"up to where it was left":           {m: says(began, on(model.Timeline{ID: 1})), change: others, ok: true, why: "older timeline 1 up to 0/100"},
		"the number taken twice":            {m: says(0x180, on(model.Timeline{ID: 1}, model.Timeline{ID: 2, Begin: 0x90})), why: "is on timeline 2, which is none of those"},
		"another branch":                    {m: says(0x180, on(model.Timeline{ID: 1}, model.Timeline{ID: 3, Begin: began})), why: "is on timeline 3, which is none of those"},
		"another database":                  {m: says(0x80, func(a *answer) { a.SystemID = "8" }), why: "another database"},
		"a primary":                         {m: says(0x80, func(a *answer) { a.InRecovery = false }), why: "is a primary that Pacemaker does not know"},
		"unclean, and answers":              {m: says(0x80).with(func(m *other) { m.Node.Unclean = true }), why: "is to be fenced"},
		"the newest, and answers":           {m: says(0x80).with(func(m *other) { m.DataStatus = "LATEST" }), why: "start that host first"},
		"the next primary":                  {m: says(ended).with(func(m *other) { m.DataStatus, m.Next = "STREAMING|SYNC", true }), why: "the agent promotes it by itself: wait"},
		// Its server runs, but does not answer.
		"runs":                 {m: away("DISCONNECT", true).with(runs), why: "(to Pacemaker: unpromoted) does not say what it has: connection refused"},
		"has failed":           {m: away("DISCONNECT", true).with(func(m *other) { m.State = "failed" }), why: "(to Pacemaker: failed)"},
		"runs behind our back": {m: away("DISCONNECT", true).with(func(m *other) { m.Heard = true }), why: "(to Pacemaker: stopped)"},
		"offline, but runs":    {m: away("DISCONNECT", false).with(func(m *other) { m.Heard = true }), why: "does not say what it has"},
		// Its server does not run.
		"stopped":                        {m: away("DISCONNECT", true), ok: true, why: "is stopped: by its data status, DISCONNECT"},
		"stopped, with few others":       {m: away("DISCONNECT", true), change: alone, ok: true, why: "is stopped"},
		"offline":                        {m: away("DISCONNECT", false), ok: true, why: "is offline: by its data status, DISCONNECT"},
		"offline, with few others":       {m: away("DISCONNECT", false), change: alone, why: "only 1 of 3 nodes are online"},
		"stopped, not the last primary":  {m: away("DISCONNECT", true), change: others, why: "this host was not the last primary"},
		"stopped, and here in step":      {m: away("DISCONNECT", true), change: inStep, ok: true, why: "nobody was promoted since this host was in step"},
		"both in step":                   {m: away("STREAMING|SYNC", true), change: inStep, why: "may have been promoted since"},
		"replays, and here in step":      {m: says(0x180, replays), change: inStep, ok: true, why: "runs: by its data status, DISCONNECT"},
		"an older one, and here in step": {m: says(0x80, on(model.Timeline{ID: 1}), replays), change: inStep, ok: true, why: "runs: by its data status"},
		"beyond where it was left":       {m: says(0x180, on(model.Timeline{ID: 1}), replays), change: inStep, why: "that may be newer"},
		"gone, and here in step":         {m: says(0x180, gone), change: inStep, ok: true, why: "runs: by its data status"},
		"both in step, and it replays":   {m: says(0x180, replays).with(func(m *other) { m.DataStatus = "STREAMING|SYNC" }), change: inStep, why: "may still replay: it moves"},
		"both in step, and gone":         {m: says(0x180, gone).with(func(m *other) { m.DataStatus = "STREAMING|SYNC" }), change: inStep, why: "no longer here to compare"},
		"replays, and was never seen":    {m: says(0x180, replays).with(func(m *other) { m.DataStatus = "" }), change: inStep, why: "may still replay: it moves"},
		"unclean":                        {m: away("DISCONNECT", false).with(func(m *other) { m.Node.Unclean = true }), why: "is to be fenced"},
		"joining":                        {m: away("DISCONNECT", true).with(func(m *other) { m.Node.Pending = true }), why: "is joining"},
		"in step":                        {m: away("STREAMING|SYNC", false), why: "may have been promoted since: bring it back, so that its server answers, or take it out of node_list if it never comes back"},
		"in step, and stopped":           {m: away("STREAMING|SYNC", true), why: "may have been promoted since"},
		"in a quorum":                    {m: away("STREAMING|QUORUM", false), why: "may have been promoted since"},
		"in step when it was shut down":  {m: away("STOPPING|SYNC", false), why: "may have been promoted since"},
		"asynchronous beside a sync one": {m: away("STREAMING|ASYNC", false), ok: true, why: "STREAMING|ASYNC"},
		"asynchronous":                   {m: away("STREAMING|ASYNC", false), change: func(o *ours) { o.Async = true }, why: "may have been promoted since"},
		"potential":                      {m: away("STREAMING|POTENTIAL", false), ok: true, why: "STREAMING|POTENTIAL"},
		"catching up":                    {m: away("CATCHUP|ASYNC", false), change: func(o *ours) { o.Async = true }, ok: true, why: "CATCHUP|ASYNC"},
		"never seen":                     {m: away("", false), why: "has never written a data status"},
		"the newest":                     {m: away("LATEST", false), why: "has the data status LATEST"},
		"was further":                    {m: away("DISCONNECT", true).with(func(m *other) { m.Location = 0x300 }), why: "went up to 0/300"},
	} {
		t.Run(name, func(t *testing.T) {
			o := oursHere()
			if test.change != nil {
				test.change(&o)
			}
			got := o.judge(test.m)
			if got.OK != test.ok || !strings.Contains(got.Why, test.why) || !strings.Contains(got.Why, "pm02") {
				t.Errorf("%t, %q; want %t, %q", got.OK, got.Why, test.ok, test.why)
			}
		})
	}
}

// TestTrap48Overlooks: when the CIB of a partition may lack the promotion of a host that is offline.
func TestTrap48Overlooks(t *testing.T) {
	nodes := func(online, all int) (nodes []model.Node) {
		for i := range all {
			nodes = append(nodes, model.Node{Name: fmt.Sprintf("pm%02d", i+1), ID: fmt.Sprint(i + 1), Online: i < online})
		}
		return nodes
	}
	remotes := []model.Node{{Name: "far", ID: "far", Online: true}, {Name: "guest", ID: "guest", Online: true}}
	quorum := func(policy, fencing string) map[string]string {
		return map[string]string{"no-quorum-policy": policy, "stonith-enabled": fencing}
	}
	for name, test := range map[string]struct {
		cluster model.Cluster
		want    string
	}{
		"two of three":                {model.Cluster{Nodes: nodes(2, 3)}, ""},
		"one of three":                {model.Cluster{Nodes: nodes(1, 3)}, "only 1 of 3 nodes are online"},
		"one of two":                  {model.Cluster{Nodes: nodes(1, 2)}, "only 1 of 2 nodes are online"},
		"two of four":                 {model.Cluster{Nodes: nodes(2, 4)}, "only 2 of 4 nodes are online"},
		"a quorum that nobody needs":  {model.Cluster{Nodes: nodes(2, 3), Properties: map[string]string{"no-quorum-policy": "ignore"}}, "no-quorum-policy is ignore"},
		"a quorum that somebody does": {model.Cluster{Nodes: nodes(2, 3), Properties: map[string]string{"no-quorum-policy": "freeze"}}, ""},
		"frozen, without fencing":     {model.Cluster{Nodes: nodes(2, 3), Properties: quorum("freeze", "false")}, "no-quorum-policy is freeze, and there is no fencing"},
		"demoted, without fencing":    {model.Cluster{Nodes: nodes(2, 3), Properties: quorum("demote", "0")}, "no-quorum-policy is demote, and there is no fencing"},
		"stopped, without fencing":    {model.Cluster{Nodes: nodes(2, 3), Properties: quorum("stop", "false")}, ""},
		"demoted, and fenced":         {model.Cluster{Nodes: nodes(2, 3), Properties: quorum("demote", "true")}, ""},
		"demoted, by the new name":    {model.Cluster{Nodes: nodes(2, 3), Properties: map[string]string{"no-quorum-policy": "demote", "fencing-enabled": "off"}}, "there is no fencing"},
		"remote nodes are no votes":   {model.Cluster{Nodes: append(nodes(1, 2), remotes...)}, "only 1 of 2 nodes are online"},
		"remote nodes are offline":    {model.Cluster{Nodes: append(nodes(2, 3), model.Node{Name: "far", ID: "far"})}, ""},
		"an older CIB":                {model.Cluster{Nodes: nodes(3, 3), Version: model.Version{Epoch: 6}}, "older than one that this host has seen"},
	} {
		newest := model.Version{}
		if test.cluster.Version.Epoch > 0 {
			newest.Epoch = test.cluster.Version.Epoch + 1
		}
		got := overlooks(reconcile.Who{Input: reconcile.Input{Cluster: &test.cluster, Newest: newest}}, "")
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestTrap48Votes: where corosync counts otherwise, more than half of the nodes prove nothing.
func TestTrap48Votes(t *testing.T) {
	who := reconcile.Who{Input: reconcile.Input{Cluster: &model.Cluster{Nodes: []model.Node{
		{Name: "pm01", ID: "1", Online: true}, {Name: "pm02", ID: "2", Online: true}, {Name: "pm03", ID: "3"},
	}}}}
	s := Service{CorosyncConf: filepath.Join(t.TempDir(), "corosync.conf")}
	if got := overlooks(who, s.votes()); !strings.Contains(got, "no such file") {
		t.Errorf("without a configuration: %q", got)
	}
	for text, want := range map[string]string{
		"quorum {\n\tprovider: corosync_votequorum\n}\n": "",
		"quorum {\n\tlast_man_standing: 1\n}\n":          "fewer nodes could have had the quorum: quorum.last_man_standing is 1",
	} {
		if err := os.WriteFile(s.CorosyncConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := overlooks(who, s.votes()); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestOrders: all hosts lost power at once, or pm02 before the others. They come back in every order. pm01 was the last
// primary, and has the agent's lock. A standby that comes back answers.
func TestOrders(t *testing.T) {
	const proven = ""
	for name, test := range map[string]struct {
		async      bool
		pm02, pm03 string            // their data status
		want       map[string]string // what pm01 still lacks for its start, by who is back
	}{
		"pm02 was in step": {pm02: "STREAMING|SYNC", pm03: "STREAMING|ASYNC", want: map[string]string{
			"pm01 pm02":      "pm02 runs, and with its data status (STREAMING|SYNC) the agent promotes it by itself",
			"pm01 pm03":      "pm02 is offline, and was in step when it was last seen (STREAMING|SYNC), so it may have been promoted since: bring it back",
			"pm01 pm02 pm03": "the agent promotes it by itself",
		}},
		"pm02 went off before": {pm02: "DISCONNECT", pm03: "STREAMING|ASYNC", want: map[string]string{
			"pm01 pm02": proven, "pm01 pm03": proven, "pm01 pm02 pm03": proven,
		}},
		"pm02 went off before, and pm03 is in step": {pm02: "DISCONNECT", pm03: "STREAMING|SYNC", want: map[string]string{
			"pm01 pm02":      "pm03 is offline, and was in step",
			"pm01 pm03":      "pm03 runs, and with its data status (STREAMING|SYNC)",
			"pm01 pm02 pm03": "pm03 runs, and with its data status (STREAMING|SYNC)",
		}},
		"both were asynchronous": {async: true, pm02: "STREAMING|ASYNC", pm03: "STREAMING|ASYNC", want: map[string]string{
			"pm01 pm02":      "pm02 runs, and with its data status (STREAMING|ASYNC)",
			"pm01 pm03":      "pm02 is offline, and was in step",
			"pm01 pm02 pm03": "pm02 runs, and with its data status (STREAMING|ASYNC)",
		}},
		"both had gone off before": {async: true, pm02: "DISCONNECT", pm03: "DISCONNECT", want: map[string]string{
			"pm01 pm02": proven, "pm01 pm03": proven, "pm01 pm02 pm03": proven,
		}},
	} {
		for _, order := range orders("pm01", "pm02", "pm03") {
			for n := 2; n <= len(order); n++ { // one alone has no quorum
				back := slices.Sorted(slices.Values(order[:n]))
				if !slices.Contains(back, "pm01") {
					continue // the others say that pm01 has the newest data
				}
				o, found := oursHere(), proof(nil)
				o.Async = test.async
				for host, status := range map[string]string{"pm02": test.pm02, "pm03": test.pm03} {
					m := away(status, false)
					if slices.Contains(back, host) {
						m = says(0x180).with(func(m *other) { m.DataStatus, m.Next = status, o.mayTakeOver(status) })
					}
					m.Host = host
					found = append(found, o.judge(m))
				}
				want := test.want[strings.Join(back, " ")]
				if got := strings.Join(found.missing(), "; "); found.proven() != (want == proven) || !strings.Contains(got, want) {
					t.Errorf("%s, %v of %v are back: missing is %q, want %q", name, back, order, got, want)
				}
			}
		}
	}
}

// orders are all orders of some hosts.
func orders(hosts ...string) (all [][]string) {
	if len(hosts) == 0 {
		return [][]string{nil}
	}
	for i, first := range hosts {
		for _, rest := range orders(slices.Concat(hosts[:i], hosts[i+1:])...) {
			all = append(all, append([]string{first}, rest...))
		}
	}
	return all
}
