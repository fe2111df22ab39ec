package stories

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/testenv"
)

// TestRejoin: hosts that do not come back by themselves are brought back with one command, each in the cheapest way.
func TestRejoin(t *testing.T) {
	t.Parallel()
	s := tell(t, testenv.Config{
		Hosts: []string{"pm01", "pm02", "pm03"}, Properties: map[string]string{"no-quorum-policy": "freeze"},
	})
	old := s.primary()
	s.start(s.lab.Hosts()...)
	s.awaitRight(patience, old)
	for _, host := range s.lab.Hosts() {
		s.mark(host)
	}
	away := s.others(old)[1]
	s.chapter("nothing to do", func(s *story) {
		if out, status := s.command(away, "rejoin", "--yes"); status != 0 || !strings.Contains(out, "nothing to do") {
			s.t.Errorf("on a host that streams, %d: %s", status, out)
		}
		if out, status := s.command(old, "rejoin", "--yes"); status != 1 {
			s.t.Errorf("on the primary, %d: %s", status, out)
		}
	})
	s.chapter("start", func(s *story) { s.rejoinByStart(old, away) })
	s.chapter("copy", func(s *story) { s.rejoinByCopy(old, away) })
	s.chapter("rewind", func(s *story) {
		s.diverge(old, 1)
		s.killedAt(old, `crash recovery`, "--yes")
		s.comesBack(s.primary(), old, "rewind")
	})
	next := s.primary()
	s.chapter("rewind that cannot be", func(s *story) {
		s.diverge(next, 60)
		out, status := s.rejoin(next, "--yes")
		if status != 0 || !strings.Contains(out, "a copy is left") {
			s.t.Errorf("it does not go on with a copy: %d", status)
		}
		s.awaitRight(patience, s.primary())
	})
	last := s.primary()
	s.chapter("killed while pg_rewind runs", func(s *story) { s.halfRewound(last) })
}

// operate runs one of pgrex's operations on a host, and gives what it printed and its exit status.
func (s *story) operate(host string, arguments ...string) (string, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	out, err := s.lab.ExecAs(ctx, "postgres", "haclient", host, append([]string{pgrex}, arguments...)...)
	status := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status = exit.ExitCode()
		out += err.Error()
	} else {
		s.must(err)
	}
	s.t.Logf("%s: pgrex %s, %d:\n%s", host, strings.Join(arguments, " "), status, out)
	return out, status
}

func (s *story) rejoin(host string, arguments ...string) (string, int) {
	s.t.Helper()
	return s.operate(host, append([]string{"rejoin"}, arguments...)...)
}

// comesBack runs rejoin as a dry run and then in earnest, both by the way wanted, and sees the host stream.
func (s *story) comesBack(primary, host, method string) {
	s.t.Helper()
	if out, status := s.rejoin(host, "--dry-run"); status != 2 || !strings.Contains(out, "this is done, by "+method) {
		s.t.Fatalf("the dry run ends with %d and does not say that it is done by %s", status, method)
	}
	begin := time.Now()
	if _, status := s.rejoin(host, "--yes"); status != 0 {
		s.t.Fatalf("rejoin ends with %d", status)
	}
	if ok, seen := s.streams(primary, host); !ok {
		s.t.Fatalf("rejoin says that it is back, but: %s", seen)
	}
	s.t.Logf("%s was back by %s after %s", host, method, time.Since(begin).Round(100*time.Millisecond))
	s.awaitRight(patience, primary)
}

// rejoinByStart: a lock keeps a host from starting whose data are a part of the primary's.
func (s *story) rejoinByStart(primary, host string) {
	s.must(s.lab.Standby(s.ctx, host))
	s.awaitStopped(host)
	_, err := s.lab.Exec(s.ctx, host, "touch", "/var/lib/pgsql/tmp/PGSQL.lock")
	s.must(err)
	s.load(primary, 100<<20)
	s.comesBack(primary, host, "start")
	s.neverCopied(host)
}

// rejoinByCopy: the budget ended, the slot is lost, and with it the WAL that the host needs. The first attempts are killed.
func (s *story) rejoinByCopy(primary, host string) {
	s.must(s.lab.Standby(s.ctx, host))
	s.awaitStopped(host)
	s.sql(primary, "ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'")
	s.sql(primary, "SELECT pg_reload_conf()")
	s.load(primary, 400<<20)
	s.await(patience, "the slot of "+host+" is lost", func() (bool, string) {
		out := s.ask(primary, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+s.slot(host)+"'")
		return out == "lost", out
	})
	s.sql(primary, "ALTER SYSTEM RESET max_slot_wal_keep_size")
	s.sql(primary, "SELECT pg_reload_conf()")
	s.must(s.lab.Unstandby(s.ctx, host))
	if out, status := s.rejoin(host, "--method", "start", "--yes"); status != 1 || !strings.Contains(out, "start is not possible") {
		s.t.Fatalf("a start that is not possible: %d", status)
	}
	s.killedAt(host, `pg_basebackup`, "--yes", "--max-rate", "2M")
	s.neverCopied(host)
	s.comesBack(primary, host, "copy")
	mark, err := s.lab.Exec(s.ctx, host, "cat", dataDir+"/copied_never") // the primary's own
	s.must(err)
	if strings.TrimSpace(mark) != primary {
		s.t.Errorf("the data folder is marked %q", mark)
	}
	if out, err := s.lab.Exec(s.ctx, host, "sh", "-c", "ls -d "+dataDir+".*"); err == nil {
		s.t.Errorf("this is left: %s", out)
	}
}

// diverge cuts the primary off, where it writes on, up to some further checkpoint where that is much, and is fenced.
func (s *story) diverge(old string, megabytes int) {
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
	s.await(patience, old+" is a member again", func() (bool, string) {
		out, status := s.command(old, "rejoin", "--dry-run")
		return status == 2, out
	})
}

// halfRewound: what a killed pg_rewind leaves is never started, and is replaced by a copy.
func (s *story) halfRewound(old string) {
	s.diverge(old, 1)
	s.killedAt(old, `pg_rewind from pm0[0-9]$`, "--yes")
	if _, err := s.lab.Exec(s.ctx, old, "test", "-d", dataDir+".pgrex-rewind"); err != nil {
		s.t.Fatalf("pg_rewind was not under way: %v", err)
	}
	s.must(s.lab.Unstandby(s.ctx, old)) // the agent's lock alone keeps it from starting
	s.comesBack(s.primary(), old, "copy")
	if out, err := s.lab.Exec(s.ctx, old, "sh", "-c", "ls -d "+dataDir+".*"); err == nil {
		s.t.Errorf("this is left: %s", out)
	}
}

// killedAt runs rejoin and kills it, and what it started, when a step is under way: the one before it is then reported.
func (s *story) killedAt(host, step string, arguments ...string) {
	s.t.Helper()
	plan, _ := s.rejoin(host, append([]string{"--dry-run"}, arguments...)...)
	m := regexp.MustCompile(`(?m)^ *([0-9]+)\. [^\n]*` + step).FindStringSubmatch(plan)
	if m == nil {
		s.t.Fatalf("there is no step %q", step)
	}
	var before int
	if _, err := fmt.Sscan(m[1], &before); err != nil {
		s.t.Fatal(err)
	}
	// Each step is reported when it is done, with the time that it took.
	log := "/var/lib/pgsql/rejoin.log"
	_, err := s.lab.ExecAs(s.ctx, "postgres", "haclient", host, "sh", "-c", fmt.Sprintf(
		`setsid %s rejoin %s >%s 2>&1 & pid=$!; n=0
until grep -q '^%d\. .*s)$' %s; do n=$((n+1)); [ $n -lt 1200 ] && kill -0 $pid || exit 1; sleep 0.1; done
kill -9 -$pid; wait $pid; true`, pgrex, strings.Join(arguments, " "), log, before-1, log))
	out, _ := s.lab.Exec(s.ctx, host, "cat", log)
	s.t.Logf("%s: killed at %q (%v):\n%s", host, step, err, out)
	s.must(err)
}
