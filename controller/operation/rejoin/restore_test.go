package rejoin

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Any start as a standby asks the archive, also one for which the archive is not tried: so where that leads astray is
// said for all.
func TestAstrayWhateverIsAsked(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	p := datadir.Place{Data: filepath.Join(base, "data"), Bin: base}
	archived := filepath.Join(base, "archive")
	for _, folder := range []string{p.Data, archived} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{"postgres": "echo 'cp " + archived + "/%f %p'", "pg_controldata": "exit 0"} {
		if err := os.WriteFile(filepath.Join(base, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const size = 16 << 20
	c := &Case{Place: p, Return: Return{
		Local:     reconcile.LocalData{SystemID: "7", Timelines: []model.Timeline{{ID: 1}}, End: 0x2000100, Segment: size},
		Primary:   model.Upstream{SystemID: "7", Timeline: 2, Flushed: 0x3000000},
		Timelines: []model.Timeline{{ID: 1}, {ID: 2, Begin: 0x2000200}},
	}}
	for _, step := range []struct{ archives, says string }{
		{"", ""}, {"000000010000000000000002", "would follow the WAL archive away from the primary"},
		{"00000002.history", "would follow"}, {"000000020000000000000002", ""},
	} {
		if step.archives != "" {
			if err := os.WriteFile(filepath.Join(archived, step.archives), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, tries := range []bool{false, true} {
			why, err := (&Rejoin{Archive: tries}).astray(t.Context(), c)
			if err != nil || (why == "") != (step.says == "") || !strings.Contains(why, step.says) {
				t.Errorf("with %s, tried %t: %q, %v", step.archives, tries, why, err)
			}
		}
	}
}

// restore_command as PostgreSQL expands it, and the names of WAL files.
func TestArchiveNames(t *testing.T) {
	const command = `cp "/a %%f/%f" "%p" # %r %x`
	if got := expand(command, "F", "P", "R"); got != `cp "/a %f/F" "P" # R %x` {
		t.Errorf("expanded to %s", got)
	}
	const size = 16 << 20
	history := []model.Timeline{{ID: 1}, {ID: 3, Begin: 0x3000028}, {ID: 4, Begin: 0x5000000}}
	for n, want := range map[uint64]string{
		2: "000000010000000000000002", 3: "000000030000000000000003", 5: "000000040000000000000005", 0x1ff: "0000000400000001000000FF",
	} {
		if got := datadir.SegmentName(timelineAt(history, n, size), n, size); got != want {
			t.Errorf("segment %d is %s, not %s", n, got, want)
		}
	}
	header := make([]byte, longHeader)
	binary.NativeEndian.PutUint64(header[8:], 0x3000000)
	binary.NativeEndian.PutUint64(header[24:], 7)
	if err := rightSegment(header, "7", 0x3000000); err != nil {
		t.Error(err)
	}
	if rightSegment(header, "8", 0x3000000) == nil || rightSegment(header, "7", 0x4000000) == nil {
		t.Error("a segment of another database, or another segment, is taken for the right one")
	}
}

// A try of the archive: what is there, what is not, what is wrong, and a command that hangs on while it is interrupted.
func TestRestore(t *testing.T) {
	p := datadir.Place{Data: t.TempDir()}
	a := archive{place: p, folder: t.TempDir()}
	for command, want := range map[string]string{
		"printf 0123456789abcdef0123456789abcdef >%p": "",
		"printf short >%p":                            "EOF",
		"exit 7":                                      "exit status 7",
		"true":                                        "though restore_command says so",
		`[ "$(pwd)" = ` + p.Data + ` ] && printf 0123456789abcdef0123456789abcdef >%p`: "",
	} {
		a.command = command
		err := a.restore(t.Context(), "000000010000000000000001", func([]byte) error { return nil })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", command, err)
		}
	}
}
