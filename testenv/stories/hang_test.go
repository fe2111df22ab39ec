package stories

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// shortWatchdog is the unit's WatchdogSec in this story, and hangsFor how long a server hangs: longer than that.
const (
	shortWatchdog = 15
	hangsFor      = 3 * shortWatchdog * time.Second
)

// TestHang: PostgreSQL hangs for longer than the watchdog waits, whole or in the daemon's session alone. The daemon
// goes on,
// says since when, leaves one session at most, and sees to what is due once the server goes on.
func TestHang(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{
		Hosts: []string{"pm01", "pm02"}, PostgreSQL: map[string]string{"log_connections": "on"},
	}, func(s *story) {
		primary := s.primary()
		standby := s.others(primary)[0]
		s.start(s.lab.Hosts()...)
		for _, host := range s.lab.Hosts() {
			s.override(host, fmt.Sprintf("[Service]\nWatchdogSec=%d\n", shortWatchdog))
			s.awaitActive(host)
		}
		s.awaitRight(patience, primary)
		s.chapter("the standby's session", func(s *story) { s.sessionHangs(primary, standby) })
		s.chapter("the primary's session", func(s *story) { s.sessionHangs(primary, primary) })
		s.maintenance("true") // or Pacemaker would see to a server that hangs
		s.chapter("all of the standby", func(s *story) { s.serverHangs(primary, standby) })
		s.chapter("all of the primary", func(s *story) { s.serverHangs(primary, primary) })
		s.chapter("the daemon is stopped meanwhile", func(s *story) { s.stoppedMeanwhile(primary, standby) })
		s.maintenance("false")
		s.awaitRight(patience, primary)
	})
}

func (s *story) maintenance(value string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, s.lab.Hosts()[0], "crm_attribute", "--type", "crm_config", "--name", "maintenance-mode", "--update="+value)
	s.must(err)
}

// hanging is a server that hangs, and what its daemon was before.
type hanging struct {
	*story
	host, pid, restarts string
	sessions            int // let in so far
}

func (s *story) hanging(host string) hanging {
	s.t.Helper()
	return hanging{s, host, s.show(host, "MainPID"), s.show(host, "NRestarts"), s.letIn(host)}
}

// letIn counts the sessions of the host's own pgrex that its server ever let in.
func (s *story) letIn(host string) (count int) {
	s.t.Helper()
	log, err := s.lab.Log(host, "postgresql")
	s.must(err)
	for line := range strings.Lines(log) {
		if strings.Contains(line, " connection authorized") && strings.Contains(line, "application_name=pgrex") && !strings.Contains(line, "replication connection") {
			count++
		}
	}
	return count
}

// awaitSaid waits until the daemon says that its server hangs, and since when. It says the same as long as that lasts.
func (h hanging) awaitSaid() {
	h.t.Helper()
	said := func() string {
		status, err := h.status(h.host)
		for _, c := range status.Conditions {
			if c.Code == model.CodeServerDown {
				return c.Text
			}
		}
		return fmt.Sprint(status.Summary, err)
	}
	first := ""
	h.await(patience, h.host+" says that its server hangs", func() (bool, string) {
		first = said()
		return strings.Contains(first, "has not answered") && strings.Contains(first, " since 2"), first
	})
	h.t.Logf("%s: %s", h.host, first)
	waited := "" // at the look before: each connection is there for a moment before it is accepted
	for end := time.Now().Add(hangsFor); time.Now().Before(end); time.Sleep(time.Second) {
		if now := said(); now != first {
			h.t.Fatalf("%s said %q, and then %q", h.host, first, now)
		}
		seen := h.waiting()
		if seen != "" && waited != "" {
			h.t.Fatal(waited, seen)
		}
		waited = seen
	}
}

// waiting tells of more connections that wait to be accepted than there may be: none at the socket, where pgrex keeps a
// session; at the port one of the other host's pgrex, and one of its walreceiver.
func (h hanging) waiting() string {
	out, err := h.lab.Exec(h.ctx, h.host, "ss", "-Hlxt")
	h.must(err)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		most := map[bool]int{true: 0, false: 2}[fields[0] == "u_str"]
		if queued, err := strconv.Atoi(fields[2]); strings.Contains(line, "5432") && (err != nil || queued > most) {
			return fmt.Sprintf("connections wait at %s: %s", h.host, line)
		}
	}
	return ""
}

// wantUnharmed wants the daemon to be the same process, with the session that it had.
func (h hanging) wantUnharmed(primary string) {
	h.t.Helper()
	h.awaitRight(patience, primary)
	h.await(patience, h.host+" says nothing more of that", func() (bool, string) {
		seen := fmt.Sprint(h.conditions(h.host))
		return !strings.Contains(seen, string(model.CodeServerDown)), seen
	})
	if pid, restarts := h.show(h.host, "MainPID"), h.show(h.host, "NRestarts"); pid != h.pid || restarts != h.restarts {
		h.t.Errorf("the daemon was process %s and restarted %s times, and is process %s and restarted %s times", h.pid, h.restarts, pid, restarts)
	}
	if now := h.letIn(h.host); now != h.sessions {
		h.t.Errorf("the server let pgrex in %d times more", now-h.sessions)
	}
}

// sessionHangs: the one process that serves the daemon hangs, with a slot to be made. It stands for a disk that
// stalls as the
// slot is written: a lab host has none that could be stalled by itself.
func (s *story) sessionHangs(primary, host string) {
	const mine = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'pgrex' AND backend_type = 'client backend'"
	h := s.hanging(host)
	backend := s.sql(host, mine)
	s.onRoot(host, "kill -STOP "+backend)
	s.sql(host, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name LIKE 'pgrex%'")
	h.awaitSaid()
	if now := s.sql(host, mine); now != backend {
		s.t.Errorf("the daemon's sessions are %s, and were %s", now, backend)
	}
	s.onRoot(host, "kill -CONT "+backend)
	h.wantUnharmed(primary)
}

// serverHangs: all of a server's processes hang, so that connecting does, too.
func (s *story) serverHangs(primary, host string) {
	h := s.hanging(host)
	s.must(s.lab.Freeze(s.ctx, host))
	h.awaitSaid()
	s.must(s.lab.Thaw(s.ctx, host))
	h.wantUnharmed(primary)
}

// stoppedMeanwhile: the daemon ends in time although its server hangs.
func (s *story) stoppedMeanwhile(primary, host string) {
	s.must(s.lab.Freeze(s.ctx, host))
	s.await(patience, host+" says that its server hangs", func() (bool, string) {
		status, err := s.status(host)
		seen := fmt.Sprint(status.Summary, err)
		return strings.Contains(seen, "has not answered"), seen
	})
	s.onRoot(host, "systemctl stop pgrex")
	if result := s.show(host, "Result"); result != "success" {
		s.t.Errorf("the end of the daemon: %s", result)
	}
	s.must(s.lab.Thaw(s.ctx, host))
	s.onRoot(host, "systemctl start pgrex")
	s.awaitRight(patience, primary)
}
