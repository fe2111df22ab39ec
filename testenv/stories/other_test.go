package stories

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

type controllerSlot = controller.SlotStatus

// TestTwoHosts: review before change, and the seed's third warning: the standby stops, then the primary.
func TestTwoHosts(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02"}}, func(s *story) {
		primary := s.primary()
		standby := s.others(primary)[0]
		s.chapter("review", func(s *story) { s.reviewBeforeChange(primary, standby) })
		s.chapter("slots appear", func(s *story) { s.slotsAppear(primary) })
		s.chapter("both stop", func(s *story) { s.bothStop(primary, standby) })
	})
}

// steps are the kinds and texts of a plan printed as JSON.
func (s *story) steps(document string) []string {
	s.t.Helper()
	var plan struct {
		Steps []struct{ Kind, Text string }
	}
	s.must(json.Unmarshal([]byte(document), &plan))
	steps := []string{}
	for _, step := range plan.Steps {
		steps = append(steps, step.Kind+" "+step.Text)
	}
	return steps
}

// reviewBeforeChange: the dry run, plan and apply say the same, on the host and from its snapshot elsewhere.
func (s *story) reviewBeforeChange(primary, standby string) {
	// A budget of its own: the room on this machine's disk changes from one look to the next.
	_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--resource", "pgsql", "--meta", "--set-parameter", model.MetaWALBudget, "--parameter-value", "1GB")
	s.must(err)
	s.startAs(primary, "--dry-run")
	s.await(patience, "the dry run has planned", func() (bool, string) {
		status, err := s.status(primary)
		return err == nil && len(status.Planned) == 3 && !status.Healthy, fmt.Sprint(status.Planned, err)
	})
	if slots := s.sql(primary, "SELECT slot_name FROM pg_replication_slots"); slots != "" {
		s.t.Fatalf("the dry run made slots: %s", slots)
	}
	s.stop(primary)

	planned, status := s.command(primary, "plan", "-o", "json")
	if status != 2 {
		s.t.Fatalf("plan with something to do exits with %d, not 2", status)
	}
	s.samePlanElsewhere(primary)
	applied, status := s.command(primary, "apply", "-o", "json")
	if status != 0 {
		s.t.Fatalf("apply exits with %d", status)
	}
	want := []string{"CreateSlot slot " + s.slot(standby) + " for " + standby, "SetWALBudget max_slot_wal_keep_size: -1 -> 1GB",
		"PublishAttribute pgrex-forecast-pgsql: '' -> '" + standby + "=stream'"}
	for command, got := range map[string][]string{"plan": s.steps(planned), "apply": s.steps(applied)} {
		if !slices.Equal(got, want) {
			s.t.Errorf("%s lists %q, not %q", command, got, want)
		}
	}
	if ok, seen := s.reserved(primary, s.slot(standby)); !ok {
		s.t.Errorf("apply did not do what it listed; slots: %s", seen)
	}
	s.samePlanElsewhere(standby)
	s.await(patience, "apply on the standby decides all, and does it", func() (bool, string) { // the primary may be slow to answer
		out, status := s.command(standby, "apply")
		return status == 0, fmt.Sprintf("%d: %s", status, out)
	})
	s.awaitStreams(primary, standby)
	for _, host := range s.lab.Hosts() {
		s.await(patience, host+" has nothing to do", func() (bool, string) {
			out, status := s.command(host, "plan")
			return status == 0, out
		})
	}
}

// samePlanElsewhere takes a snapshot on a host and plans from it outside of the cluster: no Pacemaker, no PostgreSQL.
func (s *story) samePlanElsewhere(host string) {
	s.t.Helper()
	snapshot, status := s.command(host, "snapshot")
	if status != 0 {
		s.t.Fatalf("snapshot exits with %d", status)
	}
	plan := func(here bool, output string) string {
		if here {
			cmd := exec.CommandContext(s.ctx, built, "plan", "--snapshot", "-", "-o", output)
			cmd.Stdin = strings.NewReader(snapshot)
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 2) {
				s.t.Fatal(err)
			}
			return string(out)
		}
		file := filepath.Join("/tmp", "snapshot.json")
		_, err := s.lab.ExecAs(s.ctx, "postgres", "haclient", host, "sh", "-c", "cat >"+file+" <<'END'\n"+snapshot+"END")
		s.must(err)
		out, _ := s.command(host, "plan", "--snapshot", file, "-o", output)
		return out
	}
	for _, output := range []string{"text", "json"} {
		if there, here := plan(false, output), plan(true, output); there != here {
			s.t.Errorf("the snapshot of %s gives another plan here:\n%s\nthere:\n%s", host, here, there)
		}
	}
	live, _ := s.command(host, "plan")
	if here := plan(true, "text"); live != here {
		s.t.Errorf("plan on %s and from its snapshot differ:\n%s\n%s", host, live, here)
	}
}

// bothStop: the standby stops, then the primary, and they start the other way round.
func (s *story) bothStop(primary, standby string) {
	for _, host := range s.lab.Hosts() {
		s.mark(host)
	}
	s.must(s.lab.Standby(s.ctx, standby))
	s.awaitStopped(standby)
	s.load(primary, 10*walKeepSize)
	s.must(s.lab.Standby(s.ctx, primary))
	s.awaitStopped(primary)
	s.must(s.lab.Unstandby(s.ctx, primary))
	s.awaitPrimary(primary)
	s.load(primary, 10*walKeepSize)
	s.must(s.lab.Unstandby(s.ctx, standby))
	took := s.awaitStreams(primary, standby)
	s.neverCopied(standby)
	s.t.Logf("%s streams again %s after it was let back, without a copy", standby, took.Round(100*time.Millisecond))
	s.awaitRight(patience, primary)
}

// TestAgentSlots: the agent names the slots.
func TestAgentSlots(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}, Slots: "rex"}, func(s *story) {
		primary := s.primary()
		standby, absent := s.others(primary)[0], s.others(primary)[1]
		mine := s.slotUnder("rex", absent)
		s.start(s.lab.Hosts()...)
		s.awaitCondition(primary, model.CodeAgentOwnsSlots)
		s.await(patience, "the finding says how to hand over", func() (bool, string) {
			status, err := s.status(primary)
			return slices.ContainsFunc(status.Conditions, func(c controller.Condition) bool {
				return c.Code == model.CodeAgentOwnsSlots && strings.Contains(c.Text, "pgrex adopt")
			}), fmt.Sprint(status.Conditions, err)
		})
		before := s.sql(standby, "SELECT slot_name, restart_lsn FROM pg_replication_slots ORDER BY 1")

		s.chapter("missing", func(s *story) {
			s.must(s.lab.Off(s.ctx, absent))
			s.await(patience, "the slot can be dropped", func() (bool, string) {
				out := s.ask(primary, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", mine))
				return out == "", out
			})
			s.await(patience, "the slot is back, reserved", func() (bool, string) { return s.reserved(primary, mine) })
		})
		s.chapter("lost", func(s *story) {
			s.stop(primary)
			s.sql(primary, "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
			s.sql(primary, "SELECT pg_reload_conf()")
			s.load(primary, 10*walKeepSize)
			s.await(patience, "the slot is lost", func() (bool, string) {
				out := s.ask(primary, fmt.Sprintf("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '%s'", mine))
				return out == "lost", out
			})
			s.sql(primary, "ALTER SYSTEM RESET max_slot_wal_keep_size")
			s.sql(primary, "SELECT pg_reload_conf()")
			s.start(primary)
			s.await(patience, "the lost slot is reserved again", func() (bool, string) { return s.reserved(primary, mine) })
		})
		if now := s.sql(standby, "SELECT slot_name, restart_lsn FROM pg_replication_slots ORDER BY 1"); now != before {
			s.t.Errorf("the slots on the standby have changed: before %q, now %q", before, now)
		}
		s.chapter("promote", func(s *story) {
			s.awaitSuccessor(standby)
			s.must(s.lab.Crash(s.ctx, primary))
			s.awaitPrimary(standby)
			s.await(patience, "the new primary's slots are reserved", func() (bool, string) {
				return s.reserved(standby, s.slotUnder("rex", primary), mine)
			})
		})
		s.chapter("hand over", func(s *story) { s.handOver(standby, primary) })
	})
}

// handOver does what the finding says to do, and sees that PostgreSQL is not restarted and the same slots stay in use.
func (s *story) handOver(primary, standby string) {
	s.must(s.lab.Rewind(s.ctx, standby))
	mine := s.slotUnder("rex", standby)
	inUse := func() (bool, string) {
		out := s.ask(primary, fmt.Sprintf("SELECT active FROM pg_replication_slots WHERE slot_name = '%s'", mine))
		return out == "t", out
	}
	s.await(patience, standby+" streams through the agent's slot", inUse)
	started := func() string {
		const query = "SELECT pg_postmaster_start_time()"
		return s.sql(primary, query) + " " + s.sql(standby, query)
	}
	before := started()
	for _, command := range []string{
		"crm_resource --resource msPostgresql --meta --set-parameter pgrex-slot-prefix --parameter-value rex",
		"crm configure property maintenance-mode=true",
		"crm_resource --resource pgsql --delete-parameter replication_slot_name",
		"crm_resource --refresh --resource pgsql",
		"crm configure property maintenance-mode=false",
	} {
		_, err := s.lab.Exec(s.ctx, primary, strings.Fields(command)...)
		s.must(err)
	}
	s.await(patience, standby+" holds a slot for "+primary+" now", func() (bool, string) {
		return s.reserved(standby, s.slotUnder("rex", primary))
	})
	s.await(patience, "the primary says no more that the agent owns the slots", func() (bool, string) {
		status, err := s.status(primary)
		codes := s.conditions(primary)
		return err == nil && status.Role == model.Primary && !slices.Contains(codes, model.CodeAgentOwnsSlots), fmt.Sprint(codes, err)
	})
	s.await(patience, standby+" still streams through its slot", inUse)
	if now := started(); now != before {
		s.t.Errorf("PostgreSQL was restarted: before %s, now %s", before, now)
	}
}

// TestNames: names that fold, names that meet, and a name of 64 characters.
func TestNames(t *testing.T) {
	long := "pm-with-a-name-of-sixty-four.characters.example.for-a-long-while"
	if len(long) != 64 {
		t.Fatalf("the long name has %d characters", len(long))
	}
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"DB-1.rex", "db-2", "db.2", long}}, func(s *story) {
		primary := s.primary()
		s.start(s.lab.Hosts()...)
		s.awaitRight(patience, primary)
		for _, host := range s.lab.Hosts() {
			s.t.Logf("%s: %s", host, s.slot(host))
		}
		standbys := s.others(primary)
		s.chapter("another host's settings", func(s *story) { s.othersSettings(primary, standbys[0], standbys[1]) })
	})
}

// othersSettings runs pgrex on a standby with the settings file of another one. It must not touch what the other
// needs: its slot here, and the setting by which this host would stream through it.
func (s *story) othersSettings(primary, host, other string) {
	const query = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name), current_setting('primary_slot_name') FROM pg_replication_slots"
	before := s.sql(host, query)
	s.stop(host)
	_, err := s.lab.Exec(s.ctx, host, "sh", "-c", "mkdir -p /run/pgrex-other && echo 'node: "+other+"' >/run/pgrex-other/pgrex.yaml")
	s.must(err)
	s.startAs(host, "--config", "/run/pgrex-other/pgrex.yaml")
	s.awaitCondition(host, model.CodeNodeDiffers)
	out, status := s.command(host, "apply", "--config", "/run/pgrex-other/pgrex.yaml")
	if status != 3 || !strings.Contains(out, "no steps") || !strings.Contains(out, string(model.CodeNodeDiffers)) {
		s.t.Errorf("apply under the name of %s ends with %d: %s", other, status, out)
	}
	if after := s.sql(host, query); after != before || !strings.Contains(after, s.slot(other)) {
		s.t.Errorf("%s has %s, and had %s", host, after, before)
	}
	s.stop(host)
	s.start(host)
	s.awaitRight(patience, primary)
}
