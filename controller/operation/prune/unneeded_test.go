package prune

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/model"
)

const mib16 = 16 << 20

func TestPrune(t *testing.T) {
	archive := []string{
		"00000002.history", "000000010000000000000001", "000000010000000000000002.gz", "000000010000000000000002.00000028.backup",
		"000000010000000000000003.zst", "000000010000000000000004.partial", "000000020000000000000004.lz4",
		"000000020000000000000005.00000060.backup", "000000020000000000000005", "000000020000000000000006",
		"README", "000000020000000000000003.tmp", "00000001000000000000000", "000000010000000000000100", "000000020000000000000005.conf",
	}
	at := func(position string) []Need {
		lsn, err := model.ParseLSN(position)
		if err != nil {
			t.Fatal(err)
		}
		return []Need{{Who: "somebody", From: lsn}}
	}
	for _, c := range []struct {
		name    string
		needs   []Need
		backups int
		gone    string
	}{
		{"the oldest backup keeps what it needs", at("0/6000000"), AllBackups, "000000010000000000000001"},
		{"the newest backup", at("0/6000000"), 1, "000000010000000000000001 000000010000000000000002.gz 000000010000000000000002.00000028.backup " +
			"000000010000000000000003.zst 000000010000000000000004.partial 000000020000000000000004.lz4"},
		{"more backups than there are", at("0/6000000"), 9, "000000010000000000000001"},
		{"no backup, and a need inside of a segment", at("0/4FFFFFF"), 0,
			"000000010000000000000001 000000010000000000000002.gz 000000010000000000000002.00000028.backup 000000010000000000000003.zst"},
		{"a need earlier than everything", at("0/28"), 0, ""},
		{"a need past everything", at("1/0"), 0, "000000010000000000000001 000000010000000000000002.gz 000000010000000000000002.00000028.backup " +
			"000000010000000000000003.zst 000000010000000000000004.partial 000000020000000000000004.lz4 000000020000000000000005 " +
			"000000020000000000000005.00000060.backup 000000020000000000000006"},
		{"nobody's need is known", nil, 0, ""},
		{"one need is not known", []Need{{"one", 0x6000000}, {"other", 0}}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(unneeded(archive, c.needs, c.backups, mib16), " ")
			if d := cmp.Diff(c.gone, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// unneeded are the files of an archive that go, the oldest WAL first.
func unneeded(names []string, needs []Need, keep int, segment uint64) (gone []string) {
	var backups []archiveFile
	for _, name := range names {
		if f, ok := parseArchived(name, segment); ok && f.backup {
			backups = append(backups, f)
		}
	}
	p, first := decide(backups, needs, keep, segment), oldest{}
	for _, name := range names {
		if f, goes := p.goes(name); goes {
			first.add(f)
		}
	}
	for _, f := range first.sorted() {
		gone = append(gone, f.name)
	}
	return gone
}

// Of more files than are held in memory, the oldest are held, in whatever order they come.
func TestOldest(t *testing.T) {
	var o oldest
	const all = 5*atOnce + 7
	for i := range all {
		n := (i*7919 + 13) % all // each number once
		f, ok := parseArchived(fmt.Sprintf("%08X%08X%08X", 1, n/256, n%256), mib16)
		if o.add(f); !ok || len(o.files) >= 2*atOnce {
			t.Fatalf("%d files are held", len(o.files))
		}
	}
	for i, f := range o.sorted() {
		if f.segment != uint64(i) {
			t.Fatalf("number %d is %s", i, f.name)
		}
	}
	if len(o.files) != atOnce {
		t.Errorf("%d files are held", len(o.files))
	}
}

// TestPruneProperties: whatever is in an archive, nothing goes that somebody needs, and what goes does not depend on
// the order in which the files are read.
func TestPruneProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segment := uint64(1) << rapid.IntRange(20, 30).Draw(t, "segment size")
		perLog := (1 << 32) / segment
		names := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) string {
			name := fmt.Sprintf("%08X%08X%08X", rapid.IntRange(1, 3).Draw(t, "timeline"), rapid.IntRange(0, 2).Draw(t, "log"),
				rapid.Uint64Range(0, min(perLog-1, 6)).Draw(t, "segment"))
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				name += fmt.Sprintf(".%08X.backup", rapid.Uint64Range(0, segment-1).Draw(t, "offset"))
			case 1:
				name += ".partial"
			case 2:
				return name[:8] + ".history"
			case 3:
				return name + ".other"
			}
			return name + rapid.SampledFrom([]string{"", "", ".gz", ".zst", ".lz4"}).Draw(t, "suffix")
		}), rapid.ID).Draw(t, "names")
		needs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Need {
			return Need{Who: "somebody", From: model.LSN(rapid.Uint64Range(0, 3<<32).Draw(t, "from"))}
		}), 0, 4).Draw(t, "needs")
		keep := rapid.IntRange(AllBackups, 3).Draw(t, "backups")
		gone := unneeded(names, needs, keep, segment)
		for _, name := range gone {
			f, ok := parseArchived(name, segment)
			if !ok || strings.HasSuffix(name, ".history") || strings.HasSuffix(name, ".other") {
				t.Fatalf("%s goes, which is no WAL", name)
			}
			for _, need := range needs {
				if end := (f.segment + 1) * segment; end > uint64(need.From) {
					t.Fatalf("%s ends at %s, and is needed from %s on", name, model.LSN(end), need.From)
				}
			}
			if keep == AllBackups && f.backup {
				t.Fatalf("the backup %s goes", name)
			}
		}
		left := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(gone, n) })
		if again := unneeded(left, needs, keep, segment); len(again) > 0 {
			t.Fatalf("a second pruning takes %v", again)
		}
		shuffled := rapid.Permutation(names).Draw(t, "shuffled")
		if d := cmp.Diff(gone, unneeded(shuffled, needs, keep, segment)); d != "" {
			t.Fatal(d)
		}
	})
}
