package stories

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
)

// TestRejoin: hosts that do not come back by themselves are brought back with one command, each in the cheapest way.
func TestRejoin(t *testing.T) {
	on(t, bothLayouts, everywhere, threeHosts(), func(s *story) {
		old := s.primary()
		s.settle(old)
		away := s.others(old)[1]
		s.chapter("nothing to do", func(s *story) {
			if out, status := s.asRoot(away, "rejoin", "--yes"); status != 0 || !strings.Contains(out, "nothing to do") {
				s.t.Errorf("on a host that streams, %d: %s", status, out)
			}
			if out, status := s.asRoot(old, "rejoin", "--yes"); status != 1 {
				s.t.Errorf("on the primary, %d: %s", status, out)
			}
		})
		s.chapter("start", func(s *story) {
			s.lockedOut(old, away)
			s.comesBack(old, away, "start")
			s.neverCopied(away)
		})
		s.chapter("copy", func(s *story) { s.rejoinByCopy(old, away) })
		s.chapter("rewind", func(s *story) {
			s.diverge(old, 1)
			folder := s.asOwner(old, "stat -c %i "+s.at.Data) // a copy is another one
			s.comesBack(s.primary(), old, "rewind")
			if now := s.asOwner(old, "stat -c %i "+s.at.Data); now != folder {
				s.t.Errorf("it came back by a copy: its data folder is %s, and was %s", now, folder)
			}
		})
	})
}

// TestRejoinKilled: rejoin is killed with SIGKILL at every step, and the next one goes on from there; and ways that
// end early.
func TestRejoinKilled(t *testing.T) {
	on(t, debian13Only, everywhere, threeHosts(), func(s *story) {
		old := s.primary()
		s.settle(old)
		away := s.others(old)[1]
		s.chapter("undone", func(s *story) {
			s.lockedOut(old, away)
			s.leave(away, kept, "rejoin")
			s.awaitCondition(old, model.CodeOperationUnfinished)
			s.says(away, 0, "is undone", "operation", "undo", "--yes")
			s.comesBack(old, away, "start")
		})
		s.chapter("start", func(s *story) {
			s.lockedOut(old, away)
			s.killedEverywhere(old, away, "start", "")
			s.neverCopied(away)
		})
		s.chapter("half rewound", func(s *story) { s.halfRewound(old) })
		if !long() {
			return // the rest takes three minutes
		}
		s.chapter("rewind", func(s *story) { s.rejoinByRewind(s.primary()) })
		next := s.primary()
		s.chapter("rewind that cannot be", func(s *story) {
			s.diverge(next, 60)
			out, status := s.rejoin(next, "--yes")
			if status != 0 || !strings.Contains(out, "use a full copy") {
				s.t.Errorf("it does not go on with a copy: %d", status)
			}
			s.awaitRight(patience, s.primary())
		})
		s.chapter("rewind too late", func(s *story) { s.rewindTooLate(s.primary()) })
	})
}

// operate runs one of pgrex's operations on a host, as root, and gives what it printed and its exit status.
func (s *story) operate(host string, arguments ...string) (string, int) {
	s.t.Helper()
	out, status := s.asRoot(host, arguments...)
	s.t.Logf("%s: pgrex %s, %d:\n%s", host, strings.Join(arguments, " "), status, out)
	return out, status
}

// asRoot is operate without a word.
func (s *story) asRoot(host string, arguments ...string) (string, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	command := append([]string{pgrex}, arguments...)
	run := s.lab.Exec
	if host == s.older {
		run = func(ctx context.Context, host string, argv ...string) (string, error) {
			return s.lab.ExecAs(ctx, "postgres", "haclient", host, argv...)
		}
	}
	out, err := run(ctx, host, command...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return out + err.Error(), exit.ExitCode()
	}
	s.must(err)
	return out, 0
}

// ownRights: every file of a database is still its owner's, and the server has that one's groups and no others. So has
// what a superuser of the database runs.
func (s *story) ownRights(host string) {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "sh", "-ec", `find "$1/" -ignore_readdir_race ! \( -user postgres -group postgres \)
for id in $(id -G postgres); do echo $id; done | sort >/tmp/own
sed -n 's/^\(Gid\|Groups\)://p' /proc/$(head -1 "$1/postmaster.pid")/status | tr '\t ' '\n\n' | grep . | sort -u | diff /tmp/own -`, "sh", s.at.Data)
	if err != nil || out != "" {
		s.t.Errorf("on %s this is another's, or the server has other groups: %s (%v)", host, out, err)
	}
	s.sql(host, "COPY (SELECT 1) TO PROGRAM 'id -G >/tmp/by-program; cat >/dev/null'")
	out, err = s.lab.Exec(s.ctx, host, "sh", "-ec", `tr ' ' '\n' </tmp/by-program | sort | diff /tmp/own -`)
	if err != nil || out != "" {
		s.t.Errorf("on %s COPY TO PROGRAM has other groups: %s (%v)", host, out, err)
	}
}

func (s *story) rejoin(host string, arguments ...string) (string, int) {
	s.t.Helper()
	return s.operate(host, append([]string{"rejoin"}, arguments...)...)
}

// comesBack runs rejoin as a dry run and then in earnest, both by the way wanted, and sees the host stream.
func (s *story) comesBack(primary, host, method string) {
	s.t.Helper()
	if out, status := s.rejoin(host, "--dry-run"); status != 2 || !strings.Contains(out, "the way back is "+method) {
		s.t.Fatalf("the dry run ends with %d and does not say that it is done by %s", status, method)
	}
	begin, before := time.Now(), s.modes(host)
	if _, status := s.rejoin(host, "--yes"); status != 0 {
		s.t.Fatalf("rejoin ends with %d", status)
	}
	s.awaitStreams(primary, host)
	s.sameModes(host, before)
	s.ownRights(host)
	s.nothingOfRejoinLeft(host)
	s.t.Logf("%s was back by %s after %s", host, method, time.Since(begin).Round(100*time.Millisecond))
	s.awaitRight(patience, primary)
}

// modes are owner, group and mode of what is in a host's data folder and in the agent's, by path.
func (s *story) modes(host string) map[string]string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "find", s.at.Data+"/", filepath.Dir(s.at.Lock)+"/", "-ignore_readdir_race", "-printf", `%p\t%u %g %m %y\n`)
	s.must(err)
	modes := map[string]string{}
	for line := range strings.Lines(out) {
		path, mode, _ := strings.Cut(strings.TrimSpace(line), "\t")
		modes[path] = mode
	}
	return modes
}

// sameModes: what was there before and still is has the owner, the group and the mode that it had.
func (s *story) sameModes(host string, before map[string]string) {
	s.t.Helper()
	same := 0
	for path, mode := range s.modes(host) {
		switch was, there := before[path]; {
		case there && s.mixed && strings.Contains(was, " haclient "): // which an older version has made so
		case there && was != mode:
			s.t.Errorf("%s on %s was %s, and is %s", path, host, was, mode)
		case there:
			same++
		}
	}
	if same < 100 {
		s.t.Errorf("of the files that %s had only %d are there", host, same)
	}
}

// lockedOut: a lock keeps a host from starting whose data are a part of the primary's, and a ban, as a switchover
// leaves it.
func (s *story) lockedOut(primary, host string) {
	s.t.Helper()
	s.stopWithLock(host)
	_, err := s.lab.Exec(s.ctx, host, "crm_resource", "--ban", "--resource", "msPostgresql", "--node", host)
	s.must(err)
	s.load(primary, 100<<20)
}

// stopWithLock stops a host's database, in Pacemaker's standby mode, and leaves the agent's lock.
func (s *story) stopWithLock(host string) {
	s.t.Helper()
	s.must(s.lab.Standby(s.ctx, host))
	s.awaitStopped(host)
	s.asOwner(host, "touch "+s.at.Lock)
}

// asOwner runs a shell script as the database's owner.
func (s *story) asOwner(host, script string) string {
	s.t.Helper()
	out, err := s.lab.ExecAs(s.ctx, "postgres", "haclient", host, "sh", "-ec", script)
	s.must(err)
	return strings.TrimSpace(out)
}

// pinBudget writes an operator's own budget into postgresql.conf: pgrex takes its own out of postgresql.auto.conf for
// it.
func (s *story) pinBudget(host, value string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "sh", "-c", "echo max_slot_wal_keep_size = "+value+" >>"+s.at.Config)
	s.must(err)
	s.sql(host, "SELECT pg_reload_conf()")
	s.await(patience, "the budget on "+host+" is "+value, func() (bool, string) {
		out := s.ask(host, "SHOW max_slot_wal_keep_size")
		return out == value, out
	})
}

// unpinBudget takes it out again, so that pgrex sets its own.
func (s *story) unpinBudget(host string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "sed", "-i", "/^max_slot_wal_keep_size/d", s.at.Config)
	s.must(err)
	s.sql(host, "SELECT pg_reload_conf()")
	s.await(patience, "pgrex has set the budget on "+host, func() (bool, string) {
		out := s.ask(host, "SELECT setting || ' ' || sourcefile FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
		return strings.HasSuffix(out, "/postgresql.auto.conf") && !strings.HasPrefix(out, "-1 "), out
	})
}

// loseSlot stops a host, and lets the primary lose its slot, and with it the WAL that the host needs.
func (s *story) loseSlot(primary, host string) {
	s.t.Helper()
	s.must(s.lab.Standby(s.ctx, host))
	s.awaitStopped(host)
	s.spendBudget(primary, host)
}

// spendBudget writes WAL on the primary until the slot of a host that is away is lost there.
func (s *story) spendBudget(primary, host string) {
	s.t.Helper()
	s.pinBudget(primary, "64MB")
	s.load(primary, 250<<20)
	s.await(patience, "the slot of "+host+" is lost", func() (bool, string) {
		out := s.ask(primary, "CHECKPOINT; SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+s.slot(host)+"'")
		return out == "lost", out
	})
	s.unpinBudget(primary)
}

// rejoinByCopy: the budget ended, the slot is lost, and with it the WAL that the host needs. There is no archive.
func (s *story) rejoinByCopy(primary, host string) {
	s.loseSlot(primary, host)
	s.must(s.lab.Unstandby(s.ctx, host))
	if out, status := s.rejoin(host, "--method", "start", "--yes"); status != 1 || !strings.Contains(out, "start is not possible") {
		s.t.Fatalf("a start that is not possible: %d", status)
	}
	if out, status := s.rejoin(host, "--method", "archive", "--yes"); status != 1 || !strings.Contains(out, "is not in the WAL archive") {
		s.t.Fatalf("an archive that there is not: %d", status)
	}
	s.comesBack(primary, host, "copy")
	if mark := s.asOwner(host, "cat "+s.at.Data+"/copied_never"); mark != primary { // the primary's own
		s.t.Errorf("the data folder is marked %q", mark)
	}
	s.nothingOfRejoinLeft(host)
}

// diverge cuts the primary off, where it writes on, up to some further checkpoint where that is much, and is fenced.
func (s *story) diverge(old string, megabytes int) {
	s.t.Helper()
	s.part(old, megabytes)
	s.await(patience, old+" is a member again", func() (bool, string) {
		out, status := s.asRoot(old, "rejoin", "--dry-run")
		return status == 2, out
	})
}

// part has the data of a primary part from those of the next one. Then it boots that host again.
func (s *story) part(old string, megabytes int) {
	s.t.Helper()
	if megabytes > segment>>20 {
		// The standbys' slots are to hold no segment with a checkpoint that they have seen.
		s.sql(old, "CHECKPOINT")
		s.sql(old, "SELECT pg_switch_wal()")
		s.await(patience, "the standbys have all", func() (bool, string) {
			out := s.ask(old, "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_flush_lsn()")
			return out == "2", out
		})
	}
	s.awaitSuccessor(s.others(old)...)
	s.must(s.lab.Cut(s.ctx, old))
	s.sql(old, fmt.Sprintf("SELECT count(pg_logical_emit_message(false, 'story', repeat('x', 1 << 20))) FROM generate_series(1, %d)", megabytes))
	if megabytes > segment>>20 {
		s.sql(old, "CHECKPOINT") // recycles what pg_rewind would need
	}
	s.await(patience, "another primary", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		return err == nil && now != old, fmt.Sprint(now, err)
	})
	s.awaitPrimary(s.primary())
	s.must(s.lab.Heal(s.ctx, old))
	s.must(s.lab.On(s.ctx, old))
}

// halfRewound: what a killed pg_rewind leaves is never started, and is replaced by a copy, with the host's own files.
// The copy is killed at every step.
func (s *story) halfRewound(old string) {
	s.diverge(old, 1)
	s.asOwner(old, "echo '# of "+old+"' >>"+s.at.Config)
	if !s.killedAt(old, `^pg_rewind from pm0[0-9]$`) {
		s.t.Fatal("there is no pg_rewind")
	}
	s.asOwner(old, "test -d "+s.at.Data+".pgrex-rewind")
	_, err := s.lab.Exec(s.ctx, old, "cibadmin", "--delete", "--scope", "constraints", "--xml-text", `<rsc_location id="pgrex-stop-pgsql-`+old+`"/>`)
	s.must(err) // the agent's lock alone keeps it from starting
	s.killedEverywhere(s.primary(), old, "copy", "", "--max-rate", "8M")
	s.asOwner(old, "grep '# of "+old+"' "+s.at.Config)
}

// rejoinByRewind: data that have parted, with pg_wal elsewhere. Rejoin is killed at every step but pg_rewind itself,
// after which only a copy is left, and the one before, which takes no time, so that the kill could come too late.
func (s *story) rejoinByRewind(old string) {
	s.diverge(old, 1)
	s.asOwner(old, "cd "+s.at.Data+"; echo '# rewound on "+old+"' >>postgresql.conf; mv pg_wal ../wal; ln -s ../wal pg_wal")
	folder := s.asOwner(old, "stat -c %i "+s.at.Data) // a copy is another one
	s.killedEverywhere(s.primary(), old, "rewind", `^(see that there is the WAL .*|pg_rewind from pm0[0-9])$`)
	if now := s.asOwner(old, "stat -c %i "+s.at.Data); now != folder {
		s.t.Errorf("it came back by a copy: its data folder is %s, and was %s", now, folder)
	}
	s.asOwner(old, "grep '# rewound on "+old+"' "+s.at.Config)
	s.asOwner(old, "test -L "+s.at.Data+"/pg_wal")
}

// rewindTooLate: data that have parted, and the primary has lost the WAL since. The ladder knows it before anything is
// begun.
func (s *story) rewindTooLate(old string) {
	s.diverge(old, 1)
	primary := s.primary()
	for _, host := range s.others(primary) {
		if host != old { // or the budget would end for both
			s.awaitStreams(primary, host)
		}
	}
	s.spendBudget(primary, old)
	out, status := s.rejoin(old, "--method", "rewind", "--yes")
	if status != 1 || !strings.Contains(out, "rewind is not possible: its WAL parted") || !strings.Contains(out, "no longer has the WAL from there on") {
		s.t.Fatalf("a rewind without the WAL since: %d", status)
	}
	s.comesBack(primary, old, "copy")
}
