package datadir

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// A file in the data folder is a host's own if the settings name it: directly, in an included file here or elsewhere,
// or through a link.
func TestOwn(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.Stop("fast")
	must(t, errors.Join(os.Mkdir(p.Data+"/conf.d", 0o755), os.Mkdir(p.Data+"/tls", 0o755), os.Mkdir(server.Dir+"/etc", 0o755),
		os.WriteFile(p.Data+"/conf.d/a.conf", []byte("INCLUDE = 'deeper.conf'\n"), 0o644),
		os.WriteFile(p.Data+"/conf.d/deeper.conf", nil, 0o644),
		os.WriteFile(p.Data+"/real.conf", []byte("include 'behind.conf' # why\n"), 0o644),
		os.WriteFile(p.Data+"/behind.conf", nil, 0o644), os.Symlink("real.conf", p.Data+"/link.conf"),
		os.WriteFile(server.Dir+"/etc/out.conf", []byte("include_if_exists '"+p.Data+"/none.conf'\n#include 'not.conf'\n"), 0o644),
		os.WriteFile(p.Data+"/access.conf", []byte("include \"more access.conf\"\nlocal all all trust\n"), 0o644)))
	server.Configured("include_dir 'conf.d'", "include 'link.conf'", "include '../etc/out.conf'", "hba_file = '"+p.Data+"/access.conf'",
		"ssl_key_file = 'tls/own.key'", "ssl_cert_file = '/elsewhere/own.crt'", "ssl_ca_file = 'base/odd'", "krb_server_keyfile = 'FILE:keys'")
	own, err := p.Own(t.Context(), p.Data+"/.pgpass", "/root/.pgpass")
	must(t, err)
	want := []string{
		".pgpass", "access.conf", "behind.conf", "conf.d", "keys", "link.conf", "more access.conf", "none.conf", "pg_hba.conf", "pg_ident.conf",
		"postgresql.auto.conf", "postgresql.conf", "real.conf", "tls/own.key",
	}
	if !slices.Equal(own, want) {
		t.Errorf("own are %q, not %q", own, want)
	}
	must(t, os.WriteFile(p.Data+"/notes", nil, 0o600))
	if others := p.Others(own); !slices.Equal(others, []string{"notes"}) {
		t.Errorf("neither PostgreSQL's nor its own are %q", others)
	}

	// The journal keeps these files. From then on it also says which files they are, whatever the settings in the data
	// folder are by now.
	must(t, p.Begin(t.Context(), own))
	must(t, os.WriteFile(p.Data+"/postgresql.conf", []byte("include '/none'\n"), 0o644))
	if got, err := p.Own(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("half rewound they are %q, %v", got, err)
	}
	if got, err := p.Configured(t.Context(), "hba_file"); os.Geteuid() != 0 && (err != nil || got != p.Data+"/access.conf") {
		t.Errorf("half rewound hba_file is %q, %v", got, err)
	}
	if others := p.Others(want); !slices.Equal(others, []string{"notes"}) {
		t.Errorf("half rewound, neither PostgreSQL's nor pgrex's nor its own are %q", others)
	}
}

// A host's own path becomes what it was before, whatever is in its place: a file, a folder, a link, or nothing.
func TestCopyOwn(t *testing.T) {
	own := []string{"dir", "file", "gone", "link", "sub/file"}
	from, to := t.TempDir(), t.TempDir()
	must(t, errors.Join(os.MkdirAll(from+"/dir/deeper", 0o750), os.WriteFile(from+"/dir/deeper/a", []byte("a"), 0o640), os.Symlink("a", from+"/dir/deeper/b"),
		os.WriteFile(from+"/file", []byte("own"), 0o640), os.Symlink("/elsewhere", from+"/link"),
		os.Mkdir(from+"/sub", 0o711), os.WriteFile(from+"/sub/file", nil, 0o400)))
	must(t, errors.Join(os.MkdirAll(to+"/file/theirs", 0o700), os.MkdirAll(to+"/dir/deeper/theirs", 0o700), os.WriteFile(to+"/dir/theirs", nil, 0o600),
		os.WriteFile(to+"/gone", nil, 0o600), os.WriteFile(to+"/link", []byte("theirs"), 0o600), os.WriteFile(to+"/theirs", nil, 0o600)))
	for range 2 {
		must(t, CopyFiles(t.Context(), from, to, own))
		for name, want := range map[string]os.FileMode{
			"dir": os.ModeDir | 0o750, "dir/deeper/a": 0o640, "file": 0o640, "sub": os.ModeDir | 0o711, "sub/file": 0o400, "theirs": 0o600,
		} {
			if info, err := os.Lstat(filepath.Join(to, name)); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		for name, want := range map[string]string{"link": "/elsewhere", "dir/deeper/b": "a"} {
			if target, err := os.Readlink(filepath.Join(to, name)); err != nil || target != want {
				t.Errorf("%s leads to %q, %v", name, target, err)
			}
		}
		if left := there(to+"/gone", to+"/dir/theirs", to+"/dir/deeper/theirs"); len(left) > 0 {
			t.Errorf("there is still %q", left)
		}
		if text, err := os.ReadFile(to + "/file"); err != nil || string(text) != "own" {
			t.Errorf("the file has %q, %v", text, err)
		}
	}
	must(t, errors.Join(os.Remove(from+"/file"), unix.Mkfifo(from+"/file", 0o600)))
	if err := CopyFiles(t.Context(), from, to, own); err == nil {
		t.Error("a pipe is copied")
	}
}

// A journal of an earlier pgrex has no list of files: the files in it are put back, and none is removed.
func TestJournalWithoutNames(t *testing.T) {
	p := journalled(t)
	must(t, p.Begin(t.Context(), NodeLocal))
	must(t, errors.Join(os.Remove(filepath.Join(p.Marker(), journalOwn)), os.Remove(filepath.Join(p.Marker(), "pg_ident.conf")), p.Through()))
	must(t, os.WriteFile(p.Data+"/postgresql.conf", []byte("theirs"), 0o600))
	must(t, p.PutBack(t.Context(), "x"))
	wantOwn(t, p, p.Data)
	// A name that leads out of the data folder is refused.
	must(t, p.Begin(t.Context(), NodeLocal))
	outside := filepath.Join(filepath.Dir(p.Data), "outside")
	p.make(t, outside)
	must(t, os.WriteFile(filepath.Join(p.Marker(), journalOwn), []byte(`["../outside"]`), 0o600))
	if err := p.PutBack(t.Context(), "x"); err == nil || len(there(outside)) == 0 {
		t.Errorf("a name leads out of the data folder: %v", err)
	}
}

// What takes the place of a file or folder gets its SELinux label: a file that is replaced or kept, and the folder of a
// copy.
func TestLabel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may set a label where SELinux is off")
	}
	const name = "security.selinux"
	p := Place{Data: filepath.Join(t.TempDir(), "data")}
	wal := filepath.Join(filepath.Dir(p.Data), "wal")
	conf := filepath.Join(p.Data, "postgresql.conf")
	p.make(t, conf, wal+"/old", filepath.Join(p.Data, "postgresql.auto.conf"))
	must(t, os.Symlink(wal, p.Data+"/pg_wal"))
	set := func(path, text string) { t.Helper(); must(t, unix.Lsetxattr(path, name, []byte(text), 0)) }
	want := func(path, text string) {
		t.Helper()
		got := make([]byte, 100)
		n, err := unix.Lgetxattr(path, name, got)
		if err != nil || !bytes.Equal(got[:n], []byte(text)) {
			t.Errorf("%s has the label %q, %v", path, got[:max(n, 0)], err)
		}
	}
	const db, waldb, etc, auto = "system_u:object_r:db:s0\x00", "system_u:object_r:wal:s0\x00", "system_u:object_r:etc:s0\x00", "a:b:c:s0\x00"
	set(p.Data, db)
	set(wal, waldb)
	set(conf, etc)
	set(filepath.Join(p.Data, "postgresql.auto.conf"), auto)
	must(t, errors.Join(writeWhole(conf, "new"), p.SetSlotName("x")))
	want(conf, etc)
	want(filepath.Join(p.Data, "postgresql.auto.conf"), auto)
	must(t, p.Begin(t.Context(), NodeLocal))
	must(t, errors.Join(os.Remove(conf), os.WriteFile(conf, []byte("theirs"), 0o600), p.Through(), p.PutBack(t.Context(), "x")))
	want(conf, etc)
	must(t, os.Chmod(p.Data, 0o750))
	must(t, p.MakeBeside(nil))
	want(p.Beside(), db)
	want(Other(wal), waldb)
	if info, err := os.Stat(p.Beside()); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the copy's folder: %v, %v", info, err)
	}
	must(t, CopyFiles(t.Context(), p.Data, p.Beside(), NodeLocal))
	want(filepath.Join(p.Beside(), "postgresql.conf"), etc)
}

// The user that owns the data cannot put back a file of root's as it is: not its owner, and perhaps not even its
// content.
func TestNotKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give a file to another user")
	}
	p := journalled(t)
	if why, err := p.notKept(t.Context(), NodeLocal); why != "" || err != nil {
		t.Error(why, err)
	}
	must(t, os.Chown(filepath.Join(p.Data, "pg_hba.conf"), 1, 1))
	if why, _ := p.notKept(t.Context(), NodeLocal); !strings.Contains(why, "pg_hba.conf belongs to another user") {
		t.Error(why)
	}
}

// Lost are the files that a server would read in the data folder, and that are missing: a copy keeps the primary's. A
// file that the settings place elsewhere is not missed. Without settings, nobody knows which missing files must not
// exist afterwards either.
func TestLost(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.Stop("fast")
	lacks := func(when string, want ...string) {
		t.Helper()
		if lost, err := p.Lost(t.Context()); err != nil || !slices.Equal(lost, want) {
			t.Errorf("%s: lost are %q, %v", when, lost, err)
		}
	}
	owns := func(when string, want ...string) {
		t.Helper()
		if own, err := p.Own(t.Context(), p.Data+"/.pgpass"); err != nil || !slices.Equal(own, want) {
			t.Errorf("%s: own are %q, %v", when, own, err)
		}
	}
	lacks("whole")
	must(t, os.Remove(p.Data+"/pg_hba.conf"))
	lacks("without one", "pg_hba.conf")
	server.Configured("hba_file = '" + server.Dir + "/elsewhere.conf'")
	lacks("it is elsewhere")
	owns("it is elsewhere", ".pgpass", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", "postgresql.conf", "server.crt",
		"server.key")
	must(t, os.Remove(p.Data+"/postgresql.conf"))
	lacks("without settings", "postgresql.conf", "pg_hba.conf")
	owns("without settings", "pg_ident.conf", "postgresql.auto.conf")

	must(t, os.MkdirAll(p.Beside(), 0o700))
	for _, name := range NodeLocal {
		must(t, os.WriteFile(filepath.Join(p.Beside(), name), []byte("theirs"), 0o600))
	}
	p.make(t, p.Beside()+"/pgrex-new/PG_VERSION", p.Beside()+"/pgrex-old/PG_VERSION") // the primary's
	own, err := p.Own(t.Context())
	must(t, errors.Join(err, p.CopyOwn(t.Context(), own)))
	if left := there(p.Beside()+"/pgrex-new", p.Beside()+"/pgrex-old"); len(left) > 0 {
		t.Errorf("the copy has the primary's %q", left)
	}
	for name, theirs := range map[string]bool{"postgresql.conf": true, "pg_hba.conf": true, "pg_ident.conf": false} {
		text, err := os.ReadFile(filepath.Join(p.Beside(), name))
		if err != nil || (string(text) == "theirs") != theirs {
			t.Errorf("%s of the copy has %q, %v", name, text, err)
		}
	}
}

// A copy's folder is made even if the data folder is too open, or missing. A tablespace's folder is like the one in
// use.
func TestMakeBeside(t *testing.T) {
	p := Place{Data: filepath.Join(t.TempDir(), "data")}
	mode := func(path string, want os.FileMode) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeDir|want {
			t.Errorf("%s is %v, %v", path, info, err)
		}
	}
	must(t, p.MakeBeside(nil))
	mode(p.Beside(), 0o700)
	space := t.TempDir()
	must(t, errors.Join(os.Chmod(space, 0o750), os.MkdirAll(p.Data+"/pg_tblspc", 0o700), os.Symlink(space, p.Data+"/pg_tblspc/77"), os.Chmod(p.Data, 0o755)))
	fresh := Tablespace{Tablespace: postgres.Tablespace{OID: 77}, Folder: Other(space)}
	must(t, p.MakeBeside([]Tablespace{fresh, {Tablespace: postgres.Tablespace{OID: 78}, Folder: space + "/none"}}))
	mode(p.Beside(), 0o700)
	mode(fresh.Folder, 0o750)
	if made := there(space + "/none"); len(made) > 0 {
		t.Errorf("there is %q", made)
	}
}
