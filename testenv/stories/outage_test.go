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
// promoted. Every host says so, and what to type where; that ends it. Then the database fails on a standby, and every
// host says what to type there.
func TestOutage(t *testing.T) {
	on(t, debian13Only, ownLayout, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}}, func(s *story) {
		primary := s.primary()
		s.settle(primary)
		s.awaitSuccessor(s.others(primary)...)
		synchronous, other := s.standbysOf(primary)
		s.chapter("nobody may take over", func(s *story) {
			s.must(s.lab.Off(s.ctx, synchronous))
			s.must(s.lab.Crash(s.ctx, primary))
			for _, host := range []string{primary, other} {
				text := s.awaitText(host, model.CodeOutage, primary+": database stopped, data LATEST")
				for _, wants := range []string{
					other + ": database unpromoted", synchronous + ": offline",
					primary + " has the newest data", "on " + primary + ", type: pgrex start",
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
			if out, status := s.operate(primary, "start", "--yes"); status != 1 || !strings.Contains(out, "--force") {
				s.t.Errorf("with PGSQL.lock there, pgrex start has not asked for --force: %d, %s", status, out)
			}
			if out, status := s.operate(primary, "start", "--force", "--yes"); status != 0 {
				s.t.Fatalf("pgrex start --force: %d, %s", status, out)
			}
			s.awaitPrimary(primary)
			s.awaitStreams(primary, other)
			s.await(patience, "the outage is over on both hosts", func() (bool, string) {
				codes := slices.Concat(s.conditions(primary), s.conditions(other))
				return len(codes) > 0 && !slices.Contains(codes, model.CodeOutage), fmt.Sprint(codes)
			})
		})
		s.chapter("a standby fails", func(s *story) {
			s.must(s.lab.Crash(s.ctx, other))
			for _, host := range []string{primary, other} {
				s.awaitText(host, model.CodeRejoinNeeded, "on "+other+", type: pgrex rejoin")
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
