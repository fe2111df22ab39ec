package datadir

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
)

// spaced is a data folder with one tablespace, number 16400, in a folder beside it.
func spaced(t *testing.T) (p Place, space string) {
	t.Helper()
	folder := t.TempDir()
	p, space = Place{Data: filepath.Join(folder, "data")}, filepath.Join(folder, "space")
	p.make(t, p.Data+"/PG_VERSION", p.Data+"/pg_tblspc/in_place/file", space+"/PG_15_2/1/2")
	must(t, os.WriteFile(p.Data+"/PG_VERSION", []byte("15\n"), 0o600))
	must(t, os.Symlink(space, p.Data+"/pg_tblspc/16400"))
	return p, space
}

func named(oid uint32, location string) postgres.Tablespace {
	return postgres.Tablespace{OID: oid, Name: filepath.Base(location), Location: location}
}

// The tablespaces of a restored backup are where tablespace_map has them, until PostgreSQL has made the links.
func TestLinkedOfBackup(t *testing.T) {
	p, space := spaced(t)
	write := func(name, text string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(p.Data, name), []byte(text), 0o600))
	}
	linked := func(when string, want map[uint32]string) {
		t.Helper()
		if got, err := p.Linked(); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	write("tablespace_map", "16400 "+space+"-restored\n16401 /none/a\\\\b\n")
	linked("without backup_label", map[uint32]string{16400: space})
	write("backup_label", "BACKUP METHOD: streamed\n")
	linked("of a backup", map[uint32]string{16400: space + "-restored", 16401: `/none/a\b`})
	write("backup_label", "BACKUP METHOD: pg_rewind\n")
	linked("after pg_rewind", map[uint32]string{16400: space})
}

// Folders are made for tablespaces that this host lacks, and the folders above them. They are removed again unless they
// are used.
func TestFoldersForTablespaces(t *testing.T) {
	p, space := spaced(t)
	root := filepath.Dir(space)
	spaces := []postgres.Tablespace{named(16400, "/elsewhere/on/the/primary"), named(16401, root+"/a/b"), named(16402, root+"/a/c"), named(16403, root)}
	folders, why, err := p.Lacks(spaces)
	if want := []string{root + "/a", root + "/a/b", root + "/a/c"}; err != nil || why != "" || !slices.Equal(folders, want) {
		t.Fatalf("to be made are %q, %q, %v", folders, why, err)
	}
	for range 2 { // as after a kill
		must(t, MakeFolders(folders))
	}
	if again, _, err := p.Lacks(spaces); err != nil || len(again) != 0 {
		t.Errorf("they are there, but to be made are %q, %v", again, err)
	}
	p.make(t, root+"/a/c/PG_15_2/1")
	if why, err := p.Taken(spaces); err != nil || !strings.Contains(why, root+"/a/c, but there are files of an earlier one") {
		t.Errorf("a folder with files: %q, %v", why, err)
	}
	for range 2 {
		must(t, RemoveFolders(folders))
	}
	if got := there(folders...); !slices.Equal(got, []string{root + "/a", root + "/a/c"}) {
		t.Errorf("there is %q", got)
	}
}

// A copy's tablespaces go beside those in use, into folders that nobody else uses. Two never go into one folder.
func TestFresh(t *testing.T) {
	p, space := spaced(t)
	root := filepath.Dir(space)
	fresh := func(spaces ...postgres.Tablespace) string {
		t.Helper()
		found, why, err := p.Fresh(spaces)
		must(t, err)
		texts := []string{why}
		for _, f := range found {
			texts = append(texts, f.Folder)
		}
		return strings.Join(texts, " ")
	}
	elsewhere := named(16400, "/elsewhere/on/the/primary")
	if got := fresh(elsewhere, named(16401, root+"/new/one")); got != " "+space+".pgrex "+root+"/new/one" {
		t.Errorf("they go into %s", got)
	}
	if got := fresh(elsewhere, named(16401, space+".pgrex")); !strings.Contains(got, "the copy of the tablespace space.pgrex would go into") {
		t.Errorf("two go into one: %s", got)
	}
	if got := fresh(named(16401, "/proc")); got != " /proc/pgrex" {
		t.Errorf("of a mount point: %s", got)
	}
	p.make(t, space+".pgrex/PG_15_2/1")
	if got := fresh(elsewhere); !strings.Contains(got, "move away what is there") {
		t.Errorf("somebody else's folder: %s", got)
	}
	p.FreshFolders = []string{space + ".pgrex"}
	if got := fresh(elsewhere); got != " "+space+".pgrex" {
		t.Errorf("that of an earlier attempt: %s", got)
	}
	p.FreshFolders = nil
	p.make(t, p.Beside()+"/pg_tblspc/in_place/file")
	must(t, os.Symlink(space+".pgrex", p.Beside()+"/pg_tblspc/16400"))
	if got := fresh(elsewhere); got != " "+space+".pgrex" {
		t.Errorf("that of the old data: %s", got)
	}
}

// What is beside the data is removed with its tablespaces. Those that the data use stay, and those of another version.
func TestClearSpaces(t *testing.T) {
	p, space := spaced(t)
	other := Other(space)
	p.make(t, p.Beside()+"/pg_tblspc/in_place/file", other+"/PG_15_2/1", other+"/PG_14_1/1", space+"-fresh/PG_15_2/1")
	must(t, os.Symlink(other, p.Beside()+"/pg_tblspc/16400"))
	must(t, os.Symlink(space, p.Beside()+"/pg_tblspc/16401"))
	p.FreshFolders = []string{space, space + "-fresh", space + "-none"}
	for range 2 {
		must(t, p.Clear(t.Context()))
	}
	want := []string{space + "/PG_15_2/1/2", other + "/PG_14_1/1"}
	all := append(slices.Clone(want), other+"/PG_15_2", space+"-fresh", p.Beside())
	if got := there(all...); !slices.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
}
