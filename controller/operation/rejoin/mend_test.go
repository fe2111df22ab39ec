package rejoin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// asOwner runs a test again as postgres where it is root, because PostgreSQL's programs refuse to be; with all the
// programs of Debian's PostgreSQL, which other builds lack. It tells whether that was done.
func asOwner(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("/tmp", "pgrex-operation")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	again, err := os.OpenFile(filepath.Join(folder, "test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(again, program); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), again.Name(), "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PGREX_PG_") }), "HOME="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	t.Logf("as postgres:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return true
}

// caseOf is a host that is to follow another one, without a cluster.
func caseOf(t *testing.T, host, primary *pgserver.Server) *Case {
	t.Helper()
	c := &Case{Primary: "pm01", Slot: "mine", Conninfo: primary.Conninfo()}
	c.Place = datadir.Place{Data: host.Dir + "/data", Tmp: host.Dir, Bin: "/usr/lib/postgresql/15/bin"}
	if err := errors.Join(c.compare(t.Context()), c.hindrances(t.Context())); err != nil {
		t.Fatal(err)
	}
	return c
}

// The rate is known soon after a failover, too: the new primary has hardly any WAL of its own timeline, and the segment
// before is of the old one.
func TestRateAfterFailover(t *testing.T) {
	if asOwner(t) {
		return
	}
	host := pgserver.New(t)
	primary := host.Standby("wal_keep_size = 1GB")
	host.SQL("SELECT pg_switch_wal()")
	host.SQL("CREATE TABLE shared AS SELECT 1")
	host.CatchUp(primary)
	primary.Promote()
	host.SQL("CREATE TABLE parted AS SELECT 1")
	host.Stop("fast")
	if c := caseOf(t, host, primary); !c.Return.NeedsRewind() || c.Return.Rate == 0 {
		t.Errorf("needs a rewind: %t, at %d bytes a second", c.Return.NeedsRewind(), c.Return.Rate)
	}
}

// moveWALAway moves the WAL of a stopped server, and leaves a link.
func moveWALAway(t *testing.T, s *pgserver.Server) {
	t.Helper()
	wal := filepath.Join(s.Dir, "data", "pg_wal")
	if err := os.Rename(wal, s.Dir+"/wal"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../wal", wal); err != nil {
		t.Fatal(err)
	}
}

func there(paths ...string) (found []string) {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

func followsThrough(t *testing.T, host, primary *pgserver.Server) {
	t.Helper()
	host.Follow(primary)
	primary.Await("it streams through its slot", func() bool {
		return primary.SQL("SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'") == "t"
	})
}

// TestSameTimelineTwice: two hosts that were promoted from the same WAL are on the same timeline by its number and
// beginning.
func TestSameTimelineTwice(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t)
	one, other := primary.Standby(), primary.Standby()
	for _, standby := range []*pgserver.Server{one, other} { // who is not connected yet would not get the end
		primary.CatchUp(standby)
	}
	primary.Stop("fast")
	one.Promote()
	other.Promote()
	one.SQL("CREATE TABLE here AS SELECT 1")
	other.SQL("CREATE TABLE there AS SELECT 1")
	other.WriteWAL(1)
	one.Stop("fast")
	c := caseOf(t, one, other)
	if local := c.Return.Local; c.Return.Parted() != local.End || !c.Return.Differs || c.Return.Fits() || c.Return.NeedsRewind() {
		t.Errorf("its WAL up to %s parts at %s; it differs: %t, fits: %t", local.End, c.Return.Parted(), c.Return.Differs, c.Return.Fits())
	}
}

// TestNoRewindRequired: two hosts that were promoted from different WAL are on timelines of the same number. pg_rewind
// takes them for one, ends well and changes nothing: these data are not mended.
func TestNoRewindRequired(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t)
	one, other := primary.Standby(), primary.Standby()
	one.Stop("fast")
	primary.WriteWAL(1)
	primary.CatchUp(other)
	primary.Stop("fast")
	other.Promote()
	one.Start()
	one.Promote()
	one.SQL("CREATE TABLE here AS SELECT 1")
	one.Stop("fast")
	c := caseOf(t, one, other)
	if c.Return.Fits() || c.Return.NeedsRewind() || c.Return.Parted() == c.Return.Local.End {
		t.Errorf("it fits: %t, a rewind would do: %t; its WAL up to %s parts at %s", c.Return.Fits(), c.Return.NeedsRewind(), c.Return.Local.End, c.Return.Parted())
	}
	r := &Rejoin{Report: func(line string) { t.Log(line) }}
	err := fakes.Do(t.Context(), t, r.rewind(c))
	if !errors.Is(err, ErrNoRewind) || !strings.Contains(err.Error(), "no rewind required") || c.Place.Rewinding() != datadir.NotBegun {
		t.Errorf("it ends with %v; the journal says %d", err, c.Place.Rewinding())
	}
}

// TestMend: WAL that only the archive has, a copy and a rewind of a host whose WAL is elsewhere, on real servers.
func TestMend(t *testing.T) {
	if asOwner(t) {
		return
	}
	r := &Rejoin{Archive: true, Report: func(line string) { t.Log(line) }}
	archive := t.TempDir()
	restore := "restore_command = 'cp " + archive + "/%f %p'"
	primary := pgserver.New(t, "archive_mode = on", "archive_command = 'cp %p "+archive+"/%f'", restore)
	host := primary.Standby(restore, "primary_slot_name = 'other'")
	host.Stop("fast")
	primary.WriteWAL(100)
	primary.SQL("SELECT pg_switch_wal()")
	primary.Await("the WAL is archived", func() bool { // until then the primary keeps it
		return primary.SQL("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'") == "0"
	})
	primary.SQL("CHECKPOINT")
	c := caseOf(t, host, primary)
	if !c.Return.NeedsArchive() {
		t.Fatalf("the primary has it: %+v", c.Return)
	}
	if err := r.StillFits(c).Do(t.Context()); err != nil {
		t.Errorf("data that are a part of the primary's: %v", err)
	}
	first := datadir.SegmentName(1, c.Return.Local.End.Segment(c.Return.Local.Segment)+1, c.Return.Local.Segment)
	primary.Await("the WAL is archived", func() bool { return len(there(filepath.Join(archive, first))) == 1 })
	tried := func() string {
		t.Helper()
		c.Return.NoArchive, c.Return.ArchiveBytes = "", 0
		if err := r.tryArchive(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return c.Return.NoArchive
	}
	primary.Await("all of the WAL is archived", func() bool { return tried() == "" })
	if c.Return.ArchiveBytes == 0 || c.Place.Left() {
		t.Errorf("%s were tried; something is left: %t", model.FormatBytes(c.Return.ArchiveBytes), c.Place.Left())
	}
	if err := os.Rename(filepath.Join(archive, first), archive+"/away"); err != nil {
		t.Fatal(err)
	}
	if why := tried(); !strings.Contains(why, first+" is not in the WAL archive") {
		t.Errorf("%s is not missed: %q", first, why)
	}

	moveWALAway(t, host)
	c = caseOf(t, host, primary)
	steps := append(c.reserve(), r.copy(c)...)
	if err := fakes.Do(t.Context(), t, steps); err != nil {
		t.Fatal(err)
	}
	// A copy ends with a segment, and has no further one.
	if l := caseOf(t, host, primary).Return.Local; l.Unreadable != "" || l.End == 0 || uint64(l.End)%l.Segment != 0 {
		t.Errorf("the WAL of the copy ends at %s: %s", l.End, l.Unreadable)
	}
	followsThrough(t, host, primary)
	was, err := os.Stat(c.Place.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := fakes.Step(t, steps, "swap").Do(t.Context()); err == nil || !strings.Contains(err.Error(), "was started here meanwhile") {
		t.Errorf("the data of a server that runs are swapped: %v", err)
	}
	if now, err := os.Stat(c.Place.Data); err != nil || !os.SameFile(now, was) {
		t.Errorf("its data folder is another one: %v", err)
	}
	if err := c.Place.Finish(t.Context()); err != nil || len(there(host.Dir+"/wal", c.Place.Beside())) != 0 {
		t.Errorf("there is still %q, %v", there(host.Dir+"/wal", c.Place.Beside()), err)
	}
	if got, err := c.Place.WALFolder(); err != nil || got != host.Dir+"/wal.pgrex" {
		t.Errorf("its WAL is in %s, %v", got, err)
	}

	host.Promote()
	host.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
	primary.SQL("CREATE TABLE parted AS SELECT 1")
	primary.Stop("immediate")
	moveWALAway(t, primary)
	c = caseOf(t, primary, host)
	if !c.Return.NeedsRewind() {
		t.Fatalf("there is nothing to rewind: %+v", c.Return)
	}
	if err := r.StillFits(c).Do(t.Context()); err == nil {
		t.Error("data that have parted still fit")
	}
	unreached := *c
	unreached.Conninfo += " port=1"
	if err := fakes.Step(t, r.rewind(&unreached), "dry-rewind").Do(t.Context()); err == nil || errors.Is(err, ErrNoRewind) {
		t.Errorf("a primary that cannot be reached is a reason for a copy: %v", err)
	}
	noRewindWAL := func(parted model.LSN) string {
		t.Helper()
		lost := *c
		lost.Return.Local.Timelines = []model.Timeline{{ID: 1}, {ID: 9, Begin: parted}}
		why, err := r.noRewindWAL(t.Context(), &lost)
		if err != nil {
			t.Fatal(err)
		}
		// After pg_rewind's dry run it is looked at again.
		err = fakes.Do(t.Context(), t, fakes.UpTo(t, r.rewind(&lost), "rewind-wal"))
		if again := errors.Is(err, ErrNoRewind); again != (why != "") || err != nil && !again {
			t.Errorf("%q at first, and then: %v", why, err)
		}
		return why
	}
	// The new primary was copied after 100 segments: it has not the WAL from before.
	const early = 0x2000028
	if why := noRewindWAL(early); !strings.Contains(why, "no longer has the WAL") || !strings.Contains(why, first+" is not in the WAL archive") {
		t.Errorf("a rewind to before the WAL that the primary or the archive has: %q", why)
	}
	if err := os.Rename(archive+"/away", filepath.Join(archive, first)); err != nil {
		t.Fatal(err)
	}
	if why := noRewindWAL(early); why != "" {
		t.Errorf("what the primary no longer has is in the archive, but: %s", why)
	}
	if why := noRewindWAL(c.Return.Parted()); why != "" {
		t.Errorf("a rewind to what the primary has: %s", why)
	}
	// After a crash another process has the number of the server of then.
	primary.Start()
	primary.SQL("CREATE TABLE again AS SELECT 1")
	primary.Stop("immediate")
	other := exec.CommandContext(t.Context(), "sleep", "60") // killed when the test ends
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Wait() })
	lock := fmt.Sprintf("%d\n%s\n", other.Process.Pid, c.Place.Data)
	if err := os.WriteFile(c.Place.PIDFile(), []byte(lock), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fakes.Do(t.Context(), t, r.rewind(c)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Place.WALFolder(); err != nil || got != primary.Dir+"/wal" {
		t.Errorf("its WAL is in %s, %v", got, err)
	}
	followsThrough(t, primary, host)
}

// Settings that are lower than the primary's are seen before anything is changed: no way back would lead anywhere.
func TestTooLowForThePrimary(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t)
	host := primary.Standby()
	host.Stop("fast")
	if c := caseOf(t, host, primary); c.Return.TooLow != "" {
		t.Errorf("with the primary's settings: %s", c.Return.TooLow)
	}
	host.Configured("max_locks_per_transaction = 10")
	c := caseOf(t, host, primary)
	if !strings.Contains(c.Return.TooLow, "lower than the primary's (max_locks_per_transaction = 10, but ") {
		t.Errorf("with lower settings: %q", c.Return.TooLow)
	}
	for _, rung := range Ladder(c.Return) {
		if rung.Possible {
			t.Errorf("%s is possible", rung.Method)
		}
	}
}
