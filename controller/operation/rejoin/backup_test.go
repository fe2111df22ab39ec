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

// handMade makes a backup by the functions that SQL has for it, and leaves out pg_wal.
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
	p.run("cp", "-a", host.Dir+"/data", host.Dir+"/kept")
	return p
}

// why is why a way back is not possible.
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

// toThePast is what pgBackRest writes where it restores to a point in time, which is over here.
var toThePast = []string{"recovery_target_time = '2020-01-01 00:00:00+00'", "recovery_target_action = 'promote'", "recovery_target_timeline = 'current'"}

// TestRestored: data restored from a backup of the primary or of a standby, made by pg_basebackup or by hand, without
// WAL. They come back with the primary's WAL, and, once it has not all of it, with the archive's.
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

// weighed is what is found of the host.
func (p *parted) weighed() *Case {
	p.t.Helper()
	c := &Case{Place: p.place(), Primary: "pm02", Slot: "mine", Conninfo: p.primary.Conninfo()}
	if err := p.r.weigh(p.t.Context(), c); err != nil {
		p.t.Fatal(err)
	}
	return c
}
