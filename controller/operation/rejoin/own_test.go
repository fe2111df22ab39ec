package rejoin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// A host's own files in the data folder stay as they were through a rewind and a copy, with their modes, and get
// nothing of the primary's. The data folder stays open to its group.
func TestOwnStays(t *testing.T) {
	if asOwner(t) {
		return
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	host := pgserver.New(t)
	data, outside := host.Dir+"/data", host.Dir+"/outside.conf"
	host.Stop("fast")
	must(os.Chmod(data, 0o750))
	host.Start()
	primary := host.Standby("wal_keep_size = 1GB")
	host.CatchUp(primary)
	primary.Promote()
	primary.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
	theirs := primary.Dir + "/data"
	must(os.Chmod(theirs, 0o700), os.Mkdir(theirs+"/conf.d", 0o700))
	for _, name := range []string{"conf.d/theirs.conf", "site.conf", "server.key", "access.conf", "tls.crt"} {
		must(os.WriteFile(filepath.Join(theirs, name), []byte("work_mem = '9MB'\n"), 0o600))
	}

	host.SQL("CREATE TABLE parted AS SELECT 1")
	host.Stop("fast")
	texts := map[string]string{
		"conf.d/ours.conf": "maintenance_work_mem = '33MB'\n", "access.conf": "local all all trust\nhost all,replication all all trust\n",
		"tls/own.crt": "a certificate\n", ".pgpass": "*:*:*:*:hidden-word\n", "tls.crt": "another\n", "ident.conf": "# of the agent, who starts PostgreSQL in the data folder\n",
	}
	must(os.Mkdir(data+"/conf.d", 0o750), os.Mkdir(data+"/tls", 0o750), os.WriteFile(outside, []byte("work_mem = '7MB'\n"), 0o600),
		os.Symlink(outside, data+"/link.conf"))
	for name, text := range texts {
		must(os.WriteFile(filepath.Join(data, name), []byte(text), 0o600), os.Chmod(filepath.Join(data, name), 0o640))
	}
	host.Configured("include_dir 'conf.d'", "include_if_exists 'site.conf'", "include 'link.conf'", "hba_file = '"+data+"/access.conf'", "ident_file = 'ident.conf'",
		"ssl_cert_file = 'tls/own.crt'", "ssl_ca_file = 'tls.crt'")

	is := func(way Method) {
		t.Helper()
		for name, want := range texts {
			text, err := os.ReadFile(filepath.Join(data, name))
			info, _ := os.Stat(filepath.Join(data, name))
			if err != nil || string(text) != want || info.Mode() != 0o640 {
				t.Errorf("%s: %s is %q, %v, %v", way, name, text, info, err)
			}
		}
		if target, err := os.Readlink(data + "/link.conf"); err != nil || target != outside {
			t.Errorf("%s: the link leads to %q, %v", way, target, err)
		}
		if got := there(data+"/conf.d/theirs.conf", data+"/site.conf", data+"/server.key"); len(got) > 0 {
			t.Errorf("%s: of the primary's is %q", way, got)
		}
		for folder, want := range map[string]os.FileMode{data: 0o750, data + "/conf.d": 0o750, data + "/tls": 0o750} {
			if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %s is %v, %v", way, folder, info, err)
			}
		}
		followsThrough(t, host, primary)
		if got := host.SQL("SELECT current_setting('work_mem'), current_setting('maintenance_work_mem')"); got != "7MB|33MB" {
			t.Errorf("%s: the settings are %s", way, got)
		}
		host.Stop("fast")
	}
	r := &Rejoin{Report: func(line string) { t.Log(line) }}
	for _, way := range []Method{MethodRewind, MethodCopy} {
		c := caseOf(t, host, primary)
		c.Conninfo += " passfile=" + data + "/.pgpass"
		if way == MethodRewind && !c.Return.NeedsRewind() {
			t.Fatalf("there is nothing to rewind: %+v", c.Return)
		}
		says, err := c.Keeps(t.Context(), way)
		if said := strings.Join(says, "\n"); err != nil || !strings.Contains(said, "access.conf, conf.d, ident.conf, link.conf, ") || strings.Contains(said, "site.conf") {
			t.Errorf("%s says %q, %v", way, says, err)
		}
		steps := map[Method]func() error{
			MethodRewind: func() error { return fakes.Do(t.Context(), t, r.rewind(c)) },
			MethodCopy:   func() error { return fakes.Do(t.Context(), t, slices.Concat(c.reserve(), r.copy(c))) },
		}
		must(steps[way]())
		is(way)
	}
}

// rejoin says beforehand which file, here or on the primary, would end pg_rewind or a copy half way.
func TestHindrances(t *testing.T) {
	if asOwner(t) {
		return
	}
	host := pgserver.New(t)
	primary := host.Standby("wal_keep_size = 1GB")
	host.CatchUp(primary)
	primary.Promote()
	host.SQL("CREATE TABLE parted AS SELECT 1")
	host.Stop("fast")
	data, theirs := host.Dir+"/data", primary.Dir+"/data"
	for name, test := range map[string]struct {
		script       string // what somebody does, and how it is mended
		mend         string
		rewind, copy string // why not; "" for possible
	}{
		"nothing":                      {"true", "true", "", ""},
		"a file that nobody may write": {"touch $1/notes && chmod 400 $1/notes", "rm -f $1/notes", "may not write " + data + "/notes", ""},
		"a folder":                     {"mkdir -p $1/mine && chmod 500 $1/mine", "rmdir $1/mine", "may not write " + data + "/mine", ""},
		"a folder nobody may read":     {"mkdir -p $1/mine && chmod 000 $1/mine", "rmdir $1/mine", "may not write " + data + "/mine", ""},
		"an own file that is a pipe": {"mv $1/pg_ident.conf $1/../kept && mkfifo $1/pg_ident.conf", "mv $1/../kept $1/pg_ident.conf",
			"pg_ident.conf is neither a file nor a folder", "pg_ident.conf is neither a file nor a folder"},
		"a link in the place of a file": {"mv $1/pg_hba.conf $1/../kept && ln -s ../kept $1/pg_hba.conf", "mv $1/../kept $1/pg_hba.conf",
			"pg_hba.conf is not a file here", ""},
		"a link that the primary has not": {"ln -s ../none $1/mine.conf", "rm $1/mine.conf", "", ""},
		"the primary cannot read a file": {"echo secret >$2/server.key && chmod 000 $2/server.key", "rm -f $2/server.key",
			`"server.key" for reading: Permission denied: on pm01`, `"server.key" for reading: Permission denied: on pm01`},
		"the primary cannot read a folder": {"mkdir $2/theirs && chmod 000 $2/theirs", "rmdir $2/theirs", "theirs", "theirs"},
	} {
		do := func(script string) {
			t.Helper()
			if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", data, theirs).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		}
		do(test.script)
		ladder := Ladder(caseOf(t, host, primary).Return)
		for method, want := range map[Method]string{MethodRewind: test.rewind, MethodCopy: test.copy} {
			i := slices.IndexFunc(ladder, func(rung Rung) bool { return rung.Method == method })
			if rung := ladder[i]; rung.Possible != (want == "") || !strings.Contains(rung.Why, want) {
				t.Errorf("%s: %s is possible: %t, %s", name, rung.Method, rung.Possible, rung.Why)
			}
		}
		do(test.mend)
	}
}
