package controller

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestStatusOfWAL: what is known of the WAL is in the status, in bytes and seconds, and what is not is null.
func TestStatusOfWAL(t *testing.T) {
	w := newWorld()
	in := reconcile.Input{Node: "pm01", Cluster: &w.cluster, Instance: w.instance}
	in.Instance.Current = 0x5000000 + 300*mebi
	in.Instance.Slots = []model.Slot{
		{Name: "pgrex_pm02", Type: model.SlotPhysical, RestartLSN: 0x5000000, WALStatus: "extended"},
		{Name: "used", Type: model.SlotPhysical, RestartLSN: 0x5000000, WALStatus: "extended", Active: true},
		{Name: "lost", Type: model.SlotPhysical, WALStatus: "lost"},
	}
	status := func(change func(i *reconcile.Input)) string {
		now := in
		change(&now)
		s := statusOf(resolved(t, now), model.Plan{Standing: model.Primary}, nil, nil, nil, false)
		text, err := json.Marshal(struct {
			Slots []SlotStatus
			WAL   WALStatus
		}{s.Slots, s.WAL})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := func(text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s is not in %s", part, text)
			}
		}
	}
	want(status(func(*reconcile.Input) {}), `"budget_used":null,"time_left_seconds":null`,
		`"WAL":{"budget_bytes":null,"rate_usual":null,"rate_peak":null,"file_system_size_bytes":null,"file_system_free_bytes":null,`+
			`"wal_bytes":null,"disk_time_left_seconds":null}`)

	known := func(budget int64) func(i *reconcile.Input) {
		return func(i *reconcile.Input) {
			i.WALRate = model.WALRate{Usual: mebi, Peak: 2 * mebi, Since: time.Unix(0, 0)}
			i.Instance.Budget = &model.Budget{MaxSlotWALKeepSize: budget, MaxWALSize: 64}
			i.Instance.WALSpace = &model.WALSpace{Size: 2000 * mebi, Free: 600 * mebi, WAL: 364 * mebi}
		}
	}
	want(status(known(400)),
		`"retained_bytes":314572800,"wal_status":"extended","budget_used":0.75,"time_left_seconds":100}`, // nobody is attached
		`"retained_bytes":314572800,"wal_status":"extended","budget_used":0.75,"time_left_seconds":null}`,
		`"retained_bytes":0,"wal_status":"lost","budget_used":null,"time_left_seconds":null}`,
		`"budget_bytes":419430400,"rate_usual":1048576,"rate_peak":2097152`, `"file_system_free_bytes":629145600`, `"disk_time_left_seconds":null`)
	want(status(known(model.Unlimited)), `"budget_used":null,"time_left_seconds":600}`, `"budget_bytes":-1`, `"disk_time_left_seconds":600`)
	want(status(known(4000)), `"time_left_seconds":600}`, `"disk_time_left_seconds":600`) // the disk ends before the budget
}

// TestStatusIsDocumented: every field of the JSON form is in its table.
func TestStatusIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(reflect.Type)
	walk = func(r reflect.Type) {
		for r.Kind() == reflect.Slice || r.Kind() == reflect.Pointer {
			r = r.Elem()
		}
		if r.Kind() != reflect.Struct || r == reflect.TypeFor[time.Time]() {
			return
		}
		for field := range r.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" {
				seen++
				if !strings.Contains(string(document), "`"+name+"`") && !strings.Contains(string(document), "`"+name+"[]`") {
					t.Errorf("docs/status.md does not have %s of %s", name, r)
				}
			}
			walk(field.Type)
		}
	}
	walk(reflect.TypeFor[Status]())
	if seen < 60 {
		t.Errorf("only %d fields were seen", seen)
	}
}

// TestForecastOfASlotThatIsGone: what a standby has published counts only while the slot that it counts on is there.
func TestForecastOfASlotThatIsGone(t *testing.T) {
	w := newWorld()
	w.cluster.Clones[0].Parameters["node_list"] = "pm01 pm02 pm03"
	w.cluster.Clones[0].Roles["pm02"] = model.RoleUnpromoted
	for i := range w.cluster.Nodes {
		if w.cluster.Nodes[i].Name == "pm02" {
			w.cluster.Nodes[i].Online = true
			w.cluster.Nodes[i].Transient = map[string]string{model.ForecastAttribute("pgsql"): "pm01=rewind,pm03=stream"}
		}
	}
	in := reconcile.Input{Node: "pm01", Cluster: &w.cluster, Instance: w.instance}
	w.cluster.Nodes[0].Transient[model.ForecastAttribute("pgsql")] = "pm02=stream,pm03=stream"
	for name, test := range map[string]struct {
		slots []model.UpstreamSlot
		want  model.Way
	}{
		"not asked":     {nil, model.WayStream},
		"there":         {[]model.UpstreamSlot{{Name: "pgrex_pm03", Exists: true, RestartLSN: 0x5000000}}, model.WayStream},
		"gone":          {[]model.UpstreamSlot{{Name: "pgrex_pm03"}}, model.WayUnknown},
		"holds nothing": {[]model.UpstreamSlot{{Name: "pgrex_pm03", Exists: true}}, model.WayUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			answers := map[string]Answer{}
			if test.slots != nil {
				answers["pm02"] = Answer{Said: &model.Upstream{Slots: test.slots}}
			}
			s := statusOf(resolved(t, in), model.Plan{Standing: model.Primary}, answers, nil, nil, false)
			got := map[string]model.Way{}
			for _, f := range s.Forecast {
				if f.Candidate == "pm02" {
					got[f.Host] = f.Way
				}
			}
			if got["pm03"] != test.want || got["pm01"] != model.WayRewind {
				t.Errorf("pm02 foretells %v, not pm03=%s", got, test.want)
			}
			if test.slots == nil {
				return
			}
			// The same on a standby, of what the primary has published.
			there := in
			there.Node, there.Upstream = "pm02", &model.Upstream{Slots: test.slots}
			for _, f := range statusOf(resolved(t, there), model.Plan{Standing: model.Standby}, answers, nil, nil, false).Forecast {
				if f.Candidate == "pm01" && f.Host == "pm03" && f.Way != test.want {
					t.Errorf("pm01 foretells %s, not %s", f.Way, test.want)
				}
			}
		})
	}
}

func resolved(t *testing.T, in reconcile.Input) reconcile.Who {
	t.Helper()
	who, err := reconcile.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	return who
}
