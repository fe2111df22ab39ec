package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestAdoptAndRelease: the slots go from the agent to pgrex and back while the primary is written to. PostgreSQL is not
// restarted anywhere, and every standby streams through its own slot all the time.
func TestAdoptAndRelease(t *testing.T) {
	on(t, releases, everywhere, testenv.Config{Slots: "rex"}, func(s *story) {
		primary := s.primary()
		s.start(s.lab.Hosts()...)
		s.awaitCondition(primary, model.CodeAgentOwnsSlots)
		s.await(patience, "the standbys stream through the agent's slots", func() (bool, string) {
			out := s.senders(primary)
			return len(strings.Fields(out)) == 2, out
		})
		s.chapter("refused on a standby", func(s *story) {
			out, status := s.operate(s.others(primary)[0], "adopt", "--yes")
			if status != 1 || !strings.Contains(out, "run it on "+primary) {
				s.t.Errorf("it ends with %d", status)
			}
		})
		s.chapter("interrupted", func(s *story) { s.adoptInterrupted(primary) })
		s.chapter("left, and undone", func(s *story) {
			s.undisturbed(primary, func() {
				s.leave(primary, parameter, "adopt")
				for _, host := range s.lab.Hosts() {
					s.awaitCondition(host, model.CodeOperationUnfinished)
				}
				s.says(primary, 0, "is undone", "operation", "undo", "--yes")
			})
			s.agentHasSlots(primary)
		})
		s.chapter("adopt, left and finished", func(s *story) {
			s.undisturbed(primary, func() {
				s.leave(primary, refresh, "adopt")
				s.says(primary, 0, "adopt is finished", "operation", "finish", "--yes")
			})
			s.await(patience, "pgrex makes the slots of the standbys", func() (bool, string) {
				for _, host := range s.others(primary) {
					for _, other := range s.others(host) {
						if ok, seen := s.reserved(host, s.slotUnder("rex", other)); !ok {
							return false, host + " has " + seen
						}
					}
				}
				codes := s.conditions(primary)
				return !slices.Contains(codes, model.CodeAgentOwnsSlots), fmt.Sprint(codes)
			})
		})
		s.chapter("release", func(s *story) {
			if out, status := s.operate(primary, "release", "--yes"); status != 1 || !strings.Contains(out, model.MetaStandbySlots) {
				s.t.Errorf("with slots on the standbys it ends with %d", status)
			}
			_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--resource", "pgsql", "--meta", "--set-parameter", model.MetaStandbySlots, "--parameter-value", "none")
			s.must(err)
			for _, host := range s.others(primary) {
				s.awaitNoSlots(host)
			}
			// Where pgrex does not run a slot stays.
			standby := s.others(primary)[0]
			s.stop(standby)
			s.sql(standby, "SELECT pg_create_physical_replication_slot('"+s.slotUnder("rex", primary)+"', true)")
			if out, status := s.operate(primary, "release", "--yes"); status != 1 || !strings.Contains(out, standby+" still has the slot") {
				s.t.Errorf("with a slot left on %s it ends with %d", standby, status)
			}
			s.start(standby)
			s.awaitNoSlots(standby)
			s.undisturbed(primary, func() {
				if _, status := s.operate(primary, "release", "--yes"); status != 0 {
					s.t.Errorf("release ends with %d", status)
				}
			})
			s.awaitCondition(primary, model.CodeAgentOwnsSlots)
			if out, status := s.operate(primary, "release", "--yes"); status != 0 || !strings.Contains(out, "nothing to do") {
				s.t.Errorf("a second release ends with %d", status)
			}
		})
	})
}

func (s *story) awaitNoSlots(host string) {
	s.t.Helper()
	s.await(patience, host+" has no slots any more", func() (bool, string) {
		out := s.ask(host, "SELECT count(*) FROM pg_replication_slots")
		return out == "0", out
	})
}

// senders are the walsenders that stream to a standby through that one's own slot of the agent's.
func (s *story) senders(primary string) string {
	return s.ask(primary, "SELECT coalesce(string_agg(r.pid::text, ' ' ORDER BY r.pid), '') FROM pg_stat_replication r JOIN pg_replication_slots s "+
		"ON s.active_pid = r.pid WHERE r.state = 'streaming' AND s.slot_name = 'rex_' || r.application_name")
}

// undisturbed does something while the primary is written to, and sees the same walsenders all the time, and no
// restart.
func (s *story) undisturbed(primary string, do func()) {
	s.t.Helper()
	started := func() (all string) {
		for _, host := range s.lab.Hosts() {
			all += s.sql(host, "SELECT pg_postmaster_start_time()") + " "
		}
		return all
	}
	before, seen := started(), s.senders(primary)
	done, looks := make(chan struct{}), make(chan int)
	var other string
	go func() {
		n := 0
		for ; ; n++ {
			s.ask(primary, "SELECT pg_logical_emit_message(false, 'story', repeat('x', 100000))")
			if now := s.senders(primary); now != seen {
				other = now
			}
			select {
			case <-done:
				looks <- n + 1
				return
			default:
			}
		}
	}()
	do()
	close(done)
	n := <-looks
	if other != "" {
		s.t.Errorf("the walsenders were %q, and once %q", seen, other)
	}
	if now := started(); now != before {
		s.t.Errorf("PostgreSQL was restarted: before %s, now %s", before, now)
	}
	s.t.Logf("the same walsenders in %d looks, each after a write", n)
}

// adoptInterrupted: Ctrl-C after the parameter was removed. All is as it was.
func (s *story) adoptInterrupted(primary string) {
	s.undisturbed(primary, func() {
		err := s.interrupt(primary, "INT", stepSaid("crm_resource .*--delete-parameter"), "adopt")
		s.interruptedOutput(primary)
		s.must(err)
	})
	s.agentHasSlots(primary)
}

// agentHasSlots: the CIB is as it was before adopt.
func (s *story) agentHasSlots(primary string) {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, primary, "sh", "-c", "cibadmin --query | grep -E 'maintenance-mode|replication_slot_name|pgrex-slot-prefix'")
	s.must(err)
	if strings.Contains(out, "maintenance-mode") || strings.Contains(out, "pgrex-slot-prefix") || !strings.Contains(out, "replication_slot_name") {
		s.t.Errorf("the CIB is not as it was: %s", out)
	}
}
