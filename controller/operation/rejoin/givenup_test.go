package rejoin

import (
	"errors"
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

// What was given up is kept once the data here may have changed, however the operation ends and goes on; and removed if
// they have not.
func TestKeptOnceChanged(t *testing.T) {
	const segment = 1 << 20
	rewound := func(t *testing.T, c *Case) { // as the step does it, and the one after it, which closes pg_rewind's journal
		if err := errors.Join(c.beginRewind(t.Context(), nil), c.Place.PutBack(t.Context(), "pgrex_pm01")); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		do   func(t *testing.T, c *Case)
		kept bool
	}{
		"nothing was done": {func(*testing.T, *Case) {}, false},
		"it was rewound":   {rewound, true},
		"a copy was swapped in, and the next one failed": {func(t *testing.T, c *Case) {
			swap := new(Rejoin).copy(c)[2]
			if err := swap.Back[0].Do(t.Context()); err != nil {
				t.Fatal(err)
			}
			*c.swapped = false // as the next copy begins
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
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
			c := &Case{Place: datadir.Place{Data: data}, givenUp: g, swapped: &p.Swapped, changed: &p.Changed, Return: Return{
				Local: reconcile.LocalData{Timelines: []model.Timeline{{ID: 1}}, End: 5*segment + 100, Segment: segment},
			}}
			keep := (&Rejoin{Report: func(line string) { t.Log(line) }}).keepWAL(c)[0]
			if err := keep.Do(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.do(t, c)
			if err := keep.Back[0].Do(t.Context()); err != nil {
				t.Fatal(err)
			}
			if gave := GaveUp(operation.Job{Plan: p}); (gave != nil) != test.kept {
				t.Errorf("given up: %+v", gave)
			}
		})
	}
}

// What an operation that was left may have changed is known from its plan, its steps, or the data.
func TestChangedBefore(t *testing.T) {
	c := &Case{Place: datadir.Place{Data: filepath.Join(t.TempDir(), "data")}}
	begun := func(id string) *operation.Journal {
		return &operation.Journal{Steps: []operation.Entry{{ID: id, Undone: true}}}
	}
	for name, test := range map[string]struct {
		journal *operation.Journal
		plan    Plan
		want    bool
	}{
		"nothing": {begun("keep-wal"), Plan{}, false}, "said": {begun("keep-wal"), Plan{Changed: true}, true},
		"swapped": {begun("keep-wal"), Plan{Swapped: true}, true}, "a swap": {begun(stepSwap), Plan{}, true}, "a rewind": {begun(stepRewind), Plan{}, true},
	} {
		if got := c.changedBy(test.journal, &test.plan); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The next plan takes over what the one before has given up, unless it gives up something else: the primary may be another
// host now. What was not given up is not taken over.
func TestGivenUpByThePlanBefore(t *testing.T) {
	old := &model.GivenUp{Timeline: 1, From: 100, To: 200, Folder: "/old"}
	same := &model.GivenUp{Timeline: 1, From: 100, To: 200, Folder: "/same"}
	earlier := &model.GivenUp{Timeline: 1, From: 50, To: 200, Folder: "/earlier"}
	for name, test := range map[string]struct {
		before    *Plan
		now, want *model.GivenUp
		changed   bool
	}{
		"none before":            {nil, same, same, false},
		"nothing given up":       {&Plan{}, same, same, false},
		"the same":               {&Plan{GivenUp: old}, same, old, false},
		"more":                   {&Plan{GivenUp: old}, earlier, earlier, false},
		"nothing any more":       {&Plan{GivenUp: old}, nil, nil, false},
		"the data are the other": {&Plan{GivenUp: old}, nil, old, true},
		"more, since":            {&Plan{GivenUp: old}, earlier, earlier, true},
	} {
		p := &Plan{GivenUp: test.now, Changed: test.changed}
		if p.takeOver(test.before); p.GivenUp != test.want {
			t.Errorf("%s: %+v", name, p.GivenUp)
		}
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
