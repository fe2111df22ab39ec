package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// A record that ends on its page, one that ends with it, and those that go on over a page's or a segment's header.
func TestRecordEnd(t *testing.T) {
	const segment = 16 << 20
	for _, c := range []struct {
		start  model.LSN
		length uint64
		want   model.LSN
	}{
		{0x1000028, 30, 0x1000048},
		{0x1001FE0, 32, 0x1002000},
		{0x1001FE0, 40, 0x1002020},
		{0x1FFFFE0, 40, 0x2000030},
		{0x1001FE0, 8192 + 32, 0x1004030},
	} {
		if got := recordEnd(c.start, c.length, segment); got != c.want {
			t.Errorf("%d bytes from %s end at %s, not at %s", c.length, c.start, got, c.want)
		}
	}
}

// What pg_rewind leaves may have later segments of the newest timeline, but not that in which it began: the data go on
// to there. A gap is not the end, and where nothing of the segment is here nobody knows.
func TestEndWithoutFile(t *testing.T) {
	local := reconcile.LocalData{Segment: 16 << 20, Timelines: []model.Timeline{{ID: 1}, {ID: 2, Begin: 0x1000100}, {ID: 3, Begin: 0x19014EA0}}}
	const missing = `pg_waldump: error: could not find file "000000030000000000000019": No such file or directory`
	for _, c := range []struct {
		files         []string
		lacks         bool
		end           model.LSN
		endsWithAFile bool
	}{
		{[]string{"000000020000000000000019", "00000003000000000000001E"}, true, 0, false},
		{[]string{"000000020000000000000019", "000000030000000000000019"}, false, 0, false},
		{[]string{"000000030000000000000018"}, false, 0x19000000, true},
		{[]string{"000000030000000000000018", "00000003000000000000001A"}, false, 0, false},
	} {
		p := Place{Data: t.TempDir()}
		if err := os.Mkdir(filepath.Join(p.Data, "pg_wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range c.files {
			if err := os.WriteFile(filepath.Join(p.Data, "pg_wal", name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.lacksTimeline(local); got != c.lacks {
			t.Errorf("%v lack the newest timeline: %t", c.files, got)
		}
		if end, ok := p.endsWithFile(missing, local); end != c.end || ok != c.endsWithAFile {
			t.Errorf("%v end at %s, %t", c.files, end, ok)
		}
	}
}

// primary_slot_name is put right in whatever is there, once, and nothing else is touched.
func TestSetSlotName(t *testing.T) {
	p := Place{Data: t.TempDir()}
	file := filepath.Join(p.Data, "postgresql.auto.conf")
	for before, want := range map[string]string{
		"": "primary_slot_name = 'pgrex_pm01'\n",
		"# no edits\nwork_mem = '8MB'\nprimary_slot_name = 'pgrex_pm03'\nprimary_slot_name = ''\nfsync = 'on'\n": "# no edits\nwork_mem = '8MB'\nfsync = 'on'\nprimary_slot_name = 'pgrex_pm01'\n",
	} {
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.SetSlotName("pgrex_pm01"); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%v\n%s", err, got)
		}
	}
}

func TestSetting(t *testing.T) {
	const text = "a = 1\nprimary_conninfo = 'host=x password=''y'' z' # why\nb = two # a comment\nb=three\n"
	for name, want := range map[string]string{"a": "1", "primary_conninfo": "host=x password='y' z", "b": "three", "c": ""} {
		if got := setting(text, name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
}

// TestSettingQuoted: what is in quotes is what PostgreSQL makes of it.
func TestSettingQuoted(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	for i, quoted := range []string{
		`'host=x password=a\\ b' # it''s why`, `'host=x password=''a\' b'''`, `'password=a\'b' # c'd`, `'a\tb\101\7\\\e' # '`,
		`''''`, `'' # none`, `'a#b'`, `'a\\'`, `'\1012'`,
	} {
		name := fmt.Sprintf("test.quoted_%d", i)
		line := name + " = " + quoted
		server.Configure(line)
		want := ""
		server.Await("the setting", func() bool {
			said, err := server.Try("SELECT current_setting('" + name + "') || '.'")
			want = strings.TrimSuffix(said, ".")
			return err == nil
		})
		if got := setting(line+"\n", name); got != want {
			t.Errorf("%s: %q, and PostgreSQL has %q", quoted, got, want)
		}
	}
}

// TestConninfo: while it starts the server, the agent takes its file away and writes it anew; without one, it is what
// the agent would write.
func TestConninfo(t *testing.T) {
	clone := model.Clone{Parameters: map[string]string{"master_ip": "192.0.2.1", "repuser": "rep"}}
	p := Place{Tmp: t.TempDir()}
	if got, err := p.Conninfo(t.Context(), clone); err != nil || got != "host=192.0.2.1 port=5432 user=rep" {
		t.Errorf("without a file: %q, %v", got, err)
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		file := filepath.Join(p.Tmp, "recovery.conf")
		if err := errors.Join(os.WriteFile(file, nil, 0o600), writeWhole(file, "primary_conninfo = 'host=here'\n")); err != nil {
			t.Error(err)
		}
	}()
	if got, err := p.Conninfo(t.Context(), clone); err != nil || got != "host=here" {
		t.Errorf("the file comes: %q, %v", got, err)
	}
}

// TestToolsSecrets: a program gets them, and its arguments have none.
func TestToolsSecrets(t *testing.T) {
	t.Parallel()
	access, err := postgres.AccessFor("host='x'password=hidden-1 oauth_client_secret='hidden 2'")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as after a slot that was in use
		shell := Tool{Path: "sh", Args: []string{"-c", `cat "$PGSERVICEFILE"`, access.Conninfo}, Access: access}
		said, err := shell.Run(t.Context())
		if want := "[pgrex]\noauth_client_secret=hidden 2\npassword=hidden-1\n"; err != nil || said != want || strings.Contains(shell.String(), "hidden") {
			t.Errorf("%s: %q, %v", shell, said, err)
		}
	}
	if access, err = postgres.AccessFor("host='x'password=hidden-1"); err != nil {
		t.Fatal(err)
	}
	shell := Tool{Path: "sh", Args: []string{"-c", `printf %s "$PGPASSWORD"`, access.Conninfo}, Access: access}
	if said, err := shell.Run(t.Context()); err != nil || said != "hidden-1" || strings.Contains(shell.String(), "hidden") {
		t.Errorf("%s: %q, %v", shell, said, err)
	}
}

// Data are put there by a copy and by a restore, whatever time the tool gives the files, and once more when PostgreSQL
// begins to recover a backup.
func TestPutHere(t *testing.T) {
	t.Parallel()
	p := Place{Data: t.TempDir()}
	if _, err := p.PutHere(); err == nil {
		t.Error("data without PG_VERSION were put there")
	}
	put := func() time.Time {
		t.Helper()
		at, err := p.PutHere()
		must(t, err)
		return at
	}
	old, version := time.Unix(1e9, 0), filepath.Join(p.Data, "PG_VERSION")
	must(t, os.WriteFile(version, []byte("15\n"), 0o600))
	must(t, os.Chtimes(version, old, old))
	first := put()
	if !first.After(old) {
		t.Errorf("they were put there at %s", first)
	}
	label := filepath.Join(p.Data, backupLabel)
	must(t, os.WriteFile(label, nil, 0o600))
	must(t, os.Chtimes(label, old, old))
	must(t, os.Rename(label, label+".old"))
	if put().Before(first) {
		t.Errorf("a backup's recovery began before it was restored: %s", put())
	}
	must(t, os.WriteFile(filepath.Join(p.Data, "base"), nil, 0o600))
	must(t, os.Remove(label+".old"))
	if got := put(); !got.Equal(first) {
		t.Errorf("other files count: %s, %s", first, got)
	}
}
