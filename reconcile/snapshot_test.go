package reconcile_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestSnapshotsOfOld: what an older pgrex wrote still loads, and gives its plan for the slots. The files are as that
// program wrote
// them, with its commit in their names: of a primary and a standby on real servers, and one with every field set.
func TestSnapshotsOfOld(t *testing.T) {
	want := map[string][]string{
		"7731fdf-primary.json":     nil,
		"7731fdf-standby.json":     {"CreateSlot", "SetPrimarySlotName", "SetWALBudget"},
		"7731fdf-every-field.json": nil,
	}
	files, err := filepath.Glob("testdata/snapshots/*.json")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		snapshot, err := reconcile.DecodeSnapshot(data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if strings.HasSuffix(file, "-every-field.json") {
			continue // that no plan can be made from
		}
		plan, err := reconcile.Plan(snapshot.Input)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		var kinds []string
		for _, s := range plan.Steps {
			if _, publishes := s.(model.PublishAttribute); !publishes { // how, is each version's own matter
				kinds = append(kinds, s.Kind())
			}
		}
		if !plan.Complete || !slices.Equal(kinds, want[filepath.Base(file)]) {
			t.Errorf("%s: another plan than then:\n%s", file, plan)
		}
	}
}

// TestSnapshotUnknownFields: wherever a field is that this version does not know, the snapshot is refused, and the
// error names the field.
func TestSnapshotUnknownFields(t *testing.T) {
	data, err := os.ReadFile("testdata/snapshots/7731fdf-every-field.json")
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	tried := 0
	eachObject("", document, func(at string, object map[string]any) {
		object["no_such_field"] = 1
		defer delete(object, "no_such_field")
		changed, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		tried++
		if _, err := reconcile.DecodeSnapshot(changed); err == nil || !strings.Contains(err.Error(), `"no_such_field"`) {
			t.Errorf("%s: %v", at, err)
		}
	})
	if tried < 10 {
		t.Errorf("%d objects", tried)
	}
}

// TestSnapshotWithoutAnOperation: an older pgrex reads a snapshot of a host on which no operation was begun.
func TestSnapshotWithoutAnOperation(t *testing.T) {
	for _, operation := range []*model.LocalOperation{nil, {Operation: "rejoin", Who: "root"}} {
		data, err := reconcile.Snapshot{Input: reconcile.Input{Operation: operation}}.Encode()
		if err != nil || strings.Contains(string(data), `"operation"`) != (operation != nil) {
			t.Errorf("%v, %s", err, data)
		}
		back, err := reconcile.DecodeSnapshot(data)
		if err != nil || operation != nil && *back.Input.Operation != *operation {
			t.Errorf("%+v, %v", back.Input.Operation, err)
		}
	}
}

// names are the objects of a snapshot whose fields are names from outside.
var names = []string{"properties", "permanent", "transient", "parameters", "meta", "roles"}

// eachObject visits the objects of a document whose fields are known.
func eachObject(at string, v any, visit func(at string, object map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			eachObject(at, e, visit)
		}
	case map[string]any:
		if slices.Contains(names, at) {
			return
		}
		visit(at, v)
		for key, e := range v {
			eachObject(key, e, visit)
		}
	}
}
