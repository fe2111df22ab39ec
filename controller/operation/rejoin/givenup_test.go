package rejoin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// A case says that nothing would be kept; and a job what it has given up, unless that was undone.
func TestNothingIsKept(t *testing.T) {
	const segment = 1 << 20
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	g := &model.GivenUp{Timeline: 1, From: 5 * segment, To: 5*segment + 100, Folder: filepath.Join(t.TempDir(), "given-up", "one")}
	c := &Case{Place: datadir.Place{Data: data}, givenUp: g, Return: Return{Local: reconcile.LocalData{
		Timelines: []model.Timeline{{ID: 1}}, End: 5*segment + 100, Segment: segment,
	}}}
	if short, err := c.NotKept(); err != nil || !strings.Contains(short, "WAL from 0/500000 to 0/500064 is no longer here") {
		t.Errorf("it says %q, %v", short, err)
	}
	job := operation.Job{Plan: &Plan{GivenUp: g}}
	if GaveUp(job) != nil {
		t.Error("it has given up what was undone")
	}
	if err := os.MkdirAll(g.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if GaveUp(job) != g {
		t.Error("it does not say what it has given up")
	}
	if short, err := c.NotKept(); err != nil || short != "" {
		t.Errorf("of what is kept it says %q, %v", short, err)
	}
	if err := os.Remove(g.Folder); err != nil {
		t.Fatal(err)
	}
	c.Return.Begun = MethodCopy
	if short, err := c.NotKept(); err != nil || short != "" {
		t.Errorf("after it has begun it says %q, %v", short, err)
	}
}

// What was given up is kept once pg_rewind has begun to change the data, however the operation ends; and removed if it
// has not.
func TestKeptAfterARewind(t *testing.T) {
	const segment = 1 << 20
	for _, begun := range []bool{true, false} {
		data := filepath.Join(t.TempDir(), "data")
		if err := os.MkdirAll(filepath.Join(data, "pg_wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]int{"PG_VERSION": 3, "postgresql.auto.conf": 0, "pg_wal/" + datadir.SegmentName(1, 5, segment): segment} {
			if err := os.WriteFile(filepath.Join(data, name), make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := &model.GivenUp{Timeline: 1, From: 5 * segment, To: 5*segment + 100, Folder: filepath.Join(t.TempDir(), "given-up", "one")}
		p := &Plan{GivenUp: g}
		c := &Case{Place: datadir.Place{Data: data}, givenUp: g, rewindBegun: &p.RewindBegun, Return: Return{Local: reconcile.LocalData{
			Timelines: []model.Timeline{{ID: 1}}, End: 5*segment + 100, Segment: segment,
		}}}
		r := &Rejoin{Report: func(line string) { t.Log(line) }}
		keep := r.keepWAL(c)[0]
		if err := keep.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if begun { // as the step "rewind" does it, and the one after it, which closes the journal of pg_rewind
			if err := c.beginRewind(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Place.PutBack(t.Context(), "pgrex_pm01"); err != nil {
				t.Fatal(err)
			}
		}
		if err := keep.Back[0].Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if gave := GaveUp(operation.Job{Plan: p}); (gave != nil) != begun {
			t.Errorf("pg_rewind begun: %t; given up: %+v", begun, gave)
		}
	}
}

// The next plan gives up what was kept for the one before. If nothing was, it looks again: the primary may be another.
func TestGivenUpByThePlanBefore(t *testing.T) {
	g := &model.GivenUp{Folder: filepath.Join(t.TempDir(), "one")}
	for _, test := range []struct {
		plan Plan
		kept bool
	}{
		{Plan{}, false}, {Plan{GivenUp: g}, false}, {Plan{GivenUp: g, RewindBegun: true}, true}, {Plan{GivenUp: g, Swapped: true}, true},
	} {
		if got := test.plan.keptGivenUp(); (got != nil) != test.kept {
			t.Errorf("%+v: %v", test.plan, got)
		}
	}
	if err := os.Mkdir(g.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := (&Plan{GivenUp: g}).keptGivenUp(); got != g {
		t.Errorf("once it is kept: %v", got)
	}
}

// Room is left for the WAL that is kept beside the data, and only there.
func TestRoomForKeptWAL(t *testing.T) {
	r := &Rejoin{StateDir: filepath.Join(t.TempDir(), "later")}
	here, _, err := datadir.Disk(r.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Case{}
	c.Return.Timelines = []model.Timeline{{ID: 1}}
	c.Return.Local.Timelines, c.Return.Primary.Flushed = c.Return.Timelines, 1000
	for _, test := range []struct{ end, fileSystem, want uint64 }{
		{3000, here, 2000}, {3000, here + 1, 0}, {1000, here, 0}, {datadir.MaxKeptWAL << 2, here, datadir.MaxKeptWAL},
	} {
		c.Return.Local.End, c.Return.Local.FileSystem = model.LSN(test.end), test.fileSystem
		if got := r.keeps(c); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}
