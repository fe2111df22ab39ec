package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv"
)

const archiveDir = "/var/lib/pgsql/archive"

// TestArchivePrune: of the archive goes what nobody needs, and a host that was away comes back.
func TestArchivePrune(t *testing.T) {
	inLong(t)
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}, PostgreSQL: map[string]string{
		"archive_mode": "on", "archive_command": "mkdir -p " + archiveDir + " && cp %p " + archiveDir + "/%f",
	}}, func(s *story) {
		primary := s.primary()
		other, away := s.others(primary)[0], s.others(primary)[1]
		s.start(s.lab.Hosts()...)
		s.awaitRight(patience, primary)
		s.mark(away)
		s.load(primary, 50<<20)
		s.chapter("a host that is away, and a backup", func(s *story) {
			s.says(away, 0, "is stopped", "stop", "--yes")
			s.load(primary, 100<<20)
			_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", primary, s.at.Bin+"/pg_basebackup", "-D", "/var/lib/pgsql/backup",
				"--checkpoint=fast", "--no-sync")
			s.must(err)
			s.load(primary, 50<<20)
			s.awaitArchived(primary)
			s.says(primary, 0, "", "pause")
			s.says(primary, 1, "pgrex is paused", "archive", "prune", "--dry-run")
			s.says(primary, 0, "", "resume")
			for _, host := range []string{primary, other} {
				s.stop(host) // no slot moves while it is looked at
			}
			s.says(primary, 1, "nothing is removed: "+away+" is away, and nobody knows what it needs: no pgrex answers", "archive", "prune", "--yes")
			s.start(primary) // a primary moves none
			slot := s.sql(primary, fmt.Sprintf("SELECT pg_walfile_name(least('%s'::pg_lsn, '%s'))", s.restart(primary, away), s.restart(other, away)))
			s.touch(primary, "README", "00000001.history", "000000010000000000000000.gz")
			before := s.archive(primary)
			s.says(primary, 2, "the slot "+s.slot(away)+" on "+primary, "archive", "prune", "--dry-run")
			s.says(primary, 1, "there is no terminal", "archive", "prune")
			if now := s.archive(primary); strings.Join(now, " ") != strings.Join(before, " ") {
				s.t.Errorf("a dry run has changed the archive: %v, before %v", now, before)
			}
			s.says(primary, 0, "remove ", "archive", "prune", "--yes")
			s.left(primary, before, slot, "README")
			s.says(primary, 0, "every file is needed", "archive", "prune", "--yes")
			s.start(other)
		})
		s.chapter("in doubt", func(s *story) { s.pruneInDoubt(primary, other, away) })
		s.chapter("it comes back", func(s *story) {
			s.says(away, 0, "is started", "start", "--yes")
			s.neverCopied(away)
			s.awaitRight(patience, primary)
		})
		s.chapter("the backup is kept, until told otherwise", func(s *story) {
			s.load(primary, 50<<20)
			s.awaitArchived(primary)
			for _, host := range s.lab.Hosts() {
				s.awaitSlotsPast(host, primary)
			}
			backup := strings.Fields(s.onHost(primary, "sed -n 's/^START WAL LOCATION:.*file \\([0-9A-F]*\\).*/\\1/p' /var/lib/pgsql/backup/backup_label"))[0]
			before := s.archive(primary)
			s.says(primary, 0, "the backup of ", "archive", "prune", "--yes")
			s.left(primary, before, backup, "README")
			s.says(primary, 0, "the backup in /var/lib/pgsql/backup", "archive", "prune", "--backup", "/var/lib/pgsql/backup", "--yes")
			s.left(primary, before, backup, "README")
			s.says(primary, 1, "make the folder first", "archive", "prune", "--keep-backups", "0", "--move", "/var/lib/pgsql/old", "--yes")
			s.onHost(primary, "mkdir /var/lib/pgsql/old && chown postgres: /var/lib/pgsql/old")
			before = s.archive(primary)
			s.says(primary, 0, "move ", "archive", "prune", "--keep-backups", "0", "--move", "/var/lib/pgsql/old", "--yes")
			moved, now := strings.Fields(s.onHost(primary, "ls /var/lib/pgsql/old")), s.archive(primary)
			if len(moved) == 0 || len(moved)+len(now) != len(before) {
				s.t.Errorf("%v were there, %v are moved, %v are left", before, moved, now)
			}
			s.t.Logf("%d files moved, %d left", len(moved), len(now))
		})
		s.chapter("from a standby", func(s *story) {
			s.onHost(other, "mkdir "+archiveDir+" && chown postgres: "+archiveDir)
			s.says(other, 0, "the slot "+s.slot(primary)+" on "+away, "archive", "prune", "--yes")
		})
	})
}

// pruneInDoubt: one member does not answer, another's slot is gone. Nothing is removed.
func (s *story) pruneInDoubt(primary, other, away string) {
	s.must(s.lab.Freeze(s.ctx, other))
	out, status := s.operate(primary, "archive", "prune", "--yes")
	s.must(s.lab.Thaw(s.ctx, other))
	if status != 1 || !strings.Contains(out, "nothing is removed: "+other+" runs and could not be asked") {
		s.t.Errorf("with a member that does not answer it ends with %d", status)
	}
	s.stop(primary)
	lsn := s.restart(primary, away)
	s.sql(primary, fmt.Sprintf("SELECT pg_copy_physical_replication_slot('%s', 'kept')", s.slot(away)))
	s.sql(primary, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", s.slot(away)))
	s.says(primary, 1, "--give-up "+away, "archive", "prune", "--yes")
	s.says(primary, 0, "from "+lsn+" on: the slot kept on "+primary, "archive", "prune", "--give-up", away, "--yes")
	s.sql(primary, fmt.Sprintf("SELECT pg_copy_physical_replication_slot('kept', '%s')", s.slot(away)))
	s.sql(primary, "SELECT pg_drop_replication_slot('kept')")
	s.start(primary)
	s.awaitStreams(primary, other)
}

// restart is from where on a host's slot holds WAL for another one.
func (s *story) restart(host, owner string) string {
	s.t.Helper()
	return s.sql(host, fmt.Sprintf("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '%s'", s.slot(owner)))
}

func (s *story) onHost(host, script string) string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "sh", "-c", script)
	s.must(err)
	return out
}

func (s *story) archive(host string) []string {
	return strings.Fields(s.onHost(host, "ls "+archiveDir))
}

func (s *story) touch(host string, names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.onHost(host, "touch "+archiveDir+"/"+name)
	}
}

// left sees that of the files that were there just those are left whose segment is not before the first one needed, the
// histories, and the others named.
func (s *story) left(host string, before []string, first string, others ...string) {
	s.t.Helper()
	var want []string
	for _, name := range before {
		if len(name) >= 24 && name[8:24] >= first[8:24] || strings.HasSuffix(name, ".history") || slices.Contains(others, name) {
			want = append(want, name)
		}
	}
	now := s.archive(host)
	if strings.Join(now, " ") != strings.Join(want, " ") {
		s.t.Errorf("needed from %s on: left are %v, not %v", first, now, want)
	}
	s.t.Logf("of %d files %d are left", len(before), len(now))
}

// awaitArchived waits until all that was written is in the archive.
func (s *story) awaitArchived(primary string) {
	s.t.Helper()
	last := s.sql(primary, "SELECT pg_walfile_name(pg_switch_wal())")
	s.await(patience, last+" is archived", func() (bool, string) {
		out := s.ask(primary, fmt.Sprintf("SELECT last_archived_wal >= '%s', last_failed_wal FROM pg_stat_archiver", last))
		return strings.HasPrefix(out, "t"), out
	})
}

// awaitSlotsPast waits until a host's slots hold nothing that the backup begins with any more.
func (s *story) awaitSlotsPast(host, primary string) {
	s.t.Helper()
	s.await(patience, "the slots on "+host+" move on", func() (bool, string) {
		s.ask(primary, "CHECKPOINT")
		s.ask(host, "CHECKPOINT")
		out := s.ask(host, "SELECT bool_and(restart_lsn > (SELECT redo_lsn FROM pg_control_checkpoint()) - 32 * 1024 * 1024::numeric) FROM pg_replication_slots")
		return out == "t", out
	})
}
