package stories

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv"
)

// TestStartAndStop: hosts are stopped and started one by one and all together; who has stale data does not start first.
func TestStartAndStop(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}}, func(s *story) {
		primary := s.primary()
		standbys := s.others(primary)
		s.settle(primary)
		s.chapter("what runs is started, and the primary goes last", func(s *story) {
			for _, host := range s.lab.Hosts() {
				s.says(host, 0, "nothing to do", "start", "--yes")
			}
			s.says(primary, 1, "type sudo pgrex switchover first", "stop", "--yes")
			s.says(primary, 2, standbys[0]+" takes over", "stop", "--force", "--dry-run")
			s.says(standbys[0], 1, "there is no terminal", "stop")
			s.says(standbys[0], 64, "", "stop", "now")
		})
		s.chapter("a standby", func(s *story) {
			before := s.modes(standbys[0])
			goesOn := s.beside(standbys[0])
			s.says(standbys[0], 2, "pgrex-stop-pgsql-"+standbys[0], "stop", "--dry-run")
			s.says(standbys[0], 0, "is stopped", "stop", "--yes")
			s.says(standbys[0], 0, "nothing to do", "stop", "--yes")
			goesOn()
			s.load(primary, 200<<20)
			_, err := s.lab.Exec(s.ctx, standbys[0], "touch", s.at.Lock) // what it has is proven by the primary: the lock may go
			s.must(err)
			s.says(standbys[0], 2, "remove "+s.at.Lock, "start", "--dry-run")
			s.says(standbys[0], 0, "is started", "start", "--yes")
			s.awaitStreams(primary, standbys[0])
			s.says(standbys[0], 0, "is stopped", "stop", "--yes")
			s.says(standbys[0], 0, standbys[0]+" is back", "rejoin", "--yes")
			s.awaitStreams(primary, standbys[0])
			goesOn()
			s.sameModes(standbys[0], before)
			s.neverCopied(standbys[0])
		})
		s.chapter("interrupted", func(s *story) { s.stopInterrupted(primary, standbys[0]) })
		s.chapter("all of them, and the newest first", func(s *story) { s.stopAll(primary, standbys) })
		s.chapter("failover, and a host whose data parted", func(s *story) {
			s.says(primary, 0, "is stopped", "stop", "--force", "--yes")
			s.await(patience, "another primary", func() (bool, string) {
				now, err := s.lab.Primary(s.ctx)
				return err == nil && now != primary, fmt.Sprint(now, err)
			})
			s.awaitPrimary(s.primary())
			out, status := s.operate(primary, "start", "--dry-run")
			switch { // whether it had written what no standby has is chance
			case status == 2 && strings.Contains(out, "which this host can follow"):
			case status == 1 && strings.Contains(out, "type sudo pgrex rejoin here"):
			default:
				s.t.Errorf("start after a failover ends with %d", status)
			}
		})
	})
}

// says runs one of pgrex's operations, and sees how it ends and what it says.
func (s *story) says(host string, status int, text string, arguments ...string) {
	s.t.Helper()
	out, got := s.operate(host, arguments...)
	if got != status || !strings.Contains(out, text) {
		s.t.Fatalf("it ends with %d, not %d, or does not say %q", got, status, text)
	}
}

// beside starts another resource on a host. It returns a check that the resource still runs there, and was not
// restarted.
func (s *story) beside(host string) (goesOn func()) {
	s.t.Helper()
	for _, part := range [][2]string{
		{"resources", `<primitive id="beside" class="ocf" provider="heartbeat" type="Dummy"/>`},
		{"constraints", `<rsc_location id="beside-there" rsc="beside" node="` + host + `" score="INFINITY"/>`},
	} {
		_, err := s.lab.Exec(s.ctx, host, "cibadmin", "--create", "--scope", part[0], "--xml-text", part[1])
		s.must(err)
	}
	began := func() string { // with the number of the call
		out, err := s.lab.Exec(s.ctx, host, "sh", "-c", `cibadmin --query --xpath "//node_state[@uname='`+host+
			`']//lrm_resource[@id='beside']/lrm_rsc_op[@operation='start'][@rc-code='0']" 2>&1 || true`)
		s.must(err)
		return out
	}
	s.await(patience, "the other resource runs on "+host, func() (bool, string) {
		out := began()
		return strings.Contains(out, "call-id="), out
	})
	before := began()
	return func() {
		s.t.Helper()
		if now := began(); now != before {
			s.t.Errorf("the other resource on %s was stopped or started again: before %s, now %s", host, before, now)
		}
	}
}

// stopInterrupted: Ctrl-C while the stop is under way. The standby streams again.
func (s *story) stopInterrupted(primary, host string) {
	err := s.interrupt(host, "INT", stepSaid("cibadmin --create --scope constraints "), "stop")
	out := s.interruptedOutput(host)
	s.must(err)
	if !strings.Contains(out, "undone: ") {
		s.t.Error("it was not undone")
	}
	s.awaitStreams(primary, host)
}

// startInterrupted: Ctrl-C once Pacemaker may start the database of a host that must not be the first. All is as it
// was.
func (s *story) startInterrupted(host string) {
	s.t.Helper()
	found := func() string {
		status, err := s.lab.Status(s.ctx)
		s.must(err)
		for _, h := range status.Hosts {
			if h.Name == host {
				_, err := s.lab.Exec(s.ctx, host, "test", "-e", s.at.Lock)
				return fmt.Sprintf("%s, data %s, locked: %t", h.Status, h.DataStatus, err == nil)
			}
		}
		return "not there"
	}
	before := found()
	err := s.interrupt(host, "INT", stepSaid("crm_resource --clear --resource msPostgresql"), "start", "--force")
	out := s.interruptedOutput(host)
	s.must(err)
	if after := found(); after != before || strings.Contains(out, "could not be undone") {
		s.t.Errorf("before it was %s, now %s", before, after)
	}
}

// setDataStatus has a host write what the agent would have written for a member.
func (s *story) setDataStatus(host, member, status string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "crm_attribute", "--node", member, "--lifetime", "forever", "--name", "pgsql-data-status",
		"--update="+status)
	s.must(err)
}

// stopAll stops every host, the primary last, and starts them again. The first to start has to be the one that ended
// last: another was away while that one was written to.
func (s *story) stopAll(primary string, standbys []string) {
	for _, host := range standbys {
		s.awaitUnpromoted(host) // one was started just now: a stop refuses while Pacemaker's view of the host changes
		s.says(host, 0, "is stopped", "stop", "--yes")
		s.awaitDisconnected(primary, host) // the agent's next monitor writes it
	}
	s.sql(primary, "CREATE TABLE last AS SELECT 1 AS written")
	s.says(primary, 2, "this is the last host that runs: the database is down then", "stop", "--dry-run")
	s.says(primary, 0, "is stopped", "stop", "--yes")
	status, err := s.lab.Status(s.ctx)
	s.must(err)
	for _, h := range status.Hosts {
		s.t.Logf("%s is %s, its data %s", h.Name, h.Status, h.DataStatus)
		if (h.DataStatus == "LATEST") != (h.Name == primary) {
			s.t.Errorf("the data status of %s is %s", h.Name, h.DataStatus)
		}
	}
	s.says(standbys[0], 1, primary+" has the newest data", "start", "--yes")
	s.says(standbys[0], 2, "what only other hosts have is lost", "start", "--force", "--dry-run")
	_, err = s.lab.Exec(s.ctx, primary, "touch", s.at.Lock)
	s.must(err)
	// As if no monitor had come between the last standby's stop and the primary's: it could have been promoted since.
	s.setDataStatus(primary, standbys[1], "STREAMING|SYNC")
	s.says(primary, 1, s.at.Lock+" is there", "start", "--yes")
	s.setDataStatus(primary, standbys[1], "DISCONNECT")
	s.says(primary, 2, "it is proven that no other host has newer data, although "+s.at.Lock+" is there", "start", "--dry-run")
	for _, host := range []string{primary, standbys[0]} {
		s.startInterrupted(host)
	}
	_, err = s.lab.Exec(s.ctx, primary, "rm", s.at.Lock)
	s.must(err)
	s.says(primary, 0, "is started", "start", "--yes")
	if got := s.sql(primary, "SELECT written FROM last"); got != "1" {
		s.t.Errorf("what was written last is %q", got)
	}
	for _, host := range standbys {
		s.says(host, 0, "is started", "start", "--yes")
		s.awaitStreams(primary, host)
		s.neverCopied(host)
	}
	s.awaitRight(patience, primary)
}
