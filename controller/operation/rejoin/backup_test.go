package rejoin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

const programs = "/usr/lib/postgresql/15/bin/"

// tarOf makes a backup as pg_basebackup -Ft does, without WAL, and unpacks it.
func tarOf(p *parted, of *pgserver.Server, data string) {
	p.t.Helper()
	folder := p.t.TempDir()
	p.run(programs+"pg_basebackup", "-D", folder, "-Ft", "-X", "none", "--checkpoint=fast", "-d", of.Conninfo())
	p.run("mkdir", "-m", "700", data)
	p.run("tar", "-xf", folder+"/base.tar", "-C", data)
	p.run("cp", folder+"/backup_manifest", data)
}

// handMade makes a backup with PostgreSQL's SQL functions, and leaves out pg_wal.
func handMade(p *parted, of *pgserver.Server, data string) {
	p.t.Helper()
	label := copyBetween(of, data, "")
	if err := os.WriteFile(data+"/backup_label", []byte(label), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// copyBetween copies the files, runs a command, and returns the label of the backup.
func copyBetween(of *pgserver.Server, data, then string) (label string) {
	const script = `SELECT pg_backup_start('by hand', true);
\! cp -a %[1]s %[2]s && rm -r %[2]s/pg_wal %[2]s/postmaster.pid %[2]s/pg_replslot && mkdir -p -m 700 %[2]s/pg_wal/archive_status %[2]s/pg_replslot
%[3]s
SELECT labelfile FROM pg_backup_stop(false);`
	said := of.SQL(fmt.Sprintf(script, of.Dir+"/data", data, then))
	_, label, _ = strings.Cut(said, "\n")
	return label + "\n"
}

// newRestored is a host with data restored from a backup of a server, with what a restore to a point in time leaves.
func newRestored(t *testing.T, make func(*parted, *pgserver.Server, string), of, host, primary *pgserver.Server, settings ...string) *parted {
	t.Helper()
	fakes.Tools(t, "never")
	p := &parted{t: t, host: host, primary: primary, files: map[string]string{}}
	p.r = &Rejoin{Observer: fakes.Lone(), Archive: true, Report: func(line string) { p.t.Log(line) }}
	p.engine = fakes.Engine(t, p.r.Observer)
	p.run("rm", "-rf", host.Dir+"/data", host.Dir+"/kept")
	make(p, of, host.Dir+"/data")
	host.Configured("port = "+fmt.Sprint(host.Port), "unix_socket_directories = '"+host.Dir+"'", "archive_mode = off")
	auto := append([]string{
		"primary_conninfo = 'host=elsewhere password=hidden-word'", "primary_slot_name = 'other'", "work_mem = '8MB'",
	}, settings...)
	p.run("sh", "-c", `printf '%s\n' "$@" >>`+host.Dir+`/data/postgresql.auto.conf; : >`+host.Dir+`/data/recovery.signal`, "sh", strings.Join(auto, "\n"))
	for _, name := range []string{"postgresql.conf", "pg_hba.conf"} {
		text, err := os.ReadFile(filepath.Join(host.Dir, "data", name))
		if err != nil {
			t.Fatal(err)
		}
		p.files[name] = string(text)
	}
	p.keep()
	return p
}

// why returns the reason why a way back is not possible.
func (p *parted) why(way Method) string {
	p.t.Helper()
	c := &Case{Place: p.place(), Primary: "pm02", Slot: "mine", Conninfo: p.primary.Conninfo()}
	if err := p.r.weigh(p.t.Context(), c); err != nil {
		return err.Error()
	}
	for _, rung := range c.Ladder {
		if rung.Method == way && !rung.Possible {
			return rung.Why
		}
	}
	return ""
}

// toThePast has the settings that pgBackRest writes for a restore to a point in time. Here that time is long past.
var toThePast = []string{"recovery_target_time = '2020-01-01 00:00:00+00'", "recovery_target_action = 'promote'", "recovery_target_timeline = 'current'"}

// TestRestored: data restored from a backup of the primary or of a standby, made by pg_basebackup or by hand, without
// WAL. They come back with the primary's WAL, and, once the primary no longer has all of it, with the archive's.
func TestRestored(t *testing.T) {
	if asOwner(t) {
		return
	}
	archive := t.TempDir()
	primary := pgserver.New(t, "archive_mode = on", "archive_command = 'cp %p "+archive+"/%f'")
	standby, host := primary.Standby("archive_mode = off"), primary.Standby()
	host.Stop("fast")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1")
	primary.CatchUp(standby)
	restore := "restore_command = 'cp " + archive + "/%f %p'"
	for _, test := range []struct {
		name string
		make func(*parted, *pgserver.Server, string)
		of   *pgserver.Server
	}{
		{"pg_basebackup of the primary", tarOf, primary}, {"pg_basebackup of a standby", tarOf, standby},
		{"by hand of the primary", handMade, primary}, {"by hand of a standby", handMade, standby},
	} {
		t.Run(test.name, func(t *testing.T) {
			primary.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
			p := newRestored(t, test.make, test.of, host, primary, append(toThePast, restore)...)
			primary.SQL("INSERT INTO of_the_primary VALUES (2)")
			for _, way := range []Method{MethodStart, MethodArchive, MethodRewind} {
				if why := p.why(way); !strings.Contains(why, "were restored from a backup") {
					t.Errorf("%s is not possible: %q", way, why)
				}
			}
			if err := p.place().Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "need the primary's WAL") {
				t.Errorf("they recover alone: %v", err)
			}
			job := p.job("auto")
			text := fakes.Step(t, job.Steps, "follow").String()
			for _, want := range append(toThePast[:1:1], "recovery.signal", "recovery_target_timeline = 'current'", "primary_conninfo of") {
				if !strings.Contains(text, want) || strings.Contains(text, "hidden-word") {
					t.Errorf("the plan says %q, and not %s", text, want)
				}
			}
			if err := p.engine.Do(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			if left := there(p.place().Data+"/recovery.signal", p.place().Data+"/standby.signal"); len(left) != 1 || !strings.HasSuffix(left[0], "standby.signal") {
				t.Errorf("there is %q", left)
			}
			auto, err := os.ReadFile(p.place().Data + "/postgresql.auto.conf")
			if err != nil || !strings.Contains(string(auto), restore) || !strings.Contains(string(auto), "work_mem = '8MB'") ||
				strings.Contains(string(auto), "elsewhere") {
				t.Errorf("the restored settings are %q, %v", auto, err)
			}
			p.isBack()

			// The primary no longer has the WAL from the beginning of the backup on, and the slot holds none.
			p.reset()
			primary.SQL("SELECT pg_drop_replication_slot('mine')")
			primary.Await("the primary has removed the WAL", func() bool {
				primary.SQL("SELECT pg_switch_wal()")
				primary.WriteWAL(20)
				return p.weighed().Return.NoWAL != ""
			})
			primary.Await("all of it is archived", func() bool { return p.why(MethodRestored) == "" })
			if err := p.engine.Do(t.Context(), p.job(string(MethodRestored))); err != nil {
				t.Fatal(err)
			}
			p.isBack()
			primary.SQL("SELECT pg_drop_replication_slot('mine')")

			p.reset()
			p.run("sh", "-c", "sed -i /restore_command/d "+p.place().Data+"/postgresql.auto.conf")
			if why := p.why(MethodRestored); !strings.Contains(why, "no longer has it") || !strings.Contains(why, "there is no restore_command") {
				t.Errorf("without the archive: %q", why)
			}
		})
	}
}

// weighed returns the case that rejoin finds on the host.
func (p *parted) weighed() *Case {
	p.t.Helper()
	c := &Case{Place: p.place(), Primary: "pm02", Slot: "mine", Conninfo: p.primary.Conninfo()}
	if err := p.r.weigh(p.t.Context(), c); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// TestRestoredRefused: a rejoin that could not come to its end does not begin, and says why. Data that were restored
// again completely are not refused.
func TestRestoredRefused(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t, "wal_keep_size = 1GB")
	host := primary.Standby()
	host.Stop("fast")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1; SELECT pg_create_physical_replication_slot('mine', true)")
	spaces := t.TempDir()
	primary.SQL("SET allow_in_place_tablespaces = off; CREATE TABLESPACE elsewhere LOCATION '" + spaces + "'; CREATE TABLE there TABLESPACE elsewhere AS SELECT 1")
	p := newRestored(t, tarOf, primary, host, primary)
	data := p.place().Data
	version, err := filepath.Glob(spaces + "/PG_*")
	if err != nil || len(version) != 1 {
		t.Fatalf("the tablespace has %q, %v", version, err)
	}
	table := strings.TrimSpace(primary.SQL("SELECT pg_relation_filepath('of_the_primary')"))
	for name, test := range map[string]struct{ change, want string }{
		"pg_control":         {"rm global/pg_control", "has not come to its end: backup_label is there, and global/pg_control"},
		"pgBackRest's":       {"rm global/pg_control backup_label && touch backup.manifest", "has not come to its end: backup.manifest is there"},
		"a file":             {"rm " + table, "the restore is not whole: " + table + ", which backup_manifest names: "},
		"the end of a file":  {"truncate -s 1 " + table, table + ", which backup_manifest names: it has 1 bytes, not 8192"},
		"a tablespace":       {"sed -i s,/,/none/, tablespace_map", "belongs in /none" + spaces},
		"a linked one":       {"rm tablespace_map backup_manifest && ln -s /none pg_tblspc/7", "the tablespace 7 belongs in /none"},
		"a tablespace's":     {"mkdir ../other && sed -i 's, .*, '$PWD'/../other,' tablespace_map", "nothing was restored there"},
		"another database's": {"sed -i 's/^START W.*/START WAL/' backup_label", "does not say where the backup begins"},
		"an incremental one": {"echo 'INCREMENTAL FROM LSN: 0/3000028' >>backup_label", "pg_combinebackup"},
		"a standby's":        {"sed -i 's/FROM: primary/FROM: standby/' backup_label", "the backup is of a standby, but the control file is not"},
		"another timeline's": {"sed -i 's/file 00000001/file 00000007/; s/LINE: 1/LINE: 7/' backup_label", "is of timeline 7, which is not in the primary's history"},
		"two timelines'":     {"sed -i 's/LINE: 1/LINE: 7/' backup_label", "names the timelines 1 and 7"},
		"WAL of later":       {"touch pg_wal/0000000100000000000000FF", "move what is in pg_wal away"},
		"one yet to come":    {"sed -i 's,[0-9A-F]*/[0-9A-F]*,AA/28,' backup_label", "it has WAL up to AA/28"},
		"another checkpoint": {"sed -i 's,^CHECKPOINT L.*,CHECKPOINT LOCATION: 0/2000028,' backup_label", "does not have the checkpoint at 0/2000028"},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.reset()
			p.run("sh", "-c", "cd "+data+" && "+test.change)
			if why := p.why(MethodRestored); !strings.Contains(why, test.want) {
				t.Errorf("it says %q, and not %q", why, test.want)
			}
			p.run("rm", "-rf", p.host.Dir+"/other")
		})
	}
	p.t = t
	p.reset()
	if why := p.why(MethodRestored); why != "" {
		t.Errorf("what is whole is refused: %s", why)
	}
}

// TestRestoredAfterFailover: a backup from before a failover recovers with the new primary's WAL, if it had ended by
// then. The backup's history file in the archive says so. A backup of another host that was promoted does not recover
// with that WAL.
func TestRestoredAfterFailover(t *testing.T) {
	if asOwner(t) {
		return
	}
	archive := t.TempDir()
	old := pgserver.New(t, "archive_mode = on", "archive_command = 'cp %p "+archive+"/%f'", "wal_keep_size = 1GB")
	primary, other, host := old.Standby("archive_command = ''"), old.Standby("archive_mode = off"), old.Standby()
	host.Stop("fast")
	old.SQL("CREATE TABLE of_the_primary AS SELECT 1")
	old.CatchUp(other)
	// The backup ends before the failover, or after it. Two more folders have other backups.
	early, late := t.TempDir()+"/early", t.TempDir()+"/late"
	earlyLabel := copyBetween(old, early, "")
	old.CatchUp(primary)
	lateLabel := copyBetween(old, late, `\! `+programs+`pg_ctl -D `+primary.Dir+"/data -m fast -w stop >/dev/null\nCREATE TABLE parted AS SELECT 1;")
	old.SQL("SELECT pg_switch_wal()")
	old.Await("the ends of the backups are archived", func() bool {
		ends, err := filepath.Glob(archive + "/*.backup")
		return err == nil && len(ends) == 2
	})
	old.Stop("fast")
	primary.Start()
	primary.Promote()
	primary.SQL("SELECT pg_create_physical_replication_slot('mine', true); CHECKPOINT")
	of := func(folder, label string) func(*parted, *pgserver.Server, string) {
		return func(p *parted, _ *pgserver.Server, data string) {
			p.run("cp", "-a", folder, data)
			if err := os.WriteFile(data+"/backup_label", []byte(label), 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	restore := "restore_command = 'cp " + archive + "/%f %p'"
	p := newRestored(t, of(late, lateLabel), old, host, primary, restore)
	if why := p.why(MethodRestored); !strings.Contains(why, "the backup goes on to") {
		t.Errorf("a backup that ended after the failover: %q", why)
	}
	p = newRestored(t, of(early, earlyLabel), old, host, primary)
	if why := p.why(MethodRestored); !strings.Contains(why, "it is not known whether the backup had ended by then") {
		t.Errorf("a backup of which nobody knows when it ended: %q", why)
	}
	p = newRestored(t, of(early, earlyLabel), old, host, primary, restore)
	if why := p.why(MethodRestored); !strings.Contains(why, "would follow the WAL archive away from the primary") {
		t.Errorf("an archive with what the old primary has written since: %q", why)
	}
	primary.Configure("archive_command = 'cp %p " + archive + "/%f'")
	primary.SQL("SELECT pg_switch_wal()")
	primary.Await("the archive has the new timeline", func() bool { return p.why(MethodRestored) == "" })
	if err := p.engine.Do(t.Context(), p.job("auto")); err != nil {
		t.Fatal(err)
	}
	p.isBack()

	// The other host does not know of the failover.
	other.Promote()
	other.SQL("CREATE TABLE apart AS SELECT 1; CHECKPOINT")
	p = newRestored(t, tarOf, other, host, primary, restore)
	if why := p.why(MethodRestored); why == "" {
		t.Errorf("a backup of another host that was promoted: %q", why)
	} else {
		t.Log(why)
	}
}

// TestRestoredKilled: a rejoin of restored data that is killed anywhere is planned again from what is there, and brings
// the host back.
func TestRestoredKilled(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t, "wal_keep_size = 1GB")
	host := primary.Standby()
	host.Stop("fast")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1; SELECT pg_create_physical_replication_slot('mine', true)")
	p := newRestored(t, tarOf, primary, host, primary, toThePast...)
	for _, id := range []string{"follow", "slot-name"} {
		for _, at := range fakes.Points {
			t.Run(id+" "+string(at), func(t *testing.T) {
				p.t = t
				p.reset()
				fakes.Killed(t, p.engine, p.job("auto"), id, at)
				if err := p.engine.Do(t.Context(), p.job(string(MethodRestored))); err != nil {
					t.Fatal(err)
				}
				p.isBack()
			})
		}
	}
	p.t = t
}

// TestRestoredStarted: the server has begun to replay restored data, and was stopped before it had the end of the
// backup. backup_label is gone, but the control file says so. The data still recover, even if the WAL that was replayed
// is gone.
func TestRestoredStarted(t *testing.T) {
	if asOwner(t) {
		return
	}
	primary := pgserver.New(t, "wal_keep_size = 1GB")
	host := primary.Standby()
	host.Stop("fast")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1; SELECT pg_create_physical_replication_slot('mine', true)")
	p := newRestored(t, func(p *parted, of *pgserver.Server, data string) {
		label := copyBetween(of, data, "CREATE TABLE more AS SELECT 1; SELECT pg_switch_wal() \\g /dev/null\nCREATE TABLE most AS SELECT 1;")
		name := label[strings.Index(label, "(file ")+6:][:24]
		p.run("cp", of.Dir+"/data/pg_wal/"+name, data+"/pg_wal")
		if err := os.WriteFile(data+"/backup_label", []byte(label), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}, primary, host, primary)
	data := p.place().Data
	p.run("sh", "-c", "mv "+data+"/recovery.signal "+data+"/standby.signal && sed -i /primary_/d "+data+"/postgresql.auto.conf "+data+"/postgresql.conf")
	host.Launch()
	host.Await("it has replayed what is here", func() bool {
		return host.Logged("waiting for WAL to become available") && len(there(data+"/backup_label")) == 0
	})
	host.Stop("immediate")
	for _, test := range []struct{ change, want string }{
		{"true", "the primary has the WAL from 0/3000000 on"}, {"rm pg_wal/0*", "the backup begins at 0/2000028, and the primary has the WAL from 0/2000028 on"},
	} {
		p.run("sh", "-c", "cd "+data+" && "+test.change)
		c := p.weighed()
		rung, err := c.Choose("auto")
		if err != nil || rung.Method != MethodRestored || !strings.Contains(rung.Why, test.want) {
			t.Errorf("the way back is %s: %s (%v), and not: %s", rung.Method, rung.Why, err, test.want)
		}
	}
	p.files = nil
	if err := p.engine.Do(t.Context(), p.job("auto")); err != nil {
		t.Fatal(err)
	}
	p.isBack()
}
