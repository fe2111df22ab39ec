package operation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
)

func (p place) make(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func there(paths ...string) (found []string) {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// The journal, at each point where a kill may leave it, and after a copy has taken the data's place.
func TestJournal(t *testing.T) {
	p := place{data: filepath.Join(t.TempDir(), "data")}
	own := filepath.Join(p.data, "postgresql.conf")
	p.make(t, own)
	want := func(when string, state rewinding) {
		t.Helper()
		if got := p.rewinding(); got != state {
			t.Errorf("%s: %d, not %d", when, got, state)
		}
	}
	want("before", notBegun)
	// Killed, or failed, while the journal is written.
	unreadable := filepath.Join(p.data, "pg_ident.conf")
	if err := os.Mkdir(unreadable, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.begin(); err == nil {
		t.Error("it begins without one of the files to keep")
	}
	want("not yet whole", notBegun)
	if !p.left() {
		t.Error("what there is of a journal is not seen as left")
	}
	if err := errors.Join(os.Remove(unreadable), os.Mkdir(p.marker(), 0o700)); err != nil {
		t.Fatal(err)
	}
	want("in doubt", halfRewound)
	if err := p.begin(); err != nil {
		t.Fatal(err)
	}
	want("begun", halfRewound)
	if err := errors.Join(os.WriteFile(own, []byte("the source's"), 0o600), p.through()); err != nil {
		t.Fatal(err)
	}
	want("through", rewound)
	if err := p.putBack("pgrex_pm01"); err != nil {
		t.Fatal(err)
	}
	want("closed", notBegun)
	if text, err := os.ReadFile(own); err != nil || string(text) != own {
		t.Errorf("the host's own file is %q, %v", text, err)
	}
	if err := p.begin(); err != nil {
		t.Fatal(err)
	}
	p.make(t, filepath.Join(p.beside(), "PG_VERSION"))
	if err := errors.Join(os.Rename(p.data, p.data+".old"), os.Rename(p.beside(), p.data)); err != nil {
		t.Fatal(err)
	}
	want("of data that are replaced", notBegun)
	if !p.left() {
		t.Error("the journal is not seen as left")
	}
	p.make(t, filepath.Join(p.opening(), "a"), filepath.Join(p.closed(), "b"))
	if err := p.finish(); err != nil || p.left() {
		t.Errorf("something is left: %v", err)
	}
	if err := p.finish(); err != nil {
		t.Errorf("with nothing left: %v", err)
	}
}

// What is beside the data goes with its WAL, and nothing else does.
func TestClear(t *testing.T) {
	folder := t.TempDir()
	p := place{data: filepath.Join(folder, "data")}
	wal := filepath.Join(folder, "wal", "pg")
	p.make(t, filepath.Join(p.data, "PG_VERSION"), filepath.Join(p.beside(), "PG_VERSION"), wal+"/1", wal+".pgrex/2", p.triedPattern()+"7/file")
	link := func(data, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(data, "pg_wal")); err != nil {
			t.Fatal(err)
		}
	}
	link(p.data, wal)
	if why := p.noCopy(); !strings.Contains(why, "not from an earlier copy") {
		t.Errorf("a folder of somebody else's in the way: %q", why)
	}
	if err := p.clear(); err != nil {
		t.Fatal(err)
	}
	if got := there(wal+"/1", wal+".pgrex/2", p.beside(), p.triedPattern()+"7"); len(got) != 2 {
		t.Errorf("there is %q", got)
	}
	p.make(t, filepath.Join(p.beside(), "PG_VERSION"))
	link(p.beside(), wal+".pgrex")
	if why := p.noCopy(); why != "" {
		t.Errorf("an earlier copy's WAL in the way: %q", why)
	}
	if err := p.clear(); err != nil {
		t.Fatal(err)
	}
	if got := there(wal+"/1", wal+".pgrex", p.beside()); len(got) != 1 {
		t.Errorf("there is %q", got)
	}
	// Both lead to the same folder: it is in use.
	p.make(t, filepath.Join(p.beside(), "PG_VERSION"))
	link(p.beside(), wal)
	if err := p.clear(); err != nil || len(there(wal+"/1")) != 1 {
		t.Errorf("the WAL in use is gone: %v", err)
	}
	if otherWAL(otherWAL(wal)) != wal {
		t.Errorf("the names do not alternate: %q", otherWAL(otherWAL(wal)))
	}
}

func TestNoneBeside(t *testing.T) {
	if why := noneBeside("/proc"); !strings.Contains(why, "file system of its own") {
		t.Errorf("a mount point: %q", why)
	}
	if why := noneBeside(t.TempDir()); why != "" {
		t.Errorf("a folder: %q", why)
	}
}

// TestFolderSize: a server that runs makes and removes folders and files meanwhile, as for its slots.
func TestFolderSize(t *testing.T) {
	folder := t.TempDir()
	place{}.make(t, folder+"/base/1", folder+"/pg_wal/1")
	want := uint64(len(folder + "/base/1"))
	ended := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < 3000 && err == nil; n++ {
			slot := fmt.Sprintf("%s/pg_replslot/slot%d.tmp", folder, n%3)
			err = errors.Join(os.MkdirAll(slot, 0o700), os.WriteFile(slot+"/state", nil, 0o600), os.RemoveAll(slot))
		}
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			if _, err := folderSize(folder + "/none"); err == nil {
				t.Error("a folder that is not there has a size")
			}
			return
		default:
		}
		if got, err := folderSize(folder); err != nil || got != want {
			t.Fatalf("%d bytes, not %d: %v", got, want, err)
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
		if got := segmentName(timelineAt(history, n, size), n, size); got != want {
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
	p := place{data: t.TempDir()}
	a := archive{place: p, folder: t.TempDir()}
	for command, want := range map[string]string{
		"printf 0123456789abcdef0123456789abcdef >%p": "",
		"printf short >%p":                            "EOF",
		"exit 7":                                      "exit status 7",
		"true":                                        "though restore_command says so",
		`[ "$(pwd)" = ` + p.data + ` ] && printf 0123456789abcdef0123456789abcdef >%p`: "",
	} {
		a.command = command
		err := a.restore(t.Context(), "000000010000000000000001", func([]byte) error { return nil })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", command, err)
		}
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct{ done, total, want string }{
		{"0", "2048", "[....................]   0%, 0 B of 2.0 MiB"},
		{"1024", "2048", "[##########..........]  50%, 1.0 MiB of 2.0 MiB, 102.4 KiB/s, 10s left"},
		{"4096", "2048", "[####################] 100%, 4.0 MiB of 2.0 MiB, 409.6 KiB/s, 0s left"},
		{"0", "0", "[####################] 100%, 0 B of 0 B"},
	} {
		if got := bar(c.done, c.total, 10*time.Second); got != c.want {
			t.Errorf("%s", got)
		}
	}
	if got := Size(3<<30, 0); got != "3.0 GiB" {
		t.Error(got)
	}
	if got := Size(3<<30, 100<<20); got != "3.0 GiB, about 31s at 100.0 MiB/s" {
		t.Error(got)
	}
	if got := Size(1, 100<<20); got != "1 B, about 1s at 100.0 MiB/s" {
		t.Error(got)
	}
}

// On a pipe there is a line now and then, on a terminal each is drawn over the one before.
func TestProgress(t *testing.T) {
	var lines, drawn []string
	r := &Rejoin{Report: func(line string) { lines = append(lines, line) }}
	for range 2 {
		progress := r.progress()
		for _, line := range []string{"pg_rewind: need to copy 5 MB (total source directory size is 70 MB)", "1/9 kB (11%) copied", "9/9 kB (100%) copied", "done"} {
			progress(line)
		}
		r.Redraw = func(line string) { drawn = append(drawn, line) }
	}
	if len(lines) != 3 || len(drawn) != 2 || !strings.Contains(lines[0], "5 MB") || !strings.Contains(lines[1], "11%") {
		t.Errorf("lines %q, drawn %q", lines, drawn)
	}
}
