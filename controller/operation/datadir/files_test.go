package datadir

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What replaces a file has its mode, what replaces none is its owner's alone, and a file of this host's own keeps its
// mode in a copy. What an attempt before has left, a link even, is not written through.
func TestModes(t *testing.T) {
	folder, to := t.TempDir(), t.TempDir()
	mode := func(path string) os.FileMode {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	path := filepath.Join(folder, "postgresql.conf")
	if err := writeWhole(path, "one"); err != nil || mode(path) != newMode {
		t.Errorf("a new file: %o, %v", mode(path), err)
	}
	if err := os.Chmod(path, 0o664); err != nil { // also bits that a umask takes away
		t.Fatal(err)
	}
	other := filepath.Join(folder, "other")
	if err := os.WriteFile(other, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path+".pgrex-new"); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(path, "two"); err != nil || mode(path) != 0o664 {
		t.Errorf("a file that is replaced: %o, %v", mode(path), err)
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "other" {
		t.Errorf("it has written through a link: %q, %v", text, err)
	}
	copied := filepath.Join(to, "postgresql.conf")
	if err := os.WriteFile(copied, []byte("the primary's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CopyFiles(t.Context(), folder, to, NodeLocal); err != nil || mode(copied) != 0o664 {
		t.Errorf("a host's own file in a copy: %o, %v", mode(copied), err)
	}
}

// A file is replaced, and what a link in the way leads to is not.
func TestWriteWholeFollowsNoLink(t *testing.T) {
	folder := t.TempDir()
	path, another := filepath.Join(folder, "file"), filepath.Join(folder, "another")
	if err := os.WriteFile(another, []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{path, path + ".pgrex-new"} {
		if err := os.Symlink(another, link); err != nil {
			t.Fatal(err)
		}
		if err := writeWhole(path, "ours"); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "ours" {
			t.Errorf("the file has %q, %v", text, err)
		}
		if text, err := os.ReadFile(another); err != nil || string(text) != "theirs" {
			t.Errorf("the other one has %q, %v", text, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A pipe in the place of a file is an error at once: nobody may ever write into it.
func TestPipeInstead(t *testing.T) {
	p := Place{Data: t.TempDir(), Tmp: t.TempDir()}
	for _, path := range []string{p.PIDFile(), filepath.Join(p.Data, "postgresql.auto.conf"), filepath.Join(p.Data, "pg_hba.conf")} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p.Runs() {
		t.Error("a server runs")
	}
	if err := p.SetSlotName("slot"); err == nil {
		t.Error("the slot's name is set")
	}
	if err := CopyFiles(t.Context(), p.Data, p.Tmp, NodeLocal); err == nil {
		t.Error("they are copied")
	}
}
