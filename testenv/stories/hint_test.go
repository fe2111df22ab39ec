package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestCrashHint: a crash of the primary is told to Pacemaker at once, and once; another host is promoted, and no
// acknowledged commit is lost. Whatever else ends a server is told to nobody: a standby's crash, an operation, Pacemaker's
// own stop, and pg_ctl by hand, even where it stops nothing in order.
func TestCrashHint(t *testing.T) {
	on(t, releases, everywhere, threeHosts(), func(s *story) {
		s.settle(s.primary())
		s.setCrashHint("true")
		s.startLoad()
		s.chapter("a crash of the primary", func(s *story) {
			s.primaryCrashes(func(host string) { s.must(s.lab.Crash(s.ctx, host)) })
		})
		// PG-REX sets restart_after_crash to off: the postmaster ends, too.
		s.chapter("a crash of a backend of the primary", func(s *story) { s.primaryCrashes(s.killBackend) })
		s.chapter("a crash of a standby", func(s *story) { s.standbyCrashes() })
		s.endLoad() // crm_resource --restart stops the standbys first: then the agent lets the primary commit alone
		for _, end := range plannedEnds {
			s.chapter(end.what, func(s *story) { end.do(s) })
		}
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
	out, status := s.rejoin(host, "--yes")
	if status != 0 || strings.Contains(out, "the way back is copy") { // a rewind brings the primary's mark, too
		s.t.Fatalf("pgrex rejoin: %d, %s", status, out)
	}
	s.awaitStreams(s.primary(), host)
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

// primaryCrashes: the primary's server ends as it should not.
func (s *story) primaryCrashes(crash func(host string)) {
	before := s.hints()
	old := s.awaitHintReady()
	if out, _ := s.command(old, "doctor"); !strings.Contains(out, "is told to Pacemaker at once; now it would be") {
		s.t.Errorf("pgrex doctor says:\n%s", out)
	}
	postmaster := s.hintStatus(old).Postmaster
	crash(old)
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
	if n := s.hints() - before; n != 1 {
		s.t.Errorf("%d hints for one crash", n)
	}
}

func (s *story) standbyCrashes() {
	standby := s.others(s.awaitHintReady())[0]
	s.noHint(standby, `the control file says "in archive recovery"`, func() { s.must(s.lab.Crash(s.ctx, standby)) })
	s.back(standby)
}

// plannedEnds are the ways in which a server ends, or seems to, that are no crash.
var plannedEnds = []struct {
	what string
	do   func(s *story)
}{
	{"switchover", (*story).switchoverGivesNoHint},
	{"stop of the primary", (*story).stopGivesNoHint},
	{"stop of a standby", (*story).standbysStopGivesNoHint},
	{"standby mode", (*story).standbyModeGivesNoHint},
	{"Pacemaker ends", (*story).pacemakersEndGivesNoHint},
	{"a demotion", (*story).demotionGivesNoHint},
	{"crm_resource --restart", (*story).restartGivesNoHint},
	{"pg_ctl stop -m fast", func(s *story) { s.pgCtlGivesNoHint("fast") }},
	{"pg_ctl stop -m immediate", func(s *story) { s.pgCtlGivesNoHint("immediate") }},
	{"a backend is killed", (*story).backendGivesNoHint},
}

// stopped is why there is no hint where a server was told to end.
const stopped = "the postmaster was told to stop"

// setCrashHint switches the hint on or off.
func (s *story) setCrashHint(value string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, s.primary(), "crm_resource", "--resource", "msPostgresql", "--meta",
		"--set-parameter", model.MetaCrashHint, "--parameter-value", value)
	s.must(err)
}

// awaitHintAndHeir is awaitHintReady, with a standby that may take over.
func (s *story) awaitHintAndHeir() (primary string) {
	s.t.Helper()
	primary = s.awaitHintReady()
	s.awaitSuccessor(s.others(primary)...)
	return primary
}

// rejoins brings a host back that waits for it, after a planned end.
func (s *story) rejoins(host string) {
	s.t.Helper()
	s.says(host, 0, "", "rejoin", "--yes")
	s.awaitStreams(s.primary(), host)
}

func (s *story) switchoverGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() { s.says(primary, 0, "", "switchover", "--yes") })
}

func (s *story) stopGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() { s.says(primary, 0, "is stopped", "stop", "--force", "--yes") })
	s.awaitOther(primary)
	s.rejoins(primary)
}

func (s *story) standbysStopGivesNoHint() {
	standby := s.others(s.awaitHintReady())[0]
	s.awaitUnpromoted(standby)
	s.noHint(standby, stopped, func() { s.says(standby, 0, "is stopped", "stop", "--yes") })
	s.says(standby, 0, "is started", "start", "--yes")
	s.awaitStreams(s.primary(), standby)
}

func (s *story) standbyModeGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() { s.must(s.lab.Standby(s.ctx, primary)) })
	s.awaitOther(primary)
	s.rejoins(primary)
}

func (s *story) pacemakersEndGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() { s.onRoot(primary, "systemctl stop pacemaker") })
	s.awaitOther(primary)
	s.onRoot(primary, "systemctl start pacemaker")
	s.back(primary)
}

// demotionGivesNoHint: a demotion alone is what a ban of the promoted role does.
func (s *story) demotionGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() {
		_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--ban", "--resource", "msPostgresql", "--node", primary, "--promoted")
		s.must(err)
	})
	s.awaitOther(primary)
	_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--clear", "--resource", "msPostgresql")
	s.must(err)
	s.awaitCondition(primary, model.CodeServerDown)
	s.back(primary)
}

// restartGivesNoHint: Pacemaker stops the database on every host, and starts it again. The agent's lock then keeps the
// last primary from starting.
func (s *story) restartGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() {
		_, err := s.lab.Exec(s.ctx, primary, "crm_resource", "--restart", "--resource", "msPostgresql", "--timeout", "120s")
		s.must(err)
	})
	s.awaitOther(primary)
	s.back(primary)
}

func (s *story) pgCtlGivesNoHint(mode string) {
	primary := s.awaitHintAndHeir()
	s.noHint(primary, stopped, func() {
		_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", primary, s.at.Bin+"/pg_ctl", "stop", "-D", s.at.Data, "-m", mode)
		s.must(err)
	})
	s.awaitOther(primary)
	s.back(primary)
}

// backendGivesNoHint: with restart_after_crash the postmaster ends all backends and recovers, and goes on itself. If the
// agent looks meanwhile, Pacemaker stops the database, and another host takes over.
func (s *story) backendGivesNoHint() {
	primary := s.awaitHintAndHeir()
	s.sql(primary, "ALTER SYSTEM SET restart_after_crash = on")
	s.sql(primary, "SELECT pg_reload_conf()")
	s.await(patience, "restart_after_crash counts", func() (bool, string) {
		out := s.ask(primary, "SHOW restart_after_crash")
		return out == "on", out
	})
	hints, recoveries := s.hints(), s.recoveries(primary)
	s.killBackend(primary)
	s.await(patience, "it has recovered", func() (bool, string) {
		n := s.recoveries(primary)
		return n > recoveries, fmt.Sprint(n)
	})
	since := time.Now()
	s.await(patience, "it goes on for some monitors, or another host has taken over", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		if err == nil && now != primary && slices.Contains(s.conditions(primary), model.CodeRejoinNeeded) {
			s.rejoins(primary)
			return true, ""
		}
		out, err := s.lab.SQL(s.ctx, primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
		if now != primary || err != nil || strings.TrimSpace(out) != "1" { // the agent may not have looked yet, or have just done so
			since = time.Now()
		}
		return time.Since(since) > 3*s.lab.Config().Monitor, fmt.Sprint(now, out, err)
	})
	if n := s.hints() - hints; n != 0 {
		s.t.Errorf("%d hints were given", n)
	}
	s.sql(primary, "ALTER SYSTEM RESET restart_after_crash")
	s.sql(primary, "SELECT pg_reload_conf()")
}

// killBackend kills one backend of a host's server.
func (s *story) killBackend(host string) {
	s.t.Helper()
	s.asOwner(host, "psql -XAtqc 'SELECT pg_backend_pid()' -c 'SELECT pg_sleep(600)' postgres >/tmp/backend 2>/dev/null &\n"+
		"until test -s /tmp/backend; do sleep 0.1; done; kill -9 $(cat /tmp/backend); rm /tmp/backend")
}

// recoveries are how often the postmaster of a host has ended all its backends.
func (s *story) recoveries(host string) int {
	s.t.Helper()
	log, err := s.lab.Log(host, "postgresql")
	s.must(err)
	return strings.Count(log, "all server processes terminated; reinitializing")
}
