package prune

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestArchiveFolder(t *testing.T) {
	for _, c := range []struct{ mode, archive, restore, want string }{
		{"on", "cp %p /archive/%f", "", "/archive"},
		{"on", `test ! -f /archive/%f && cp "%p" "/archive/%f"`, "cp /archive//%f %p", "/archive"},
		{"always", "gzip < %p > /archive/%f.gz", "gunzip < /archive/%f.gz > %p", "/archive"},
		{"on", "dd if=%p of=/archive/%f", "", "/archive"},
		{"off", "cp %p /old/%f", "cp /archive/%f %p", "/archive"},
		{"on", "", "/bin/false", ""},
		{"on", "cp %p /archive/%f", "cp /other/%f %p", ""},
		{"on", "scp %p backup:/archive/%f", "", ""},
		{"on", `ssh backup "cat >/archive/%f" <%p`, "", ""},
		{"on", "cp %p archive/%f", "", ""},
		{"on", "cp %p '/an archive/%f'", "", ""},
	} {
		got, err := archiveFolder(map[string]string{"archive_mode": c.mode, "archive_command": c.archive, "restore_command": c.restore})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

// TestMove: a file is moved whole, also to another file system, and none is overwritten.
func TestMove(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	other, err := os.MkdirTemp("/dev/shm", "pgrex-move")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(other) })
	for _, folder := range []string{there, other} {
		from, to := filepath.Join(here, "a"), filepath.Join(folder, "a")
		if err := os.WriteFile(from, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := move(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(to)
		if _, gone := os.Stat(from); err != nil || string(text) != "text" || !errors.Is(gone, os.ErrNotExist) {
			t.Errorf("%s: %q, %v, %v", folder, text, err, gone)
		}
		if err := os.WriteFile(from, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := move(t.Context(), from, to); err == nil {
			t.Error("a file was overwritten")
		}
	}
}

// TestWALOfServer: whose a segment is, and where a base backup begins.
func TestWALOfServer(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	segment := server.SQL("SELECT setting FROM pg_settings WHERE name = 'data_directory'") + "/pg_wal/" +
		server.SQL("SELECT pg_walfile_name(pg_current_wal_lsn())")
	if system, known := systemOf(segment); !known || system != server.SQL("SELECT system_identifier FROM pg_control_system()") {
		t.Errorf("%s, %t", system, known)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "packed"), []byte(strings.Repeat("x", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if system, known := systemOf(filepath.Join(folder, "packed")); known {
		t.Errorf("%s of a file that is no WAL", system)
	}
	if _, err := beginOfBackup(folder); err == nil {
		t.Error("a folder without a backup")
	}
	server.SQL("SELECT pg_switch_wal()")
	label := server.SQL("SELECT pg_backup_start('test', true); SELECT labelfile FROM pg_backup_stop(false)")
	if err := os.WriteFile(filepath.Join(folder, "backup_label"), []byte("START"+strings.SplitN(label, "START", 2)[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if from, err := beginOfBackup(folder); err != nil || !strings.HasPrefix(label, from.String()) {
		t.Errorf("%s, %v; the server says %s", from, err, label)
	}
}
