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
