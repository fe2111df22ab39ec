package stories

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestSwitchoverOfTwo: a pair that replicates synchronously changes its primary there and back, under load; in long
// five times.
func TestSwitchoverOfTwo(t *testing.T) {
	times := 1
	if long() {
		times = 5
	}
	on(t, releases, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02"}}, func(s *story) {
		s.prepareSwitchover()
		s.startLoad()
		for range times {
			s.switchover("pm01", "pm02")
			s.switchover("pm02", "pm01", "--to", "pm01")
		}
		s.endLoad()
	})
}

// TestSwitchoverOfThree: what it refuses, what an interrupt leaves, and once around under load, where the agent
// promotes any standby that has all (async).
func TestSwitchoverOfThree(t *testing.T) {
	inLong(t)
	on(t, debian13Only, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}, RepMode: "async"}, func(s *story) {
		s.prepareSwitchover()
		s.chapter("refused", func(s *story) { s.switchoverRefused("pm01", "pm02", "pm03") })
		s.startLoad()
		s.chapter("interrupted", func(s *story) { s.switchoverInterrupted("pm01", "pm03") })
		s.chapter("around", func(s *story) {
			s.switchover("pm01", "pm02", "--to", "pm02")
			s.switchover("pm02", "pm03", "--to", "PM03")
			s.switchover("pm03", "pm01")
		})
		s.endLoad()
	})
}

func (s *story) prepareSwitchover() {
	s.t.Helper()
	s.start(s.lab.Hosts()...)
	s.awaitRight(patience, "pm01") // the lab's first primary
	s.awaitPrimary("pm01")
	for _, host := range s.lab.Hosts() {
		s.mark(host)
	}
}

var writeGap = regexp.MustCompile(`write gap: ([0-9]+) ms`)

// switchover makes another host the primary, and sees that nobody was copied or rewound, that all stream through their
// own slots, and that nothing is left in the CIB.
func (s *story) switchover(from, to string, arguments ...string) {
	s.t.Helper()
	s.awaitPromotable(from, to, arguments...)
	began, before := time.Now(), s.modes(from)
	out, status := s.operate(from, append([]string{"switchover", "--yes"}, arguments...)...)
	gap := writeGap.FindStringSubmatch(out)
	if status != 0 || gap == nil {
		s.t.Fatalf("switchover from %s to %s ends with %d", from, to, status)
	}
	s.t.Logf("%s -> %s: write gap %s ms, %s in all", from, to, gap[1], time.Since(began).Round(100*time.Millisecond))
	if now := s.primary(); now != to {
		s.t.Fatalf("the primary is %s", now)
	}
	s.nothingLeft(to)
	s.awaitRight(patience, to)
	for _, host := range s.lab.Hosts() {
		s.neverCopied(host)
		s.ownRights(host)
	}
	s.sameModes(from, before)
	if log, err := s.lab.Exec(s.ctx, from, "sh", "-c", "ls -d "+s.at.Data+".* 2>/dev/null || true"); err != nil || log != "" {
		s.t.Errorf("this is left on %s: %s (%v)", from, log, err)
	}
}

// nothingLeft: neither maintenance nor a ban nor a failure, as the cluster was before.
func (s *story) nothingLeft(at string) {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, at, "sh", "-c", `cibadmin --query | grep -E '"maintenance-mode"|id="cli-|name="fail-count-|name="standby"' || true`)
	s.must(err)
	if out != "" {
		s.t.Errorf("this is left in the CIB: %s", out)
	}
}

func (s *story) switchoverRefused(primary, target, other string) {
	refused := func(host, why string, arguments ...string) {
		s.t.Helper()
		out, status := s.operate(host, append([]string{"switchover", "--yes"}, arguments...)...)
		if status != 1 || !strings.Contains(out, why) {
			s.t.Errorf("%v on %s ends with %d, and does not say %q", arguments, host, status, why)
		}
	}
	refused(other, "run it on "+primary)
	refused(primary, "not in the agent's node_list", "--to", "pm09")
	refused(primary, "is the primary already", "--to", primary)
	s.awaitPromotable(primary, target, "--to", target) // or that is what it says
	if out, status := s.operate(primary, "switchover"); status != 1 || !strings.Contains(out, "say --yes") {
		s.t.Errorf("with nobody to ask it ends with %d", status)
	}
	out, err := s.lab.ExecAs(s.ctx, "postgres", "haclient", primary, pgrex, "switchover", "--yes")
	if err == nil || !strings.Contains(err.Error(), "sudo pgrex switchover") {
		s.t.Errorf("with haclient, which a server that is started again would get: %s, %v", out, err)
	}
	cluster := func(arguments ...string) {
		s.t.Helper()
		_, err := s.lab.Exec(s.ctx, primary, arguments...)
		s.must(err)
	}
	cluster("crm_attribute", "--type", "crm_config", "--name", "maintenance-mode", "--update=true")
	refused(primary, "is in maintenance, where Pacemaker starts and stops nothing")
	cluster("crm_attribute", "--type", "crm_config", "--name", "maintenance-mode", "--delete")
	cluster("crm_attribute", "--node", target, "--name", "maintenance", "--update=true")
	refused(primary, target+" is in maintenance", "--to", target)
	cluster("crm_attribute", "--node", target, "--name", "maintenance", "--delete")
	cluster("crm_resource", "--ban", "--resource", "msPostgresql", "--node", target, "--promoted")
	refused(primary, "crm_resource --clear", "--to", target)
	cluster("crm_resource", "--clear", "--resource", "msPostgresql")
	s.refusedForItsTarget(primary, target, refused)
	s.nothingLeft(primary)
	s.awaitRight(patience, primary)
}

// refusedForItsTarget: a standby without slots, without a stream, and out of service.
func (s *story) refusedForItsTarget(primary, target string, refused func(host, why string, arguments ...string)) {
	s.awaitPromotable(primary, target, "--to", target)
	if _, status := s.operate(primary, "pause"); status != 0 {
		s.t.Fatalf("pause ends with %d", status)
	}
	s.awaitCondition(target, model.CodePaused)
	s.sql(target, "SELECT pg_drop_replication_slot('"+s.slot(primary)+"')")
	refused(primary, "not reserved ("+s.slot(primary)+")", "--to", target)
	if _, status := s.operate(primary, "resume"); status != 0 {
		s.t.Fatalf("resume ends with %d", status)
	}
	s.sql(target, "ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.1'")
	s.sql(target, "SELECT pg_reload_conf()")
	s.await(patience, target+" does not stream", func() (bool, string) {
		out := s.ask(primary, "SELECT count(*) FROM pg_stat_replication WHERE application_name = '"+target+"'")
		return out == "0", out
	})
	refused(primary, target+" does not stream", "--to", target)
	s.sql(target, "ALTER SYSTEM RESET primary_conninfo")
	s.sql(target, "SELECT pg_reload_conf()")
	s.must(s.lab.Standby(s.ctx, target))
	refused(primary, target+" is in standby", "--to", target)
	s.must(s.lab.Unstandby(s.ctx, target))
	_, err := s.lab.Exec(s.ctx, primary, "crm_attribute", "--node", target, "--name", "standby", "--delete")
	s.must(err)
	s.awaitStreams(primary, target)
}

// switchoverInterrupted: Ctrl-C while PostgreSQL is being shut down, and the target receives nothing. This host is the
// primary again, and nobody was promoted.
func (s *story) switchoverInterrupted(primary, target string) {
	timeline := s.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint()")
	done := make(chan error)
	go func() {
		done <- s.interrupt(primary, "INT", stepSaid("see that .* still follows"), "switchover", "--to", target)
	}()
	s.await(patience, "maintenance-mode", func() (bool, string) {
		out, err := s.lab.Exec(s.ctx, primary, "grep", stepSaid("set maintenance-mode=true"), interruptLog)
		return err == nil, out
	})
	// Not the whole server, which is asked once more before the shutdown.
	receiver := s.sql(target, "SELECT pid FROM pg_stat_wal_receiver")
	s.onRoot(target, "kill -STOP "+receiver)
	err := <-done
	s.onRoot(target, "kill -CONT "+receiver)
	out := s.interruptedOutput(primary)
	s.must(err)
	if !regexp.MustCompile(`(?m)^undone: .*/pg_ctl restart`).MatchString(out) || !strings.Contains(out, "pgrex: interrupted") {
		s.t.Error("it does not say what was undone")
	}
	s.awaitPrimary(primary)
	s.ownRights(primary)
	s.ownScope(primary)
	s.nothingLeft(primary)
	s.awaitRight(patience, primary)
	if now := s.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint()"); now != timeline {
		s.t.Errorf("the timeline was %s and is %s: somebody was promoted", timeline, now)
	}
	// Later, when Pacemaker has the database again, the cluster goes on by itself.
	s.awaitPromotable(primary, target, "--to", target)
	err = s.interrupt(primary, "HUP", stepSaid("set maintenance-mode=false"), "switchover", "--to", target)
	out = s.interruptedOutput(primary)
	s.must(err)
	if !strings.Contains(out, "pgrex rejoin") {
		s.t.Error("it does not say what to type")
	}
	s.await(patience, "a primary", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		return err == nil, fmt.Sprint(now, err)
	})
	now := s.primary()
	s.nothingLeft(now)
	s.awaitRight(patience, now)
	s.t.Logf("the primary is %s", now)
	if now != primary {
		s.switchover(now, primary, "--to", primary)
	}
}

// ownScope: the server that an undone switchover has started ends neither with the session nor with a unit.
func (s *story) ownScope(host string) {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "sh", "-ec", `cat "/proc/$(head -1 "$1/postmaster.pid")/cgroup"`, "sh", s.at.Data)
	s.must(err)
	if !regexp.MustCompile(`(?m):/system\.slice/pgrex-(switchover|operation-undo)-[0-9]+\.scope$`).MatchString(out) {
		s.t.Errorf("the server on %s is in %s", host, out)
	}
	out, err = s.lab.Exec(s.ctx, host, "systemctl", "show", "--property=Before", "--property=KillSignal", "--property=TimeoutStopUSec", "pgrex-*.scope")
	s.must(err)
	for _, want := range []string{"pacemaker.service", "KillSignal=15", "TimeoutStopUSec=1min"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("%s is not in %s", want, out)
		}
	}
}

// awaitPromotable waits until nothing speaks against a host any more: the agent says at its monitors only who may be
// promoted.
func (s *story) awaitPromotable(primary, host string, arguments ...string) {
	s.t.Helper()
	s.await(patience, host+" can be the primary", func() (bool, string) {
		out, status := s.asRoot(primary, append([]string{"switchover", "--dry-run"}, arguments...)...)
		return status == 2 && strings.Contains(out, host+" is confirmed as primary"), out
	})
}

// A writer gives each row a number of its own, and notes it once the commit is acknowledged. A connection that ends
// leaves one row in doubt, whose number is not used again.
const writer = `#!/bin/sh
attempt=0
while :; do
	attempt=$((attempt + 1))
	seq -f "INSERT INTO ledger SELECT $1, $attempt::bigint * 10000000 + %.0f FROM pg_sleep(0.02) RETURNING id;" 1 9999999 |
		psql -XAtq -v ON_ERROR_STOP=1 'host=` + testenv.VIP + ` user=postgres dbname=postgres connect_timeout=2 tcp_user_timeout=3000' \
			2>/dev/null | sed -u "s/^/$1,/" >>~/acknowledged.$1
	sleep 0.5
done
`

const writers = 3

// startLoad lets clients on the last host write through the virtual IP.
func (s *story) startLoad() {
	s.t.Helper()
	_, err := s.lab.VIPSQL(s.ctx, "CREATE TABLE ledger (writer int, id bigint, payload text DEFAULT repeat('x', 200), PRIMARY KEY (writer, id))")
	s.must(err)
	s.must(s.lab.WriteFile(s.ctx, s.loadHost(), "/usr/local/bin/writer", writer, 0o755))
	s.must(s.lab.WriteFile(s.ctx, s.loadHost(), "/etc/systemd/system/writer@.service",
		"[Service]\nUser=postgres\nExecStart=/usr/local/bin/writer %i\n", 0o644))
	for n := range writers {
		_, err := s.lab.Exec(s.ctx, s.loadHost(), "systemctl", "start", fmt.Sprintf("writer@%d", n))
		s.must(err)
	}
	s.awaitAcknowledged()
}

func (s *story) loadHost() string { return s.lab.Hosts()[len(s.lab.Hosts())-1] }

// awaitAcknowledged waits until every writer gets on.
func (s *story) awaitAcknowledged() {
	s.t.Helper()
	for n := range writers {
		before := s.ask(s.primary(), fmt.Sprintf("SELECT count(*) FROM ledger WHERE writer = %d", n))
		s.await(patience, fmt.Sprintf("writer %d gets on", n), func() (bool, string) {
			now := s.ask(s.primary(), fmt.Sprintf("SELECT count(*) FROM ledger WHERE writer = %d", n))
			return now != before && !strings.HasPrefix(now, "error"), now
		})
	}
}

// endLoad proves that every row that was acknowledged is there: by count and by checksum.
func (s *story) endLoad() {
	s.t.Helper()
	s.awaitAcknowledged()
	for n := range writers {
		_, err := s.lab.Exec(s.ctx, s.loadHost(), "systemctl", "stop", fmt.Sprintf("writer@%d", n))
		s.must(err)
	}
	_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", s.loadHost(), "sh", "-c",
		`psql -XAtq -v ON_ERROR_STOP=1 'host=`+testenv.VIP+` user=postgres dbname=postgres' -c 'CREATE TABLE acknowledged (writer int, id bigint)' &&
grep -hE '^[0-9]+,[0-9]{8,}$' ~/acknowledged.* |
psql -XAtq -v ON_ERROR_STOP=1 'host=`+testenv.VIP+` user=postgres dbname=postgres' -c "COPY acknowledged FROM STDIN (FORMAT csv)"`)
	s.must(err)
	const sum = "SELECT count(*) || ' rows, checksum ' || coalesce(sum(hashtextextended(writer || ':' || id, 0)), 0) FROM acknowledged"
	primary := s.primary()
	noted, found := s.sql(primary, sum), s.sql(primary, sum+" JOIN ledger USING (writer, id) WHERE payload = repeat('x', 200)")
	all := s.number(primary, "SELECT count(*) FROM ledger")
	s.t.Logf("acknowledged: %s; found: %s; %d rows in all", noted, found, all)
	if noted != found || s.number(primary, "SELECT count(DISTINCT writer) FROM acknowledged") != writers {
		s.t.Errorf("acknowledged were %s, but found are %s", noted, found)
	}
	for _, host := range s.others(primary) {
		s.await(patience, host+" has the same rows", func() (bool, string) {
			out := s.ask(host, "SELECT count(*) FROM ledger")
			return out == fmt.Sprint(all), out
		})
	}
}
