package datadir

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/reconcile"
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

// A folder above the tablespace is a symbolic link, and the primary's path to the tablespace goes through it. What a
// copy has in there is in use under another name once it is swapped in, and stays.
func TestLinkAboveTablespace(t *testing.T) {
	for name, linked := range map[string]func(root string) (location string){
		"a link":          func(root string) string { return filepath.Join(root, "link", "ts") },
		"a link back":     func(root string) string { return root + "/link/../mnt/ts" },
		"folders to come": func(root string) string { return filepath.Join(root, "link", "deep", "ts") },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.Mkdir(filepath.Join(root, "mnt"), 0o700))
			must(t, os.Symlink(filepath.Join(root, "mnt"), filepath.Join(root, "link")))
			p := Place{Data: filepath.Join(root, "data"), Tmp: t.TempDir()}
			p.make(t, p.Data+"/PG_VERSION", p.Data+"/old")
			location := linked(root)
			fresh, why, err := p.Fresh([]postgres.Tablespace{named(16400, location)})
			if err != nil || why != "" || len(fresh) != 1 {
				t.Fatalf("%v, %q, %v", fresh, why, err)
			}
			if real := resolved(location); fresh[0].Folder != real {
				t.Errorf("it goes into %s, not into %s", fresh[0].Folder, real)
			}
			p.FreshFolders = []string{location} // as an earlier version has left it in its journal
			must(t, p.Clear(t.Context()))
			must(t, p.MakeBeside(fresh))
			file := location + "/PG_15_2/1/2"
			p.make(t, file, p.Beside()+"/pg_tblspc/in_place/file")
			must(t, os.WriteFile(p.Beside()+"/PG_VERSION", []byte("15\n"), 0o600))
			must(t, os.Symlink(location, p.Beside()+"/pg_tblspc/16400"))
			must(t, p.Swap())
			must(t, p.Finish(t.Context()))
			if got := there(file, p.Beside()); !slices.Equal(got, []string{file}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

// One folder has two paths where it is mounted twice.
func TestMountedTablespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	p, space := spaced(t)
	again := filepath.Join(filepath.Dir(space), "again")
	must(t, os.Mkdir(again, 0o700))
	must(t, unix.Mount(space, again, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(again, 0)) })
	p.FreshFolders = []string{again}
	p.make(t, p.Beside()+"/pg_tblspc/in_place/file")
	must(t, os.Symlink(again, p.Beside()+"/pg_tblspc/16400"))
	must(t, p.Clear(t.Context()))
	if want := []string{space + "/PG_15_2/1/2"}; !slices.Equal(there(want[0], p.Beside()), want) {
		t.Error("the tablespace is gone, or what was beside the data is not")
	}
}

// A tablespace, or the WAL, in the data folder would be moved away with the old data: no copy is made. What was copied
// so by hand is not removed.
func TestInTheDataFolder(t *testing.T) {
	p, _ := spaced(t)
	link := p.Data + "/pg_tblspc/16401"
	p.make(t, p.Data+"/space/PG_15_2/1")
	must(t, os.Symlink("../space", link))
	if _, why, err := p.Fresh([]postgres.Tablespace{named(16401, "/elsewhere")}); err != nil || !strings.Contains(why, p.Data+"/space, in the data folder") {
		t.Errorf("%q, %v", why, err)
	}
	if _, why, err := p.Fresh([]postgres.Tablespace{named(16402, p.Data+"/new")}); err != nil || !strings.Contains(why, p.Data+"/new, in the data folder") {
		t.Errorf("%q, %v", why, err)
	}
	must(t, os.Remove(link))
	p.make(t, p.Data+"/wal/file")
	must(t, os.Symlink("wal", p.Data+"/pg_wal"))
	if why := p.noCopy(reconcile.LocalData{}); !strings.Contains(why, p.Data+"/wal, in the data folder") {
		t.Errorf("%q", why)
	}
	p.make(t, p.Beside()+"/space/PG_15_2/1")
	must(t, os.Symlink(p.Beside()+"/space", link))
	if err := p.Clear(t.Context()); err == nil || !strings.Contains(err.Error(), "the data use "+p.Beside()+"/space") {
		t.Errorf("%v", err)
	}
	if got := there(p.Beside() + "/space/PG_15_2/1"); len(got) == 0 {
		t.Error("what the data use was removed")
	}
}
