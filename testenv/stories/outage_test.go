package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestOutage: the synchronous standby is off, and the primary is killed before another one is in step. Nobody is
// promoted. Every host says so, and what to type where; that ends it, without --force, because the other standby shows
// that it has nothing newer. Then the database fails on a standby, and every host says what to type there.
func TestOutage(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}}, func(s *story) {
		primary := s.primary()
		s.settle(primary)
		s.awaitSuccessor(s.others(primary)...)
		synchronous, other := s.standbysOf(primary)
		s.chapter("nobody may take over", func(s *story) {
			// The other standby runs, but does not come into step when the first one goes offline.
			s.sql(other, "ALTER SYSTEM SET primary_conninfo = 'host=nowhere.invalid'")
			s.sql(other, "SELECT pg_reload_conf()")
			s.awaitDisconnected(primary, other)
			s.must(s.lab.Off(s.ctx, synchronous))
			s.awaitDisconnected(primary, synchronous)
			s.sql(primary, "CREATE TABLE only_here (n int)")
			s.must(s.lab.Crash(s.ctx, primary))
			for _, host := range []string{primary, other} {
				text := s.awaitText(host, model.CodeOutage, primary+": database stopped, data LATEST")
				for _, wants := range []string{
					other + ": database unpromoted", synchronous + ": offline",
					primary + " has the newest data", "on " + primary + ", type: sudo pgrex start",
				} {
					if !strings.Contains(text, wants) {
						s.t.Errorf("%s says %q, and not %q", host, text, wants)
					}
				}
				if lock := strings.Contains(text, s.at.Lock+" exists"); lock != (host == primary) {
					s.t.Errorf("%s says of PGSQL.lock: %q", host, text)
				}
			}
		})
		s.chapter("what it says ends the outage", func(s *story) {
			out, status := s.operate(primary, "start", "--yes")
			if status != 0 {
				s.t.Fatalf("pgrex start: %d, %s", status, out)
			}
			for _, wants := range []string{
				"it is proven that no other host has newer data, although " + s.at.Lock + " is there", other + " answers: it has the same WAL up to ",
				synchronous + " is offline: by its data status, DISCONNECT", ", last commit at ",
			} {
				if !strings.Contains(out, wants) {
					s.t.Errorf("pgrex start says %q, and not %q", out, wants)
				}
			}
			s.sql(other, "ALTER SYSTEM RESET primary_conninfo")
			s.sql(other, "SELECT pg_reload_conf()")
			s.awaitPrimary(primary)
			s.awaitStreams(primary, other)
			s.sql(primary, "SELECT FROM only_here")
			s.await(patience, "the outage is over on both hosts", func() (bool, string) {
				codes := slices.Concat(s.conditions(primary), s.conditions(other))
				return len(codes) > 0 && !slices.Contains(codes, model.CodeOutage), fmt.Sprint(codes)
			})
		})
		s.chapter("a standby fails", func(s *story) {
			s.must(s.lab.Crash(s.ctx, other))
			for _, host := range []string{primary, other} {
				s.awaitText(host, model.CodeRejoinNeeded, "on "+other+", type: sudo pgrex rejoin")
			}
			if out, status := s.rejoin(other, "--yes"); status != 0 {
				s.t.Fatalf("pgrex rejoin: %d, %s", status, out)
			}
			s.awaitStreams(primary, other)
			s.neverCopied(other)
		})
	})
}

// standbysOf are the primary's synchronous standby, and the other one.
func (s *story) standbysOf(primary string) (synchronous, other string) {
	s.t.Helper()
	synchronous = s.sql(primary, "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'")
	for _, host := range s.others(primary) {
		if host != synchronous {
			other = host
		}
	}
	return synchronous, other
}

// awaitDisconnected waits until the agent has written DISCONNECT for a member, as a host sees it.
func (s *story) awaitDisconnected(host, member string) {
	s.t.Helper()
	const want = "DISCONNECT"
	s.await(patience, fmt.Sprintf("the data status of %s is %s", member, want), func() (bool, string) {
		status, err := s.status(host)
		for _, m := range status.Members {
			if m.Host == member {
				return m.DataStatus == want, m.DataStatus
			}
		}
		return false, fmt.Sprint(err)
	})
}

// awaitText waits until a host says a finding with these words, and returns its text.
func (s *story) awaitText(host string, code model.Code, words string) (text string) {
	s.t.Helper()
	s.await(patience, fmt.Sprintf("%s says %s: %s", host, code, words), func() (bool, string) {
		status, err := s.status(host)
		text = ""
		for _, c := range status.Conditions {
			if c.Code == code {
				text = c.Text
			}
		}
		return strings.Contains(text, words), fmt.Sprint(status.Summary, text, err)
	})
	s.t.Logf("%s says: %s", host, text)
	return text
}
