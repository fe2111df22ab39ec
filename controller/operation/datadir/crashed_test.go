package datadir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// placeOf is where a server's data are. Its programs run as the server's user.
func placeOf(t *testing.T, server *pgserver.Server) Place {
	t.Helper()
	return Place{Data: filepath.Join(server.Dir, "data"), Tmp: t.TempDir(), Bin: fakes.Programs(t, server)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lsnOf(t *testing.T, text string) model.LSN {
	t.Helper()
	l, err := model.ParseLSN(text)
	must(t, err)
	return l
}

// Where the WAL of a stopped server ends is where it writes on at its next start: after a clean shutdown and after a
// crash.
func TestEndOfRealWAL(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	for _, mode := range []string{"fast", "immediate"} {
		server.SQL("SELECT pg_switch_wal(); CREATE TABLE " + mode + " AS SELECT generate_series(1, 1000); CHECKPOINT; INSERT INTO " + mode + " VALUES (1)")
		before := lsnOf(t, server.SQL("SELECT pg_current_wal_flush_lsn()"))
		server.Stop(mode)
		c, err := p.Control(t.Context())
		must(t, err)
		if c.Clean() != (mode == "fast") {
			t.Errorf("after %s it was shut down: %t", mode, c.Clean())
		}
		local, err := p.WAL(t.Context(), c)
		must(t, err)
		server.Start()
		// A recovery ends with a checkpoint, which is the first that is written; without one a little may be written by
		// now.
		next := lsnOf(t, server.SQL("SELECT pg_current_wal_lsn()"))
		if mode == "immediate" {
			next = lsnOf(t, server.SQL("SELECT checkpoint_lsn FROM pg_control_checkpoint()"))
		}
		const little = 8192
		if local.End < before || local.End > next || next > local.End+little {
			t.Errorf("after %s the WAL ends at %s; written were %s, and then %s", mode, local.End, before, next)
		}
		if local.SystemID != server.SQL("SELECT system_identifier FROM pg_control_system()") || len(local.Timelines) != 1 || local.Segment != 16<<20 {
			t.Errorf("it is %+v", local)
		}
	}
}

// A host that has crashed replays its own WAL, and nothing else: as a standby it would wait for a primary.
func TestRecoverAfterCrash(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.SQL("CREATE TABLE kept AS SELECT 1 AS a")
	server.Stop("immediate")
	must(t, os.WriteFile(filepath.Join(p.Data, "standby.signal"), nil, 0o600))
	must(t, os.WriteFile(p.PIDFile(), []byte("1\n"), 0o600)) // another process has the number since
	must(t, p.Recover(t.Context()))
	c, err := p.Control(t.Context())
	must(t, err)
	if !c.Clean() || len(there(p.PIDFile(), filepath.Join(p.Data, "standby.signal"))) > 0 {
		t.Errorf("it was shut down: %t (%s)", c.Clean(), c["Database cluster state"])
	}
	must(t, os.WriteFile(filepath.Join(p.Data, "standby.signal"), nil, 0o600))
	must(t, p.Recover(t.Context()))
	if len(there(filepath.Join(p.Data, "standby.signal"))) == 0 {
		t.Error("clean data were touched")
	}
	must(t, os.Remove(filepath.Join(p.Data, "standby.signal")))
	server.Start()
	if got := server.SQL("SELECT a FROM kept"); got != "1" {
		t.Errorf("the table has %q", got)
	}
}

// Whose data they are is said by a whole control file alone: what a damaged one says would be taken for another
// database's.
func TestIdentity(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	system := server.SQL("SELECT system_identifier FROM pg_control_system()")
	server.Stop("fast")
	if got := p.Identity(t.Context()); got != (Identity{p.Data, system, 1}) {
		t.Errorf("it is %+v", got)
	}
	file := filepath.Join(p.Data, "global", "pg_control")
	whole, err := os.ReadFile(file)
	must(t, err)
	for name, damage := range map[string]func() error{ // readable for the server's user, also where it is made anew
		"cut off":     func() error { return os.WriteFile(file, whole[:20], 0o644) },
		"empty":       func() error { return os.WriteFile(file, nil, 0o644) },
		"another bit": func() error { return os.WriteFile(file, append([]byte{whole[0] ^ 1}, whole[1:]...), 0o644) },
		"overwritten": func() error { return os.WriteFile(file, make([]byte, len(whole)), 0o644) },
		"missing":     func() error { return os.Remove(file) },
	} {
		must(t, damage())
		if got := p.Identity(t.Context()); got != (Identity{Folder: p.Data}) {
			t.Errorf("%s: it is %+v", name, got)
		}
		if _, err := p.Control(t.Context()); err == nil {
			t.Errorf("%s: the control file is read", name)
		}
	}
	must(t, os.WriteFile(file, whole, 0o644))
	p.Bin = t.TempDir()
	if got := p.Identity(t.Context()); got != (Identity{Folder: p.Data}) {
		t.Errorf("without programs it is %+v", got)
	}
}

// What PostgreSQL reads from files that are included, whatever they are called, and last from its own.
func TestConfiguredByIncludes(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.Stop("fast")
	for name, text := range map[string]string{"a b's.conf": "WORK_MEM='5MB'#'\n", "last.conf": "application_name 'it''s \\'me\\''\n"} {
		server.Place(name, []byte(text))
	}
	server.Configured("work_mem = '4MB'", `include '`+server.Dir+`/a b''s.conf' # why`, "include_if_exists = '"+server.Dir+"/none.conf'",
		"include '"+server.Dir+"/last.conf'", "primary_slot_name = 'before'")
	must(t, p.SetSlotName("pgrex_pm01"))
	must(t, os.Chmod(filepath.Join(p.Data, "postgresql.auto.conf"), 0o644)) // it is another user's here
	for name, want := range map[string]string{"work_mem": "5120", "application_name": "it's 'me'", "primary_slot_name": "pgrex_pm01"} {
		if got, err := p.Configured(t.Context(), name); err != nil || got != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

// primary_slot_name is what it is to be, whatever the file is like: PostgreSQL reads nothing else in another way than
// before.
func TestSetSlotNameInOddFiles(t *testing.T) {
	for before, want := range map[string]string{
		"work_mem = '8MB'":                         "work_mem = '8MB'\nprimary_slot_name = 'x'\n", // whose last line has no end
		"# primary_slot_name = 'a'\n":              "# primary_slot_name = 'a'\nprimary_slot_name = 'x'\n",
		"primary_slot_name='a'":                    "primary_slot_name = 'x'\n",
		"primary_slot_name\t=\t'a' # b\r\na = 1\n": "a = 1\nprimary_slot_name = 'x'\n",
		"a.primary_slot_name = 'a'\n":              "a.primary_slot_name = 'a'\nprimary_slot_name = 'x'\n",
		"include 'other'\n":                        "include 'other'\nprimary_slot_name = 'x'\n",
	} {
		p := Place{Data: t.TempDir()}
		file := filepath.Join(p.Data, "postgresql.auto.conf")
		must(t, os.WriteFile(file, []byte(before), 0o600))
		must(t, p.SetSlotName("x"))
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%q became %q, %v", before, got, err)
		}
	}
	// Without a file, and by a link, there is one; where the link has led to is left alone.
	p, target := Place{Data: t.TempDir()}, filepath.Join(t.TempDir(), "target")
	file := filepath.Join(p.Data, "postgresql.auto.conf")
	must(t, p.SetSlotName("x"))
	must(t, errors.Join(os.Rename(file, target), os.Symlink(target, file), p.SetSlotName("y")))
	for path, want := range map[string]string{file: "primary_slot_name = 'y'\n", target: "primary_slot_name = 'x'\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v", path, got, err)
		}
	}
	// What cannot be read is not replaced.
	must(t, errors.Join(os.Remove(file), os.Mkdir(file, 0o700)))
	if err := p.SetSlotName("z"); err == nil {
		t.Error("a folder was replaced")
	}
}

// The lock is a file of its own, whatever is in its place, and nothing that a link leads to is touched.
func TestLock(t *testing.T) {
	folder, link := t.TempDir(), filepath.Join(t.TempDir(), "tmp")
	target := filepath.Join(t.TempDir(), "target")
	must(t, errors.Join(os.Symlink(folder, link), os.WriteFile(target, []byte("text"), 0o600)))
	p := Place{Tmp: link}
	real := filepath.Join(folder, "PGSQL.lock")
	for name, before := range map[string]func() error{
		"nothing":         func() error { return nil },
		"a lock":          p.MakeLock,
		"a link":          func() error { return os.Symlink(target, real) },
		"a link nowhere":  func() error { return os.Symlink("none", real) },
		"half of another": func() error { return os.WriteFile(real+".pgrex-new", []byte("x"), 0o600) },
	} {
		must(t, errors.Join(before(), p.MakeLock()))
		if info, err := os.Lstat(real); err != nil || !info.Mode().IsRegular() || info.Size() > int64(len(ours)) {
			t.Errorf("%s: the lock is %v, %v", name, info, err)
		}
		must(t, errors.Join(p.RemoveLock(), p.RemoveLock()))
		if left := there(real, real+".pgrex-new"); len(left) > 0 {
			t.Errorf("%s: left is %v", name, left)
		}
	}
	must(t, errors.Join(os.Symlink(target, real), p.RemoveLock()))
	if text, err := os.ReadFile(target); err != nil || string(text) != "text" {
		t.Errorf("where a link led to is %q, %v", text, err)
	}
	must(t, os.MkdirAll(filepath.Join(real, "somebody's"), 0o700))
	if err := p.RemoveLock(); err == nil {
		t.Error("a folder was removed")
	}
	if err := (Place{Tmp: filepath.Join(folder, "none")}).MakeLock(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

// journalled are data with files of the host's own, and the journal begun.
func journalled(t *testing.T) Place {
	t.Helper()
	p := Place{Data: filepath.Join(t.TempDir(), "data")}
	for _, name := range NodeLocal {
		p.make(t, filepath.Join(p.Data, name))
	}
	return p
}

// wantOwn wants the files in a folder to be the host's own.
func wantOwn(t *testing.T, p Place, folder string) {
	t.Helper()
	for _, name := range NodeLocal {
		want, got := filepath.Join(p.Data, name), ""
		text, err := os.ReadFile(filepath.Join(folder, name))
		if got = string(text); name == "postgresql.auto.conf" && folder == p.Data { // which the slot's name was added to
			got, _, _ = strings.Cut(got, "\nprimary_slot_name")
		}
		if err != nil || got != want {
			t.Errorf("%s in %s is %q, %v", name, folder, got, err)
		}
	}
}

// Killed anywhere while the journal is opened, nothing looks begun, all is seen as left, and it is opened whole by the
// next try.
func TestBeginKilled(t *testing.T) {
	own := func(p Place, names ...string) (paths []string) {
		for _, name := range names {
			paths = append(paths, filepath.Join(p.opening(), name))
		}
		return paths
	}
	for name, killed := range map[string]func(t *testing.T, p Place){
		"an empty folder": func(t *testing.T, p Place) { must(t, os.Mkdir(p.opening(), 0o700)) },
		"half of a note":  func(t *testing.T, p Place) { p.make(t, own(p, journalMark+".pgrex-new")...) },
		"a file":          func(t *testing.T, p Place) { p.make(t, own(p, journalMark, "postgresql.conf")...) },
		"half of a file": func(t *testing.T, p Place) {
			p.make(t, own(p, journalMark, "postgresql.conf", "pg_hba.conf.pgrex-new")...)
		},
		"an earlier one's note": func(t *testing.T, p Place) { p.make(t, own(p, journalMark, journalWhole)...) },
		"an earlier one, closed": func(t *testing.T, p Place) {
			p.make(t, filepath.Join(p.Marker()+closedSuffix, journalMark), filepath.Join(p.Marker()+closedSuffix, journalWhole))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := journalled(t)
			killed(t, p)
			if got := p.Rewinding(); got != NotBegun || !p.Left() {
				t.Errorf("it is %d, and left: %t", got, p.Left())
			}
			must(t, p.Begin(t.Context(), NodeLocal))
			if got := p.Rewinding(); got != HalfRewound {
				t.Errorf("begun it is %d", got)
			}
			wantOwn(t, p, p.Marker())
			must(t, p.Finish(t.Context()))
			if p.Rewinding() != NotBegun || p.Left() {
				t.Error("something is left")
			}
			wantOwn(t, p, p.Data)
		})
	}
}

// Killed anywhere after pg_rewind was begun, the data count as half rewound until it is noted that it is through, and
// as rewound until the host's own files are back. To put them back once more does no harm.
func TestRewindKilled(t *testing.T) {
	change := func(t *testing.T, p Place) {
		t.Helper()
		for _, name := range NodeLocal {
			must(t, os.WriteFile(filepath.Join(p.Data, name), []byte("the source's"), 0o600))
		}
	}
	through := func(t *testing.T, p Place) { change(t, p); must(t, p.Through()) }
	for _, test := range []struct {
		name   string
		killed func(t *testing.T, p Place)
		state  Rewinding
	}{
		{"nothing done yet", func(*testing.T, Place) {}, HalfRewound},
		{"the files replaced", change, HalfRewound},
		{"half of the note", func(t *testing.T, p Place) {
			change(t, p)
			p.make(t, filepath.Join(p.Marker(), journalWhole+".pgrex-new"))
		}, HalfRewound},
		{"the note about which data is gone", func(t *testing.T, p Place) { must(t, os.Remove(filepath.Join(p.Marker(), journalMark))) }, HalfRewound},
		{"noted", through, Rewound},
		{"half of a file put back", func(t *testing.T, p Place) {
			through(t, p)
			p.make(t, filepath.Join(p.Data, "postgresql.conf.pgrex-new"))
		}, Rewound},
		{"one put back", func(t *testing.T, p Place) {
			through(t, p)
			text, err := os.ReadFile(filepath.Join(p.Marker(), "pg_hba.conf"))
			must(t, errors.Join(err, os.WriteFile(filepath.Join(p.Data, "pg_hba.conf"), text, 0o600)))
		}, Rewound},
		{"all put back, but for the slot", func(t *testing.T, p Place) {
			through(t, p)
			must(t, CopyFiles(t.Context(), p.Marker(), p.Data, NodeLocal))
		}, Rewound},
		{"the mark is gone", func(t *testing.T, p Place) {
			through(t, p)
			must(t, errors.Join(CopyFiles(t.Context(), p.Marker(), p.Data, NodeLocal), p.SetSlotName("x"), p.unmark()))
		}, NotBegun},
		{"closed, and not removed", func(t *testing.T, p Place) {
			through(t, p)
			must(t, errors.Join(CopyFiles(t.Context(), p.Marker(), p.Data, NodeLocal), p.SetSlotName("x"), p.unmark(), os.Rename(p.Marker(), p.Marker()+closedSuffix)))
		}, NotBegun},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := journalled(t)
			must(t, p.Begin(t.Context(), NodeLocal))
			test.killed(t, p)
			if got := p.Rewinding(); got != test.state || !p.Left() {
				t.Errorf("it is %d, and left: %t", got, p.Left())
			}
			for range 2 {
				must(t, p.PutBack(t.Context(), "x"))
			}
			wantOwn(t, p, p.Data)
			must(t, p.Finish(t.Context()))
			if text, _ := os.ReadFile(filepath.Join(p.Data, "postgresql.auto.conf")); p.Rewinding() != NotBegun || p.Left() ||
				strings.Count(string(text), "primary_slot_name = 'x'\n") != 1 {
				t.Errorf("it is %d, left: %t, with the settings %q", p.Rewinding(), p.Left(), text)
			}
		})
	}
}

// The swap, killed before and after: what is in the data's place is whole, and what is beside it goes, with its WAL
// alone.
func TestSwapKilled(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		folder := t.TempDir()
		p := Place{Data: filepath.Join(folder, "data")}
		wal := filepath.Join(folder, "wal")
		p.make(t, p.Data+"/old", p.Beside()+"/new", wal+"/old", Other(wal)+"/new")
		must(t, errors.Join(os.Symlink(wal, p.Data+"/pg_wal"), os.Symlink(Other(wal), p.Beside()+"/pg_wal"), p.TrySwap()))
		want := []string{p.Data + "/old", p.Data + "/pg_wal/old"}
		if swapped {
			must(t, p.Swap())
			want = []string{p.Data + "/new", p.Data + "/pg_wal/new"}
		}
		if !p.Left() {
			t.Errorf("swapped %t, it is not seen as left", swapped)
		}
		must(t, p.Clear(t.Context()))
		all := []string{p.Data + "/old", p.Data + "/new", p.Data + "/pg_wal/old", p.Data + "/pg_wal/new", p.Beside()}
		if got := there(all...); !slices.Equal(got, want) || p.Left() {
			t.Errorf("swapped %t, there is %q", swapped, got)
		}
		if names := entries(t, folder); len(names) != 2 {
			t.Errorf("swapped %t, there is %q", swapped, names)
		}
	}
}

func entries(t *testing.T, folder string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(folder)
	must(t, err)
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

// A swap that fails leaves the data as they are, and no copy. It does not fail because the data folder is missing.
func TestSwapFails(t *testing.T) {
	p := Place{Data: filepath.Join(t.TempDir(), "data")}
	p.make(t, p.Data+"/old")
	if err := p.Swap(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a copy: %v", err)
	}
	other := Place{Data: filepath.Join(t.TempDir(), "none")}
	other.make(t, other.Beside()+"/new")
	must(t, errors.Join(other.Swap(), other.Finish(t.Context())))
	if got := there(p.Data+"/old", other.Data+"/new", other.Beside()); len(got) != 2 || p.Left() || other.Left() {
		t.Errorf("there is %q", got)
	}
}

// A tool that does not end in time is ended, and the error says so, and what it said last. A secret is not in it.
func TestToolEnds(t *testing.T) {
	t.Parallel()
	access, err := postgres.AccessFor("host='x'password=hidden-1")
	must(t, err)
	why := errors.New("it takes too long")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, why)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	tool := Tool{Path: "/bin/sh", Args: []string{"-c", `for i in 1 2 3 4 5 6; do echo $i >&2; done; echo out; exec sleep 1000`}, Access: access}
	tool.Progress = func(line string) {
		if line == "6" {
			end(why)
		}
	}
	_, err = tool.Run(ctx)
	if !errors.Is(err, why) || err.Error() != "sh: 3; 4; 5; 6" {
		t.Errorf("it ends with %v", err)
	}
	var failed *ToolError
	out, err := Tool{Path: "/bin/sh", Args: []string{"-c", `echo out; exit 3`}, Access: access}.Run(t.Context())
	if !errors.As(err, &failed) || out != "out\n" || err.Error() != "sh: exit status 3" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err = (Tool{Path: "/none/pg_ctl", Access: access}).Run(t.Context()); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &failed) && out != "" {
		t.Errorf("%q, %v", out, err)
	}
}

// A report that is written over is told piece by piece, where it runs is where it was told to, and it speaks English.
func TestToolProgress(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var told []string
	tool := Tool{Path: "/bin/sh", Args: []string{"-c", `printf '1%%\r 2%%\r\n\nend' >&2; pwd; echo $LC_ALL $PGAPPNAME`}, Folder: folder,
		Progress: func(line string) { told = append(told, line) }}
	out, err := tool.Run(t.Context())
	if want := []string{"1%", "2%", "end"}; err != nil || out != folder+"\nC pgrex\n" || !slices.Equal(told, want) {
		t.Errorf("%q, %v, told were %q", out, err, told)
	}
}
