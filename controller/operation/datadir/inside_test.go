package datadir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// confined is a data folder beside which nothing can be made: a mount point, or in a folder where this user may not
// write.
func confined(t *testing.T) Place {
	t.Helper()
	p := Place{Data: filepath.Join(t.TempDir(), "the data"), Tmp: t.TempDir()}
	must(t, os.Mkdir(p.Data, 0o755))
	if os.Geteuid() == 0 {
		must(t, unix.Mount(p.Data, p.Data, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(p.Data, 0)) })
	} else {
		parent := filepath.Dir(p.Data)
		must(t, os.Chmod(parent, 0o500))
		t.Cleanup(func() { must(t, os.Chmod(parent, 0o700)) })
	}
	if !p.inside() || p.noneInPlace() != "" {
		t.Fatalf("it is not inside, or cannot be: %s", p.noneInPlace())
	}
	return p
}

// A swap inside the data folder goes on wherever it was killed. Until it is whole, there is no PG_VERSION.
func TestSwapInsideKilled(t *testing.T) {
	for name, kill := range map[string][]string{ // moved by hand, as far as the swap has come
		"not begun":       nil,
		"begun":           {"pgrex-old/"},
		"some of the old": {"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "base pgrex-old/base"},
		"all of the old":  {"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "base pgrex-old/base", "old pgrex-old/old", "pgrex-new pgrex-copy"},
		"some of the new": {
			"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "base pgrex-old/base", "old pgrex-old/old", "pgrex-new pgrex-copy",
			"pgrex-copy/base base",
		},
		"all of the new": {
			"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "base pgrex-old/base", "old pgrex-old/old", "pgrex-new pgrex-copy",
			"pgrex-copy/base base", "pgrex-copy/new new", "pgrex-copy/PG_VERSION PG_VERSION",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := confined(t)
			at := func(path string) string { return filepath.Join(p.Data, path) }
			p.make(t, at("PG_VERSION"), at("base/1"), at("old"), at("lost+found/x"), at("pgrex-new/PG_VERSION"), at("pgrex-new/base/2"), at("pgrex-new/new"))
			for _, move := range kill {
				if from, to, ok := strings.Cut(move, " "); ok {
					must(t, os.Rename(at(from), at(to)))
				} else {
					must(t, os.Mkdir(at(move), 0o700))
				}
			}
			if p.HalfSwapped() != (name != "not begun") || p.HalfSwapped() && !p.Left() {
				t.Errorf("half swapped: %t, left: %t", p.HalfSwapped(), p.Left())
			}
			must(t, p.Swap())
			all := []string{
				"PG_VERSION", "base/2", "new", "lost+found/x", "pgrex-new/PG_VERSION", "pgrex-new/base/1", "pgrex-new/old",
				"old", "base/1", "pgrex-new/new", "pgrex-old", "pgrex-copy",
			}
			var got []string
			for _, path := range all {
				if len(there(at(path))) > 0 {
					got = append(got, path)
				}
			}
			if !slices.Equal(got, all[:7]) || p.HalfSwapped() {
				t.Errorf("there is %q", got)
			}
			if info, err := os.Stat(p.Data); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("its mode is %v, %v", info.Mode(), err)
			}
			must(t, p.Finish(t.Context()))
			if names := entries(t, p.Data); !slices.Equal(names, []string{"PG_VERSION", "base", "lost+found", "new"}) || p.Left() {
				t.Errorf("there is %q", names)
			}
		})
	}
}

// The journal of pg_rewind is then elsewhere. It ends when a copy takes the place of the data that it is about.
func TestJournalOfConfined(t *testing.T) {
	p := confined(t)
	if os.Geteuid() != 0 && filepath.Dir(p.Marker()) != p.Tmp {
		t.Errorf("it is in %s", p.Marker())
	}
	p.make(t, filepath.Join(p.Data, "PG_VERSION"), filepath.Join(p.Data, "pgrex-new", "PG_VERSION"))
	must(t, p.Begin(t.Context(), NodeLocal))
	if p.Rewinding() != HalfRewound {
		t.Error("it is not seen")
	}
	must(t, p.Swap())
	if p.Rewinding() != NotBegun {
		t.Error("the copy counts as half rewound")
	}
}

// A file system in the data folder would come back over a copy at the next start of the host.
func TestMountBelow(t *testing.T) {
	if os.Geteuid() != 0 { // who may not mount
		if why := (Place{Data: "/dev"}).mountsBelow(); !strings.HasPrefix(why, "/dev/") {
			t.Errorf("of /dev it says %q", why)
		}
		return
	}
	p := Place{Data: t.TempDir()}
	wal := filepath.Join(p.Data, "pg_wal")
	must(t, os.Mkdir(wal, 0o700))
	must(t, unix.Mount(wal, wal, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(wal, 0)) })
	if why := p.noneInPlace(); !strings.HasPrefix(why, wal+" is a mount point, which cannot be moved") {
		t.Errorf("it says %q", why)
	}
}

// A swap inside the data folder ends there, even if the reason for it is gone: the file system is mounted elsewhere, or
// this user may write in the folder above. Meanwhile nothing is removed, since no tablespace seems to be in use.
func TestSwapInsideNoLongerConfined(t *testing.T) {
	for name, kill := range map[string][]string{ // as in TestSwapInsideKilled
		"begun":          {"pgrex-old/"},
		"all of the old": {"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "pg_tblspc pgrex-old/pg_tblspc", "pgrex-new pgrex-copy"},
		"whole": {
			"pgrex-old/", "PG_VERSION pgrex-old/PG_VERSION", "pg_tblspc pgrex-old/pg_tblspc", "pgrex-new pgrex-copy",
			"pgrex-copy/pg_tblspc pg_tblspc", "pgrex-copy/PG_VERSION PG_VERSION", "pgrex-copy pgrex-new", "pgrex-old/PG_VERSION pgrex-new/PG_VERSION",
			"pgrex-old/pg_tblspc pgrex-new/pg_tblspc", "pgrex-old -",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, space := spaced(t)
			at := func(path string) string { return filepath.Join(p.Data, path) }
			fresh := space + ".pgrex"
			p.FreshFolders = []string{fresh}
			p.make(t, at("pgrex-new/pg_tblspc/in_place/file"), fresh+"/PG_15_2/1")
			must(t, os.WriteFile(at("pgrex-new/PG_VERSION"), []byte("15\n"), 0o600))
			must(t, os.Symlink(fresh, at("pgrex-new/pg_tblspc/16400")))
			for _, move := range kill {
				switch from, to, ok := strings.Cut(move, " "); {
				case !ok:
					must(t, os.Mkdir(at(move), 0o700))
				case to == "-":
					must(t, os.Remove(at(from)))
				default:
					must(t, os.Rename(at(from), at(to)))
				}
			}
			if name != "whole" {
				if err := p.Clear(t.Context()); err == nil || !strings.Contains(err.Error(), "is being put in its place") {
					t.Errorf("it clears: %v", err)
				}
			}
			if p.Beside() != at("pgrex-new") || !strings.HasPrefix(p.SwapText(), "move ") || !p.Left() {
				t.Errorf("it is in %s, %s; left: %t", p.Beside(), p.SwapText(), p.Left())
			}
			if name != "whole" {
				must(t, p.Swap())
			}
			must(t, p.Finish(t.Context()))
			want := []string{at("PG_VERSION"), at("pg_tblspc/16400"), fresh + "/PG_15_2/1"}
			if got := there(append(want, at("pgrex-new"), at("pgrex-old"), at("pgrex-copy"), space+"/PG_15_2")...); !slices.Equal(got, want) || p.Left() {
				t.Errorf("there is %q", got)
			}
		})
	}
}

// locked makes a folder with a file in it that this user can neither move nor remove, not even as root.
func locked(t *testing.T, folder string) {
	t.Helper()
	Place{}.make(t, folder+"/file")
	if os.Geteuid() == 0 {
		must(t, unix.Mount(folder, folder, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(folder, 0)) })
		must(t, unix.Mount("", folder, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	} else {
		must(t, os.Chmod(folder, 0o500))
		t.Cleanup(func() { must(t, os.Chmod(folder, 0o700)) })
	}
}

// A folder that cannot be moved would leave a copy half in its place, after hours.
func TestUnmovable(t *testing.T) {
	p := confined(t)
	p.make(t, p.Data+"/PG_VERSION", p.Data+"/base/1", p.Data+"/read-only")
	must(t, os.Symlink("/proc/1", p.Data+"/link"))
	must(t, os.Chmod(p.Data+"/read-only", 0o400))
	if why := p.noneInPlace(); why != "" {
		t.Errorf("without one: %q", why)
	}
	locked(t, p.Data+"/a backup")
	command := "type: sudo mv '" + p.Data + "/a backup' " + filepath.Dir(p.Data)
	if why := p.noneInPlace(); !strings.Contains(why, "cannot move "+p.Data+"/a backup") || !strings.HasSuffix(why, command) {
		t.Errorf("it says %q", why)
	}
	p.make(t, p.Beside()+"/PG_VERSION") // with an earlier version it has come as far as that
	if err := p.Swap(); err == nil || !strings.HasSuffix(err.Error(), command) || !p.HalfSwapped() {
		t.Errorf("it says %v", err)
	}
}

// What cannot be removed is named, with what to type.
func TestNotRemoved(t *testing.T) {
	p := Place{Data: filepath.Join(t.TempDir(), "data"), Tmp: t.TempDir()}
	p.make(t, p.Data+"/PG_VERSION")
	locked(t, p.Beside()+"/backup")
	err := p.Finish(t.Context())
	if err == nil || !strings.Contains(err.Error(), p.Beside()+"/backup") || !strings.HasSuffix(err.Error(), "type: sudo rm -r "+p.Beside()) {
		t.Errorf("it says %v", err)
	}
}
