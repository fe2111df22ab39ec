package stories

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv"
)

// TestRejoinInTrouble: WAL that only the archive has, disks that are too small or become full, and a network that is
// cut.
func TestRejoinInTrouble(t *testing.T) {
	inLong(t)
	on(t, debian13Only, everywhere, testenv.Config{
		NoFencing: true,
		PostgreSQL: map[string]string{
			"archive_mode": "on", "archive_command": "mkdir -p " + archiveDir + " && cp %p " + archiveDir + "/%f",
		},
	}, func(s *story) {
		primary := s.primary()
		s.start(s.lab.Hosts()...)
		s.awaitRight(patience, primary)
		host := s.others(primary)[0]
		s.mark(host)
		s.chapter("archive", func(s *story) { s.rejoinByArchive(primary, host) })
		s.stopWithLock(host)
		s.ownDisks(host)
		s.must(s.lab.Unstandby(s.ctx, host))
		s.chapter("disk full", func(s *story) { s.diskFull(host) })
		s.chapter("network cut", func(s *story) { s.networkCut(primary, host) })
		s.chapter("pg_wal elsewhere", func(s *story) { s.copyWithWAL(primary, host) })
	})
}

// rejoinByArchive: the primary has lost the WAL that the host needs, and the archive has it, at last whole.
func (s *story) rejoinByArchive(primary, host string) {
	s.sql(host, "ALTER SYSTEM SET restore_command = 'cp "+archiveDir+"/%f %p'")
	s.loseSlot(primary, host)
	s.sql(primary, "SELECT pg_switch_wal()")
	end := s.sql(primary, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	s.await(patience, "all before "+end+" is archived", func() (bool, string) {
		out := s.ask(primary, "SELECT last_archived_wal FROM pg_stat_archiver")
		return out >= s.ask(primary, "SELECT pg_walfile_name('"+s.ask(primary, "SELECT pg_current_wal_lsn()")+"'::pg_lsn - 16777216)"), out
	})
	from := s.asOwner(host, "ls "+s.at.Data+"/pg_wal | grep -E '^[0-9A-F]{24}$' | tail -n 1")
	s.asOwner(host, "mkdir "+archiveDir)
	missing := ""
	for _, name := range s.archive(primary) {
		text, err := s.lab.Exec(s.ctx, primary, "cat", archiveDir+"/"+name)
		s.must(err)
		target := archiveDir + "/" + name
		if missing == "" && name > from && !strings.Contains(name, ".") {
			missing = name
			target += ".away"
		}
		s.must(s.lab.WriteFile(s.ctx, host, target, text, 0o600))
	}
	_, err := s.lab.Exec(s.ctx, host, "chown", "-R", "postgres:postgres", archiveDir)
	s.must(err)
	if out, status := s.rejoin(host, "--method", "archive", "--yes"); status != 1 || !strings.Contains(out, missing+" is not in the WAL archive") {
		s.t.Fatalf("an archive without %s: %d", missing, status)
	}
	s.asOwner(host, "cd "+archiveDir+"; mv "+missing+".away "+missing)
	s.comesBack(primary, host, "archive")
	s.neverCopied(host)
	s.asOwner(host, "rm -r "+archiveDir)
	s.sql(host, "ALTER SYSTEM RESET restore_command")
}

// ownDisks gives a stopped host's data and WAL a small file system each. The daemon is restarted for it: in the lab, a
// unit that runs does not see what is mounted later.
func (s *story) ownDisks(host string) {
	_, err := s.lab.Exec(s.ctx, host, "sh", "-ec", `mkdir /var/lib/pgnew /var/lib/pgwal
mount -t tmpfs -o size=600m,mode=755 tmpfs /var/lib/pgwal
mv `+s.at.Data+`/pg_wal /var/lib/pgwal/pg
ln -s /var/lib/pgwal/pg `+s.at.Data+`/pg_wal
chown -h postgres:postgres /var/lib/pgwal `+s.at.Data+`/pg_wal
mount -t tmpfs -o size=300m,mode=700 tmpfs /var/lib/pgnew
cp -a /var/lib/pgsql/. /var/lib/pgnew
mount --move /var/lib/pgnew /var/lib/pgsql
systemctl restart pgrex`)
	s.must(err)
}

// fill leaves little room on a file system, as a file of the name filler.
func (s *story) fill(host, folder string) {
	_, err := s.lab.Exec(s.ctx, host, "sh", "-ec", `fallocate -l $(($(df --output=avail -B1 `+folder+` | tail -n 1) - 4194304)) `+folder+`/filler`)
	s.must(err)
}

// failsAtCopy lets a copy fail once it is under way, and sees that nothing of the old data is destroyed, the room is
// given back, and Pacemaker is as found.
func (s *story) failsAtCopy(host, because string, happens func()) {
	s.t.Helper()
	begun := false
	w := s.watchRejoin(host, func(_ *watched, line string) bool {
		if !begun && progressing.MatchString(line) {
			begun = true
			happens()
		}
		return false
	}, "--method", "copy", "--max-rate", "2M")
	said := strings.Join(w.said, "\n")
	s.t.Logf("%s: copy fails, %d:\n%s", host, w.status, said)
	if w.status != 1 || !begun || !strings.Contains(w.said[len(w.said)-1], because) {
		s.t.Fatalf("the copy ends with %d, and does not say %q", w.status, because)
	}
	s.neverCopied(host)
	s.nothingOfRejoinLeft(host)
	if out, err := s.lab.Exec(s.ctx, host, "sh", "-c", "ls -d /var/lib/pgwal/*.pgrex"); err == nil {
		s.t.Errorf("this is left: %s", out)
	}
	s.await(patience, "the database is let back to "+host, func() (bool, string) {
		out, err := s.lab.Exec(s.ctx, host, "sh", "-c", "cibadmin --query --scope constraints | grep pgrex-stop || true")
		return err == nil && out == "", out
	})
}

func (s *story) diskFull(host string) {
	s.failsAtCopy(host, "No space left", func() { s.fill(host, "/var/lib/pgsql") })
	if out, status := s.rejoin(host, "--dry-run", "--method", "copy"); status != 1 || !strings.Contains(out, "make room") {
		s.t.Errorf("a copy without room: %d", status)
	}
	_, err := s.lab.Exec(s.ctx, host, "rm", "/var/lib/pgsql/filler")
	s.must(err)
}

// networkCut cuts the host off until the primary has given its connections up.
func (s *story) networkCut(primary, host string) {
	s.failsAtCopy(host, "pg_basebackup", func() {
		s.must(s.lab.Cut(s.ctx, host))
		s.await(patience, "the primary knows that "+host+" is gone", func() (bool, string) {
			out := s.ask(primary, "SELECT active FROM pg_replication_slots WHERE slot_name = '"+s.slot(host)+"'")
			return out == "f", out
		})
		s.must(s.lab.Heal(s.ctx, host))
	})
	s.await(patience, host+" is a member again", func() (bool, string) {
		out, status := s.asRoot(host, "rejoin", "--dry-run")
		return status == 2, out
	})
	s.comesBack(primary, host, "start")
	s.neverCopied(host)
}

// copyWithWAL: a copy of a host whose WAL has a file system of its own, twice, and once without room there.
func (s *story) copyWithWAL(primary, host string) {
	for _, leads := range []string{"/var/lib/pgwal/pg.pgrex", "/var/lib/pgwal/pg"} {
		s.stopWithLock(host)
		if leads == "/var/lib/pgwal/pg" {
			s.fill(host, "/var/lib/pgwal")
			if out, status := s.rejoin(host, "--yes", "--method", "copy"); status != 1 || !strings.Contains(out, "file system of pg_wal") {
				s.t.Errorf("a copy without room for its WAL: %d", status)
			}
			_, err := s.lab.Exec(s.ctx, host, "rm", "/var/lib/pgwal/filler")
			s.must(err)
		}
		if out, status := s.rejoin(host, "--yes", "--method", "copy"); status != 0 {
			s.t.Fatalf("rejoin ends with %d: %s", status, out)
		}
		if got := s.asOwner(host, "readlink "+s.at.Data+"/pg_wal; ls -d /var/lib/pgwal/*"); got != leads+"\n"+leads {
			s.t.Errorf("pg_wal leads to, and there is: %s", got)
		}
		s.awaitRight(patience, primary)
	}
	s.nothingOfRejoinLeft(host)
}
