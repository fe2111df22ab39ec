package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/reconcile"
)

func (p Place) make(t *testing.T, paths ...string) {
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

// The journal was begun in tmpdir, because this user could not write beside the data, and can by now. It counts, and what
// else was left there is removed.
func TestJournalElsewhere(t *testing.T) {
	p := Place{Data: filepath.Join(t.TempDir(), "data"), Tmp: t.TempDir()}
	own, elsewhere := filepath.Join(p.Data, "postgresql.conf"), filepath.Join(p.Tmp, "data"+markerSuffix)
	p.make(t, own)
	must(t, errors.Join(p.Begin(t.Context(), NodeLocal), os.Rename(p.Marker(), elsewhere)))
	must(t, os.WriteFile(own, []byte("the source's"), 0o600))
	if got := p.Rewinding(); got != HalfRewound || p.Marker() != elsewhere || p.ownFilesLost() != "" || !p.Left() {
		t.Errorf("begun in tmpdir: %d, %s, %q", got, p.Marker(), p.ownFilesLost())
	}
	p.make(t, filepath.Join(p.Data+markerSuffix, journalMark)) // of other data, which were here before
	if got := p.Rewinding(); got != HalfRewound || p.Marker() != elsewhere {
		t.Errorf("beside the journal of other data: %d, %s", got, p.Marker())
	}
	must(t, p.Through())
	if got := p.Rewinding(); got != Rewound {
		t.Errorf("through: %d", got)
	}
	must(t, p.PutBack(t.Context(), "x"))
	if text, err := os.ReadFile(own); err != nil || string(text) != own || p.Rewinding() != NotBegun {
		t.Errorf("the host's own file is %q, %v; %d", text, err, p.Rewinding())
	}
	tried := filepath.Join(p.Tmp, "data"+triedSuffix+"7")
	p.make(t, filepath.Join(elsewhere+openingSuffix, "a"), filepath.Join(tried, "b"))
	if !p.Left() {
		t.Error("what is left in tmpdir is not seen")
	}
	must(t, p.Finish(t.Context()))
	names, err := os.ReadDir(p.Tmp)
	if err != nil || len(names) > 0 || p.Left() || len(there(p.leftOfJournals()...)) > 0 {
		t.Errorf("there is still %v, %v", names, err)
	}
}

// The journal, at each point where a kill may leave it, and after a copy has taken the data's place.
func TestJournal(t *testing.T) {
	p := Place{Data: filepath.Join(t.TempDir(), "data")}
	own := filepath.Join(p.Data, "postgresql.conf")
	p.make(t, own)
	want := func(when string, state Rewinding) {
		t.Helper()
		if got := p.Rewinding(); got != state {
			t.Errorf("%s: %d, not %d", when, got, state)
		}
	}
	want("before", NotBegun)
	// Killed, or failed, while the journal is written.
	unreadable := filepath.Join(p.Data, "pg_ident.conf")
	if err := syscall.Mkfifo(unreadable, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(t.Context(), NodeLocal); err == nil {
		t.Error("it begins without one of the files to keep")
	}
	want("not yet whole", NotBegun)
	if !p.Left() {
		t.Error("what there is of a journal is not seen as left")
	}
	if err := errors.Join(os.Remove(unreadable), os.Mkdir(p.Marker(), 0o700)); err != nil {
		t.Fatal(err)
	}
	want("in doubt", HalfRewound)
	if err := p.Begin(t.Context(), NodeLocal); err != nil {
		t.Fatal(err)
	}
	want("begun", HalfRewound)
	if err := errors.Join(os.WriteFile(own, []byte("the source's"), 0o600), p.Through()); err != nil {
		t.Fatal(err)
	}
	want("through", Rewound)
	if err := p.PutBack(t.Context(), "pgrex_pm01"); err != nil {
		t.Fatal(err)
	}
	want("closed", NotBegun)
	if text, err := os.ReadFile(own); err != nil || string(text) != own {
		t.Errorf("the host's own file is %q, %v", text, err)
	}
	if err := p.Begin(t.Context(), NodeLocal); err != nil {
		t.Fatal(err)
	}
	// If pgrex is killed between the journal and the mark, nothing is changed yet.
	if err := p.unmark(); err != nil {
		t.Fatal(err)
	}
	want("without a mark", NotBegun)
	if err := p.Begin(t.Context(), NodeLocal); err != nil {
		t.Fatal(err)
	}
	// The data are moved, and the journal stays. Then the journal of other data is beside them.
	moved := Place{Data: filepath.Join(t.TempDir(), "moved")}
	if err := os.Rename(p.Data, moved.Data); err != nil {
		t.Fatal(err)
	}
	if got := moved.Rewinding(); got != HalfRewound || !moved.Left() || !strings.Contains(moved.ownFilesLost(), "is not there: move it there") {
		t.Errorf("moved without their journal: %d, %q", got, moved.ownFilesLost())
	}
	want("without data", HalfRewound)
	moved.make(t, filepath.Join(moved.Marker(), journalMark), filepath.Join(moved.Marker(), journalWhole))
	if got := moved.Rewinding(); got != HalfRewound || moved.ownFilesLost() != "" {
		t.Errorf("beside the journal of others: %d, %q", got, moved.ownFilesLost())
	}
	if err := os.Rename(moved.Data, p.Data); err != nil {
		t.Fatal(err)
	}
	want("moved back", HalfRewound)
	p.make(t, filepath.Join(p.Beside(), "PG_VERSION"))
	if err := errors.Join(os.Rename(p.Data, p.Data+".old"), os.Rename(p.Beside(), p.Data)); err != nil {
		t.Fatal(err)
	}
	want("of data that are replaced", NotBegun)
	if !p.Left() {
		t.Error("the journal is not seen as left")
	}
	p.make(t, filepath.Join(p.opening(), "a"), filepath.Join(p.Marker()+closedSuffix, "b"))
	if err := p.Finish(t.Context()); err != nil || p.Left() {
		t.Errorf("something is left: %v", err)
	}
	if err := p.Finish(t.Context()); err != nil {
		t.Errorf("with nothing left: %v", err)
	}
}

// What is beside the data goes with its WAL, and nothing else does.
func TestClear(t *testing.T) {
	folder := t.TempDir()
	p := Place{Data: filepath.Join(folder, "data")}
	wal := filepath.Join(folder, "wal", "pg")
	p.make(t, filepath.Join(p.Data, "PG_VERSION"), filepath.Join(p.Beside(), "PG_VERSION"), wal+"/1", wal+".pgrex/2", p.triedPattern()+"7/file")
	link := func(data, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(data, "pg_wal")); err != nil {
			t.Fatal(err)
		}
	}
	link(p.Data, wal)
	if why := p.noCopy(reconcile.LocalData{}); !strings.Contains(why, "not from an earlier copy") {
		t.Errorf("a folder of somebody else's in the way: %q", why)
	}
	if err := p.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := there(wal+"/1", wal+".pgrex/2", p.Beside(), p.triedPattern()+"7"); len(got) != 2 {
		t.Errorf("there is %q", got)
	}
	p.make(t, filepath.Join(p.Beside(), "PG_VERSION"))
	link(p.Beside(), wal+".pgrex")
	if why := p.noCopy(reconcile.LocalData{}); why != "" {
		t.Errorf("an earlier copy's WAL in the way: %q", why)
	}
	if err := p.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := there(wal+"/1", wal+".pgrex", p.Beside()); len(got) != 1 {
		t.Errorf("there is %q", got)
	}
	// A pg_basebackup that fails empties the folders, and so removes the link.
	must(t, os.Mkdir(wal+".pgrex", 0o700))
	if err := p.Clear(t.Context()); err != nil || len(there(wal+"/1", wal+".pgrex")) != 1 {
		t.Errorf("the copy's empty WAL folder is left: %v", err)
	}
	// Both lead to the same folder: it is in use.
	p.make(t, filepath.Join(p.Beside(), "PG_VERSION"))
	link(p.Beside(), wal)
	if err := p.Clear(t.Context()); err != nil || len(there(wal+"/1")) != 1 {
		t.Errorf("the WAL in use is gone: %v", err)
	}
	if Other(Other(wal)) != wal {
		t.Errorf("the names do not alternate: %q", Other(Other(wal)))
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
	Place{}.make(t, folder+"/base/1", folder+"/pg_wal/1")
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
			if got, err := (Place{Data: folder + "/none"}).Size(t.Context()); err != nil || got != 0 {
				t.Errorf("a folder that is not there has %d bytes, %v", got, err)
			}
			return
		default:
		}
		if got, err := (Place{Data: folder}).Size(t.Context()); err != nil || got != want {
			t.Fatalf("%d bytes, not %d: %v", got, want, err)
		}
	}
}
