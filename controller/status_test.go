package controller

import (
	"encoding/json"
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
		s := statusOf(now, model.Plan{Standing: model.Primary}, nil, nil, nil, false)
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
