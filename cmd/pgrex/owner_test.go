package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/reconcile"
)

// groupsBy is what id(1) says, in order of name.
func groupsBy(t *testing.T, arguments ...string) []string {
	t.Helper()
	out, err := exec.Command("id", arguments...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(strings.FieldsSeq(string(out)))
}

// ownerOfFolder asks about a data folder with the postmaster.pid of a process.
func ownerOfFolder(t *testing.T, pid int) reconcile.Owner {
	t.Helper()
	folder := t.TempDir()
	if pid != 0 {
		if err := os.WriteFile(filepath.Join(folder, "postmaster.pid"), fmt.Appendf(nil, "%d\n/data\n", pid), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	owner := ownerOf(postgres.NewServer(postgres.Config{DataDir: folder}))
	slices.Sort(owner.Groups)
	slices.Sort(owner.Postmaster)
	return owner
}

// TestOwner: the groups are those of the folder's owner by the user database, and those that the process really has.
func TestOwner(t *testing.T) {
	account, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	owner := ownerOfFolder(t, os.Getpid())
	byName, really := groupsBy(t, "-Gn", account.Username), groupsBy(t, "-Gn")
	if owner.Name != account.Username || !slices.Equal(owner.Groups, byName) || !slices.Equal(owner.Postmaster, really) ||
		owner.Group != groupsBy(t, "-gn", account.Username)[0] {
		t.Errorf("%+v, not %s, %v, %v", owner, account.Username, byName, really)
	}
	if owner := ownerOfFolder(t, 0); owner.Name != account.Username || owner.Postmaster != nil {
		t.Errorf("without a postmaster: %+v", owner)
	}
	gone := ownerOf(postgres.NewServer(postgres.Config{DataDir: filepath.Join(t.TempDir(), "none")}))
	if gone.Name != "" || gone.Groups != nil || gone.Postmaster != nil {
		t.Errorf("without a folder: %+v", gone)
	}
}

// TestOwnersProcess: a process that was given another group has it, whatever the user database says. Only root can
// give one.
func TestOwnersProcess(t *testing.T) {
	group, err := user.LookupGroup("haclient")
	if err != nil {
		t.Fatalf("%v; hack/test installs what the tests need", err)
	}
	var gid uint32
	if _, err := fmt.Sscan(group.Gid, &gid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{gid}}}
	}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	owner := ownerOfFolder(t, cmd.Process.Pid)
	if err := input.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if has := slices.Contains(owner.Postmaster, "haclient"); os.Geteuid() == 0 && (!has || slices.Contains(owner.Groups, "haclient")) {
		t.Errorf("%+v", owner)
	}
}
