package rejoin

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestLadder: for each state of a host's data, which ways back are possible, and what is said of those that are not.
func TestLadder(t *testing.T) {
	first := []model.Timeline{{ID: 1}}
	second := []model.Timeline{{ID: 1}, {ID: 2, Begin: 0x5000000}}
	usual := Return{
		Host:      "pm02",
		Local:     reconcile.LocalData{SystemID: "7", Timelines: first, End: 0x4000000, Bytes: 1 << 30, Free: 2 << 30},
		Primary:   model.Upstream{SystemID: "7", Timeline: 2, Flushed: 0x9000000},
		Timelines: second,
	}
	for name, c := range map[string]struct {
		change  func(r *Return)
		want    string // the possible ways
		because string // said of one that is not, or is
	}{
		"behind":                  {func(*Return) {}, "start copy", "a part of the primary's WAL"},
		"up to the new timeline":  {func(r *Return) { r.Local.End = 0x5000000 }, "start copy", ""},
		"on the new timeline":     {func(r *Return) { r.Local.Timelines, r.Local.End = second, 0x6000000 }, "start copy", ""},
		"beyond the new timeline": {func(r *Return) { r.Local.End = 0x5000001 }, "rewind copy", "parts from the primary's at 0/5000000"},
		"on a timeline of its own": {func(r *Return) {
			r.Local.Timelines, r.Local.End = []model.Timeline{{ID: 1}, {ID: 3, Begin: 0x4800000}}, 0x7000000
		}, "rewind copy", "parted from the primary's at 0/4800000"},
		"another timeline of the same number": {func(r *Return) {
			r.Local.Timelines, r.Local.End = []model.Timeline{{ID: 1}, {ID: 2, Begin: 0x4800000}}, 0x7000000
		}, "copy", "has the number of the primary's, 2"},
		"the WAL is archived": {func(r *Return) { r.NoWAL, r.ArchiveBytes = "it was removed", 32<<20 }, "archive copy", "32.0 MiB of it"},
		"the WAL is gone":     {func(r *Return) { r.NoWAL, r.NoArchive = "it was removed", "not in the archive" }, "copy", "not in the archive"},
		"no room for WAL":     {func(r *Return) { r.Local.WAL, r.Local.WALApart = 1<<20, true }, "start", "file system of pg_wal"},
		"room for WAL":        {func(r *Return) { r.Local.WAL, r.Local.WALFree, r.Local.WALApart = 1<<20, 1<<20, true }, "start copy", ""},
		"no room beside WAL":  {func(r *Return) { r.Local.WAL = 2 << 30 }, "start", "needs about 3.0 GiB"},
		"archived, but ahead": {func(r *Return) { r.NoWAL, r.Local.End = "it was removed", 0x6000000 }, "rewind copy", ""},
		"ahead":               {func(r *Return) { r.Local.Timelines, r.Local.End = second, 0xA000000 }, "copy", "the primary has lost"},
		"another database":    {func(r *Return) { r.Local.SystemID = "8" }, "copy", "of another database"},
		"no common timeline": {func(r *Return) {
			r.Local.Timelines = []model.Timeline{{ID: 1}, {ID: 2, Begin: 0x1000000}}
			r.Timelines = []model.Timeline{{ID: 4}}
		}, "copy", "shares no timeline"},
		"rewind, but then":                     {func(r *Return) { r.Local.End, r.NoRewindWAL = 0x6000000, "the WAL is gone" }, "copy", "at 0/5000000, and the WAL is gone"},
		"no hints":                             {func(r *Return) { r.Local.End, r.Local.NoRewind = 0x6000000, "wal_log_hints" }, "copy", "wal_log_hints"},
		"the same timeline twice":              {func(r *Return) { r.Differs = true }, "copy", "promoted from the same WAL"},
		"rewound, and then a failover":         {func(r *Return) { r.Local.Changed = 0x5000001 }, "copy", "may hold changes up to 0/5000001"},
		"rewound, and then a failover to less": {func(r *Return) { r.Local.End, r.Local.Changed = 0x6000000, 0x6000001 }, "copy", "pg_rewind would not find them"},
		"recovered, and then parted":           {func(r *Return) { r.Local.End, r.Local.Changed = 0x6000000, 0x6000000 }, "rewind copy", ""},
		"rewound, and no failover": {func(r *Return) {
			r.Local.Timelines, r.Local.End, r.Local.Changed = second, 0x5000000, 0x9000001
		}, "start copy", ""},
		"half rewound": {func(r *Return) { r.Begun = MethodRewind }, "copy", "not finished"},
		"half rewound, and WAL that cannot be read": {func(r *Return) {
			r.Begun, r.Local.Timelines, r.Local.End, r.Local.Unreadable = MethodRewind, nil, 0, "rubbish"
		}, "copy", "not finished"},
		"WAL that cannot be read": {func(r *Return) { r.Local.Timelines, r.Local.End, r.Local.Unreadable = nil, 0, "rubbish" }, "copy", "rubbish"},
		"no room beside kept WAL": {func(r *Return) { r.Keeps = 3 << 30 }, "start", "needs about 4.0 GiB"},
		"no room":                 {func(r *Return) { r.Local.Free = 1 << 20 }, "start", "make room"},
		"no copy":                 {func(r *Return) { r.Local.NoCopy = "a mount point" }, "start", "a mount point"},
		"no data":                 {func(r *Return) { r.Local = reconcile.LocalData{Gone: "it is empty", Free: 2 << 30} }, "copy", "see that every file system is mounted"},
		"a part is gone":          {func(r *Return) { r.Local.Gone = "there is no pg_wal" }, "copy", "there is no pg_wal"},
		"damaged": {func(r *Return) {
			r.Local = reconcile.LocalData{Unreadable: "it is damaged", Free: 2 << 30}
		}, "copy", "it is not known what is here and nowhere else"},
		"no settings":             {func(r *Return) { r.Local.Unconfigured = "there is no postgresql.conf" }, "copy", "there is no postgresql.conf"},
		"too low for its data":    {func(r *Return) { r.Local.TooLow = "lower than recorded" }, "copy", "lower than recorded"},
		"too low, and parted":     {func(r *Return) { r.Local.TooLow, r.Local.End = "lower than recorded", 0x6000000 }, "rewind copy", ""},
		"too low for the primary": {func(r *Return) { r.TooLow = "lower than the primary's" }, "", "lower than the primary's"},
		"and parted from it":      {func(r *Return) { r.TooLow, r.Local.End = "lower than the primary's", 0x6000000 }, "", "lower than the primary's"},
		"no folder":               {func(r *Return) { r.NoFolder = "make /spaces/one" }, "copy", "make /spaces/one"},
		"no folder for a rewind":  {func(r *Return) { r.NoFolder, r.Local.End = "make /spaces/one", 0x6000000 }, "copy", "make /spaces/one"},
		"a folder in use":         {func(r *Return) { r.Taken = "/spaces/one has files" }, "start copy", ""},
		"and a rewind":            {func(r *Return) { r.Taken, r.Local.End = "/spaces/one has files", 0x6000000 }, "copy", "/spaces/one has files"},
		"a bigger primary":        {func(r *Return) { r.Bytes = 3 << 30 }, "start", "needs about 3.0 GiB"},
		"a smaller primary":       {func(r *Return) { r.Bytes, r.Local.Bytes = 1<<30, 3<<30 }, "start copy", ""},
		"tablespaces elsewhere":   {func(r *Return) { r.Bytes, r.Spaces = 4<<30, spaces(7, 2<<30, 8, 1<<30) }, "start copy", ""},
		"of two on one, too much": {func(r *Return) { r.Bytes, r.Spaces = 4<<30, spaces(7, 2<<30, 7, 1<<30) }, "start", "needs about 3.0 GiB"},
		"one here, too much":      {func(r *Return) { r.Bytes, r.Spaces = 4<<30, spaces(7, 1<<30, 0, 1<<30) }, "start", "needs about 3.0 GiB"},
		"nothing whatever": {func(r *Return) {
			r.NoWAL, r.NoArchive, r.Local.NoCopy = "it was removed", "nor there", "a mount point"
		}, "", ""},
		"of no WAL at all":  {func(r *Return) { r.Local.Timelines = nil; r.Local.End = 0 }, "copy", "shares no timeline"},
		"of no history":     {func(r *Return) { r.Timelines = nil }, "copy", "shares no timeline"},
		"the very same end": {func(r *Return) { r.Local.Timelines, r.Local.End = second, 0x9000000 }, "start copy", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := usual
			c.change(&r)
			var possible, said []string
			asked := r.Local.SystemID != r.Primary.SystemID || r.Local.End > r.Primary.Flushed || r.Local.Gone != "" || r.Local.Unconfigured != ""
			for _, rung := range Ladder(r) {
				said = append(said, rung.Why)
				if want := asked && rung.Method == MethodCopy; rung.OnlyIfAsked != want {
					t.Errorf("%s only if it is asked for: %t", rung.Method, rung.OnlyIfAsked)
				}
				if rung.Possible {
					possible = append(possible, string(rung.Method))
				}
			}
			if got := strings.Join(possible, " "); got != c.want {
				t.Errorf("possible: %q, not %q\n%s", got, c.want, strings.Join(said, "\n"))
			}
			if text := strings.Join(said, "\n"); !strings.Contains(text, c.because) {
				t.Errorf("nothing is said of %q:\n%s", c.because, text)
			}
		})
	}
}

// spaces are two tablespaces, each on a file system with 2 GiB free.
func spaces(first, firstBytes, second, secondBytes uint64) []Space {
	return []Space{{Bytes: firstBytes, FileSystem: first, Free: 2 << 30}, {Bytes: secondBytes, FileSystem: second, Free: 2 << 30}}
}

// A copy is as fast as the primary sends, or as slow as it may be.
func TestCopyRate(t *testing.T) {
	for _, c := range []struct{ rate, limit, want uint64 }{{0, 0, 0}, {100, 0, 100}, {100, 50, 50}, {100, 200, 100}, {0, 50, 50}} {
		ladder := Ladder(Return{Rate: c.rate, MaxRate: c.limit})
		if got := ladder[len(ladder)-1].Rate; got != c.want {
			t.Errorf("measured %d, limited to %d: %d, not %d", c.rate, c.limit, got, c.want)
		}
	}
}
