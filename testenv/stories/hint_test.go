package stories

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestCrashHint: a crash of the primary is told to Pacemaker at once, and once; another host is promoted, and no
// acknowledged commit is lost. Whatever else ends a server is told to nobody: a standby's crash, an operation, Pacemaker's
// own stop, and pg_ctl by hand, even where it stops nothing in order.
func TestCrashHint(t *testing.T) {
	on(t, releases, everywhere, threeHosts(), func(s *story) {
		s.settle(s.primary())
		_, err := s.lab.Exec(s.ctx, s.primary(), "crm_resource", "--resource", "msPostgresql", "--meta",
			"--set-parameter", model.MetaCrashHint, "--parameter-value", "true")
		s.must(err)
		s.startLoad()
		s.chapter("a crash of the primary", func(s *story) { s.primaryCrashes() })
		s.chapter("a crash of a standby", func(s *story) { s.standbyCrashes() })
		s.chapter("operations", func(s *story) { s.operationsGiveNoHint() })
		s.chapter("Pacemaker stops", func(s *story) { s.pacemakerGivesNoHint() })
		s.chapter("pg_ctl by hand", func(s *story) { s.pgCtlGivesNoHint() })
		s.endLoad()
	})
}

// hints are how often the daemons have given one, by their status and by their journals.
func (s *story) hints() (all int) {
	s.t.Helper()
	for _, host := range s.lab.Hosts() {
		said, err := s.lab.Journal(s.ctx, host, "pgrex", s.begin, "--output=cat")
		s.must(err)
		logged := strings.Count(said, `msg="crash hint given"`)
		status, err := s.status(host)
		s.must(err)
		if uint64(logged) != status.CrashHint.Given {
			s.t.Errorf("%s has logged %d hints, and its status says %d", host, logged, status.CrashHint.Given)
		}
		all += logged
	}
	return all
}

// awaitHintReady waits until a crash of the primary would be told, and every host's postmaster is watched.
func (s *story) awaitHintReady() (primary string) {
	s.t.Helper()
	primary = s.primary()
	s.awaitRight(patience, primary)
	for _, host := range s.lab.Hosts() {
		s.await(patience, host+" is ready for a crash", func() (bool, string) {
			status, err := s.status(host)
			hint := status.CrashHint
			return err == nil && hint.Enabled && hint.Postmaster > 0 && hint.Would == (host == primary), fmt.Sprintf("%+v %v", hint, err)
		})
	}
	return primary
}

// awaitEnd waits until a host's daemon has judged the end of a postmaster that was watched.
func (s *story) awaitEnd(host string, postmaster int32) model.CrashHint {
	s.t.Helper()
	var last model.CrashHint
	s.await(patience, host+" has seen the end of its postmaster", func() (bool, string) {
		status, err := s.status(host)
		if status.CrashHint.Last != nil {
			last = *status.CrashHint.Last
		}
		return err == nil && last.PID == postmaster, fmt.Sprintf("%+v %v", status.CrashHint, err)
	})
	return last
}

// noHint does something that ends the server on a host, and wants no hint, for a reason that the status has. It returns
// the status from before.
func (s *story) noHint(host, why string, do func()) {
	s.t.Helper()
	before := s.hints()
	status := s.hintStatus(host)
	do()
	last := s.awaitEnd(host, status.Postmaster)
	s.t.Logf("%s: no hint: %s", host, last.Why)
	if last.Given || !strings.Contains(last.Why, why) {
		s.t.Errorf("%s says %+v, and not %q", host, last, why)
	}
	if now := s.hints(); now != before {
		s.t.Errorf("%d hints were given", now-before)
	}
}

func (s *story) hintStatus(host string) controller.CrashHintStatus {
	s.t.Helper()
	status, err := s.status(host)
	s.must(err)
	return status.CrashHint
}

// back has a host come back by pgrex rejoin, after its server has failed.
func (s *story) back(host string) {
	s.t.Helper()
	s.awaitCondition(s.primary(), model.CodeRejoinNeeded)
	if out, status := s.rejoin(host, "--yes"); status != 0 {
		s.t.Fatalf("pgrex rejoin: %d, %s", status, out)
	}
	s.awaitStreams(s.primary(), host)
	s.neverCopied(host)
}

// awaitOther waits until another host is the primary.
func (s *story) awaitOther(than string) {
	s.t.Helper()
	s.await(patience, "another primary than "+than, func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		return err == nil && now != than, fmt.Sprint(now, err)
	})
	s.awaitPrimary(s.primary())
}

func (s *story) primaryCrashes() {
	old := s.awaitHintReady()
	if out, _ := s.command(old, "doctor"); !strings.Contains(out, "is told to Pacemaker at once; now it would be") {
		s.t.Errorf("pgrex doctor says:\n%s", out)
	}
	postmaster := s.hintStatus(old).Postmaster
	s.must(s.lab.Crash(s.ctx, old))
	if last := s.awaitEnd(old, postmaster); !last.Given {
		s.t.Errorf("no hint was given: %+v", last)
	}
	s.awaitCondition(old, model.CodeCrashHint)
	s.awaitOther(old)
	s.back(old)
	s.await(patience, "the crash is over on "+old, func() (bool, string) {
		codes := fmt.Sprint(s.conditions(old))
		return codes == "[]", codes
	})
	if n := s.hints(); n != 1 {
		s.t.Errorf("%d hints for one crash", n)
	}
}

func (s *story) standbyCrashes() {
	standby := s.others(s.awaitHintReady())[0]
	s.noHint(standby, `the control file says "in archive recovery"`, func() { s.must(s.lab.Crash(s.ctx, standby)) })
	s.back(standby)
}

func (s *story) operationsGiveNoHint() {
	primary := s.awaitHintReady()
	s.awaitSuccessor(s.others(primary)...)
	s.noHint(primary, "the postmaster was told to stop", func() { s.says(primary, 0, "", "switchover", "--yes") })
	primary = s.awaitHintReady()
	s.awaitSuccessor(s.others(primary)...)
	s.noHint(primary, "the postmaster was told to stop", func() { s.says(primary, 0, "is stopped", "stop", "--force", "--yes") })
	s.awaitOther(primary)
	s.says(primary, 0, "", "rejoin", "--yes")
	s.awaitStreams(s.primary(), primary)
	standby := s.others(s.awaitHintReady())[0]
	s.awaitUnpromoted(standby)
	s.noHint(standby, "the postmaster was told to stop", func() { s.says(standby, 0, "is stopped", "stop", "--yes") })
	s.says(standby, 0, "is started", "start", "--yes")
	s.awaitStreams(s.primary(), standby)
}

// pacemakerGivesNoHint: a node in standby has its primary demoted and stopped; a demotion alone is what a ban of the
// promoted role does.
func (s *story) pacemakerGivesNoHint() {
	primary := s.awaitHintReady()
	s.awaitSuccessor(s.others(primary)...)
	s.noHint(primary, "the postmaster was told to stop", func() { s.must(s.lab.Standby(s.ctx, primary)) })
	s.awaitOther(primary)
	s.says(primary, 0, "", "rejoin", "--yes")
	s.awaitStreams(s.primary(), primary)
	primary = s.awaitHintReady()
	s.awaitSuccessor(s.others(primary)...)
	s.noHint(primary, "the postmaster was told to stop", func() {
		_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--ban", "--resource", "msPostgresql", "--node", primary, "--promoted")
		s.must(err)
	})
	s.awaitOther(primary)
	_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--clear", "--resource", "msPostgresql")
	s.must(err)
	s.awaitCondition(primary, model.CodeServerDown)
	s.back(primary)
}

func (s *story) pgCtlGivesNoHint() {
	for _, mode := range []string{"fast", "immediate"} {
		primary := s.awaitHintReady()
		s.awaitSuccessor(s.others(primary)...)
		s.noHint(primary, "the postmaster was told to stop", func() {
			_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", primary, s.at.Bin+"/pg_ctl", "stop", "-D", s.at.Data, "-m", mode)
			s.must(err)
		})
		s.awaitOther(primary)
		s.back(primary)
	}
}
