package datadir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

const keptSegment = 1 << 20

// walHere is a data folder with WAL of timeline 3, which ends in segment 8, and some files that are something else.
func walHere(t *testing.T) (Place, reconcile.LocalData) {
	t.Helper()
	p := Place{Data: t.TempDir(), Bin: "/bin"}
	wal := filepath.Join(p.Data, "pg_wal")
	if err := os.Mkdir(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{"00000003.history", "00000002.history", "archive_status", SegmentName(2, 6, keptSegment)}
	for n := range uint64(6) {
		names = append(names, SegmentName(3, 4+n, keptSegment)) // the last one is for WAL to come
	}
	for _, name := range names {
		text := "3"
		if walFile.MatchString(name) {
			text = strings.Repeat(name[:1], keptSegment)
		}
		if err := os.WriteFile(filepath.Join(wal, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p, reconcile.LocalData{
		Timelines: []model.Timeline{{ID: 1}, {ID: 2, Begin: 1 * keptSegment}, {ID: 3, Begin: 3 * keptSegment}},
		End:       8*keptSegment + 100, Segment: keptSegment,
	}
}

func namesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// The WAL from where the data parted is kept, and no other; it says how to read it. A second time nothing is changed.
func TestKeepWAL(t *testing.T) {
	p, local := walHere(t)
	g := model.GivenUp{Timeline: 3, From: 6*keptSegment + 10, To: local.End, Folder: filepath.Join(t.TempDir(), "given-up", "one")}
	if kept, err := p.KeepWAL(t.Context(), g, local, 100*keptSegment); err != nil || kept.Short != "" || kept.Nothing {
		t.Fatal(kept, err)
	}
	want := []string{"00000003.history", SegmentName(3, 6, keptSegment), SegmentName(3, 7, keptSegment), SegmentName(3, 8, keptSegment), keptReadme}
	if got := namesIn(t, g.Folder); !slices.Equal(got, want) {
		t.Errorf("it keeps %s", got)
	}
	text, err := os.ReadFile(filepath.Join(g.Folder, keptReadme))
	if how := "pg_waldump --path=" + g.Folder + " --timeline=3 --start=0/60000A --end=0/800064\n"; err != nil || !strings.Contains(string(text), how) {
		t.Errorf("how to read it: %s %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(p.Data, "pg_wal", want[1]), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.KeepWAL(t.Context(), g, local, 100*keptSegment); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(g.Folder, want[1])); err != nil || info.Size() != keptSegment {
		t.Errorf("what is kept was changed: %v %v", info, err)
	}
}

// What is kept is limited: the oldest goes first, and of too much only the beginning is kept, which is said.
func TestKeepWALBounded(t *testing.T) {
	p, local := walHere(t)
	above := filepath.Join(t.TempDir(), "given-up")
	var removed []string
	var err error
	keep := func(name string, from model.LSN, most uint64) string {
		t.Helper()
		g := model.GivenUp{Timeline: 3, From: from, To: local.End, Folder: filepath.Join(above, name)}
		kept, err := p.KeepWAL(t.Context(), g, local, most)
		if err != nil {
			t.Fatal(err)
		}
		return kept.Short
	}
	forget := func(newest string, most uint64) {
		t.Helper()
		if removed, err = ForgetOldest(t.Context(), filepath.Join(above, newest), most); err != nil {
			t.Fatal(err)
		}
	}
	const room = 3*keptSegment + keptSegment/2 // histories and texts are beside the WAL
	keep("1", 8*keptSegment, room)
	keep("2", 8*keptSegment, room)
	keep("3", 7*keptSegment, room)
	if got := namesIn(t, above); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("before this host is back, only %s are there", got)
	}
	forget("3", room)
	if got := namesIn(t, above); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("it keeps %s", got)
	}
	if !slices.Equal(removed, []string{filepath.Join(above, "1")}) {
		t.Errorf("it says that it has removed %s", removed)
	}
	short := keep("4", 4*keptSegment, 2*keptSegment)
	forget("4", 2*keptSegment)
	if got := namesIn(t, above); !slices.Equal(got, []string{"4"}) || !strings.Contains(short, "2 of 5 files") {
		t.Errorf("it keeps %s, and says %q", got, short)
	}
	if !slices.Contains(namesIn(t, filepath.Join(above, "4")), SegmentName(3, 4, keptSegment)) {
		t.Error("the beginning is not kept")
	}
	text, err := os.ReadFile(filepath.Join(above, "4", keptReadme))
	if err != nil || !strings.Contains(string(text), short) {
		t.Errorf("how to read it: %s %v", text, err)
	}
}

// WAL that is no longer here is named: it is not kept.
func TestKeepWALMissing(t *testing.T) {
	p, local := walHere(t)
	for _, n := range []uint64{5, 6} {
		if err := os.Remove(filepath.Join(p.Data, "pg_wal", SegmentName(3, n, keptSegment))); err != nil {
			t.Fatal(err)
		}
	}
	g := model.GivenUp{Timeline: 3, From: 4*keptSegment + 16, To: local.End, Folder: filepath.Join(t.TempDir(), "given-up", "one")}
	kept, err := p.KeepWAL(t.Context(), g, local, 100*keptSegment)
	if want := "WAL from 0/500000 to 0/700000 is no longer here"; err != nil || kept.Short != want || kept.Nothing {
		t.Errorf("it says %+v, %v", kept, err)
	}
	g.Short = kept.Short
	if kept, err := p.KeepWAL(t.Context(), g, local, 100*keptSegment); err != nil || kept.Short != g.Short {
		t.Errorf("the second time it says %+v, %v", kept, err)
	}
	g.Folder += "2"
	if _, kept, err := p.Keeps(g, local, 0); err != nil || !kept.Nothing || !strings.Contains(kept.Short, "room for 0 of 3 files") {
		t.Errorf("without room it says %+v, %v", kept, err)
	}
}

// Earlier WAL stays until the new one is whole.
func TestKeepWALFails(t *testing.T) {
	p, local := walHere(t)
	above := filepath.Join(t.TempDir(), "given-up")
	g := model.GivenUp{Timeline: 3, From: 8 * keptSegment, To: local.End, Folder: filepath.Join(above, "1")}
	if _, err := p.KeepWAL(t.Context(), g, local, keptSegment); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(p.Data, "pg_wal", SegmentName(3, 8, keptSegment))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/not/there", gone); err != nil {
		t.Fatal(err)
	}
	g.Folder = filepath.Join(above, "2")
	if _, err := p.KeepWAL(t.Context(), g, local, keptSegment); err == nil {
		t.Fatal("it copies what is not there")
	}
	if got := namesIn(t, above); !slices.Equal(got, []string{"1"}) {
		t.Errorf("it keeps %s", got)
	}
}
