package model_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/model"
)

func TestLSN(t *testing.T) {
	for _, text := range []string{"0/0", "0/3000420", "16/B374D848", "FFFFFFFF/FFFFFFFF"} {
		l, err := model.ParseLSN(text)
		if err != nil || l.String() != text {
			t.Errorf("%s is read as %s, %v", text, l, err)
		}
	}
	for _, text := range []string{"", "0", "/", "0/", "/0", "0/1/2", "g/0", "-1/0", "1FFFFFFFF/0", "0x1/0", " 0/1"} {
		if l, err := model.ParseLSN(text); err == nil {
			t.Errorf("%q is read as %s", text, l)
		}
	}
	if s := model.LSN(0x3000420).Segment(16 << 20); s != 3 {
		t.Errorf("0/3000420 is in segment %d", s)
	}
	if n := model.LSN(5).BytesTo(3); n != 0 {
		t.Errorf("backwards is %d bytes", n)
	}
}

func TestVersionOrder(t *testing.T) {
	ordered := []model.Version{{}, {NumUpdates: 9}, {Epoch: 1}, {Epoch: 2, NumUpdates: 1}, {AdminEpoch: 1}}
	for i, older := range ordered {
		for _, newer := range ordered[i:] {
			sameConfiguration := older.AdminEpoch == newer.AdminEpoch && older.Epoch == newer.Epoch
			if older.ConfigurationOlder(newer) == sameConfiguration || newer.ConfigurationOlder(older) {
				t.Errorf("%v and %v are in the wrong order", older, newer)
			}
		}
	}
}

// The id of pgrex's own constraint is a valid XML id, and different for each node; upper and lower case do not count.
func TestStopConstraint(t *testing.T) {
	for node, want := range map[string]string{
		"pm01": "pgrex-stop-pgsql-pm01", "PM01": "pgrex-stop-pgsql-pm01", "db-1.example.org": "pgrex-stop-pgsql-db-1.example.org",
		"a_b": "pgrex-stop-pgsql-a_b", "a b": "pgrex-stop-pgsql-a_b-c8687a08", "a:b": "pgrex-stop-pgsql-a_b-6783a31e",
		"dätenbank": "pgrex-stop-pgsql-d_tenbank-",
	} {
		if got := model.StopConstraint("pgsql", node); !strings.HasPrefix(got, want) {
			t.Errorf("of %q it is %s", node, got)
		}
	}
	valid := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfNDistinct(rapid.String(), 2, 2, model.FoldNode).Draw(t, "nodes")
		a, b := model.StopConstraint("pgsql", nodes[0]), model.StopConstraint("pgsql", nodes[1])
		if !valid.MatchString(a) || a == b {
			t.Fatalf("of %q they are %s and %s", nodes, a, b)
		}
	})
}

// TestSlotNames: names are the agent's where they can be, valid, different from each other, and the same in any order.
func TestSlotNames(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	agents := regexp.MustCompile(`^[a-z0-9_.-]+$`)
	host := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]{1,3}[-._][a-c0-9]{0,2}`),
		rapid.StringMatching(`[A-Za-z0-9.-]{1,80}`),
		rapid.StringMatching(`db_[0-9a-f]{8}`),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfNDistinct(host, 1, 16, strings.ToLower).Draw(t, "hosts")
		prefix := rapid.StringMatching(`[a-z0-9_]{1,53}`).Draw(t, "prefix")
		names := model.SlotNames(prefix, hosts)
		owner := map[string]string{}
		for _, h := range hosts {
			name := names[h]
			if !valid.MatchString(name) {
				t.Fatalf("the slot of %q is %q, which PostgreSQL refuses", h, name)
			}
			if other, ok := owner[name]; ok {
				t.Fatalf("%q and %q share the slot %s", h, other, name)
			}
			owner[name] = h
		}
		if len(hosts) == 1 && agents.MatchString(hosts[0]) && len(prefix)+1+len(hosts[0]) <= 63 {
			if want := (model.Policy{SlotPrefix: prefix}).AgentSlotName(hosts[0]); names[hosts[0]] != want {
				t.Fatalf("the slot of %q is %s, the agent's %s", hosts[0], names[hosts[0]], want)
			}
		}
		slices.Reverse(hosts)
		if diff := cmp.Diff(names, model.SlotNames(prefix, hosts)); diff != "" {
			t.Fatalf("another order gives other names:\n%s", diff)
		}
	})
}

func TestSameHostTwiceEnds(t *testing.T) {
	if names := model.SlotNames("p", []string{"A", "a"}); len(names) != 2 {
		t.Errorf("got %v", names)
	}
}

func TestPolicy(t *testing.T) {
	base := model.Policy{SlotPrefix: "pgrex", StandbySlots: true, WALBudget: model.WALBudget{Percent: 50}, Members: []string{"a", "b"}, RepMode: "sync",
		AutoRejoin: model.DearestNone}
	with := func(change func(*model.Policy)) model.Policy {
		p := base
		change(&p)
		return p
	}
	for name, test := range map[string]struct {
		meta, parameters map[string]string
		want             model.Policy
		problems         int
	}{
		"defaults":       {nil, nil, base, 0},
		"prefix":         {map[string]string{"pgrex-slot-prefix": "x"}, nil, with(func(p *model.Policy) { p.SlotPrefix = "x" }), 0},
		"agent's":        {nil, map[string]string{"replication_slot_name": "rex"}, with(func(p *model.Policy) { p.SlotPrefix, p.AgentSlots = "rex", true }), 0},
		"besides":        {map[string]string{"pgrex-slot-prefix": "x"}, map[string]string{"replication_slot_name": "rex"}, with(func(p *model.Policy) { p.SlotPrefix = "x" }), 0},
		"all else":       {map[string]string{"pgrex-slot-naming": "pair", "pgrex-standby-slots": "none", "pgrex-orphans": "drop", "pgrex-paused": "Yes"}, nil, with(func(p *model.Policy) { p.PairNaming, p.StandbySlots, p.DropOrphans, p.Paused = true, false, true, true }), 0},
		"auto-rejoin":    {map[string]string{"pgrex-auto-rejoin": "rewind"}, nil, with(func(p *model.Policy) { p.AutoRejoin = model.DearestRewind }), 0},
		"no such way":    {map[string]string{"pgrex-auto-rejoin": "Copy"}, nil, base, 1},
		"bad prefix":     {map[string]string{"pgrex-slot-prefix": "Rex"}, nil, with(func(p *model.Policy) { p.SlotPrefix = "Rex" }), 1},
		"empty prefix":   {map[string]string{"pgrex-slot-prefix": ""}, nil, with(func(p *model.Policy) { p.SlotPrefix = "" }), 1},
		"bad paused":     {map[string]string{"pgrex-paused": "maybe"}, nil, base, 1},
		"xmin age":       {map[string]string{"pgrex-xmin-age": "5000000"}, nil, with(func(p *model.Policy) { p.XMinAge = 5000000 }), 0},
		"two bad ones":   {map[string]string{"pgrex-orphans": "keep", "pgrex-orphan": "drop"}, nil, base, 2},
		"someone else's": {map[string]string{"resource-stickiness": "1"}, nil, base, 0},
	} {
		t.Run(name, func(t *testing.T) {
			parameters := map[string]string{"node_list": " B a\tb ", "rep_mode": "sync"}
			for k, v := range test.parameters {
				parameters[k] = v
			}
			got, problems := model.PolicyOf(model.Clone{Meta: test.meta, Parameters: parameters})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			if len(problems) != test.problems {
				t.Errorf("problems: %q", problems)
			}
		})
	}
}

// TestPolicyOfWAL: what pgrex-wal-budget and pgrex-xmin-age can say.
func TestPolicyOfWAL(t *testing.T) {
	for text, want := range map[string]model.WALBudget{
		"1%": {Percent: 1}, "100%": {Percent: 100}, "512MB": {Bytes: 512 << 20}, "20gb": {Bytes: 20 << 30}, "1TB": {Bytes: 1 << 40}, "10905190MB": {Bytes: 10905190 << 20},
		"unlimited": {Unlimited: true},
	} {
		got, problems := model.PolicyOf(model.Clone{Meta: map[string]string{model.MetaWALBudget: text}})
		if got.WALBudget != want || len(problems) > 0 {
			t.Errorf("%s is read as %+v, %q", text, got.WALBudget, problems)
		}
		again, _ := model.PolicyOf(model.Clone{Meta: map[string]string{model.MetaWALBudget: got.WALBudget.String()}})
		if again.WALBudget != want {
			t.Errorf("%s is printed as %s, which is read as %+v", text, got.WALBudget, again.WALBudget)
		}
	}
	bad := map[string][]string{
		model.MetaWALBudget: {"", "0%", "101%", "-1", "50", "5.5%", "1.5GB", "20 GB", "0GB", "20kB", "Unlimited", "99999999TB", "999999999999999GB", "+5%%"},
		model.MetaXMinAge:   {"", "-1", "1e6", "2147483648", "5M"},
	}
	for name, values := range bad {
		for _, v := range values {
			if _, problems := model.PolicyOf(model.Clone{Meta: map[string]string{name: v}}); len(problems) != 1 || !strings.Contains(problems[0], name+"=") {
				t.Errorf("%s=%q: %q", name, v, problems)
			}
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 16 << 20: "16.0 MiB", 1 << 63: "8.0 EiB"} {
		if got := model.FormatBytes(n); got != want {
			t.Errorf("%d bytes are %q, not %q", n, got, want)
		}
	}
}

func TestFormatSeconds(t *testing.T) {
	for seconds, want := range map[float64]string{
		0.4: "0 s", 119: "119 s", 120: "2 min", 7199: "119 min", 12600: "3 h 30 min", 172800: "2 d 0 h", 787000: "9 d 2 h", 4e7: "more than a year",
	} {
		if got := model.FormatSeconds(seconds); got != want {
			t.Errorf("%v seconds are %q, not %q", seconds, got, want)
		}
	}
}

// A way back is allowed up to the dearest one, and what is no way never is.
func TestDearestAllows(t *testing.T) {
	ways := []string{"start", "rewind", "copy"}
	for i, dearest := range []model.Dearest{model.DearestNone, model.DearestStart, model.DearestRewind, model.DearestCopy} {
		for j, way := range ways {
			if got := dearest.Allows(way); got != (j < i) {
				t.Errorf("%s allows %s: %t", dearest, way, got)
			}
		}
	}
	for _, dearest := range []model.Dearest{"", "all", model.DearestCopy} {
		for _, way := range []string{"", "none", "restored"} {
			if dearest.Allows(way) {
				t.Errorf("%q allows %q", dearest, way)
			}
		}
	}
}

// Tries wait longer and longer, and end. Returns within an hour end, too, and stay ended. A success clears the tries
// only.
func TestAutoRejoinBounds(t *testing.T) {
	now := time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)
	var a model.AutoRejoin
	for i, wait := range []time.Duration{time.Minute, 5 * time.Minute, 25 * time.Minute} {
		if a.Failed() {
			t.Errorf("failed before try %d", i+1)
		}
		if a = a.Tried(now, time.Minute); a.Next != now.Add(wait) {
			t.Errorf("after try %d the next one is at %s", i+1, a.Next)
		}
	}
	if !a.Failed() {
		t.Error("three tries are not enough")
	}
	for i, after := range []time.Duration{0, 30 * time.Minute, time.Hour} {
		if a.Flaps() {
			t.Errorf("it flaps before return %d", i+1)
		}
		if a = a.Succeeded(model.Returned{At: now.Add(after)}); a.Tries != 0 || a.Failed() {
			t.Error("a success does not clear the tries")
		}
	}
	if !a.Flaps() {
		t.Error("three returns within an hour are not too many")
	}
	if a.Tried(now.Add(100*time.Hour), time.Minute).Flaps() == false {
		t.Error("it ends by itself")
	}
	if a = a.Succeeded(model.Returned{At: now.Add(2 * time.Hour)}); a.Flaps() || len(a.Returns) != model.MaxReturns {
		t.Errorf("returns at %v are too many", a.Returns)
	}
}
