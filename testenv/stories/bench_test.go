package stories

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// rexMonitor is PG-REX's own interval of the promoted monitor.
const rexMonitor = 9 * time.Second

// TestCrashFigures measures for how long nobody can write through the virtual IP after the primary's postmaster was
// killed, at a random moment of PG-REX's monitor interval, with the crash hint and without. hack/bench tells it:
// PGREX_BENCH is how often each is measured.
func TestCrashFigures(t *testing.T) {
	times, err := strconv.Atoi(os.Getenv("PGREX_BENCH"))
	if err != nil || times < 1 {
		t.Skip("PGREX_BENCH is not set: hack/bench tells this story")
	}
	config := threeHosts()
	config.Monitor = rexMonitor
	on(t, releases, everywhere, config, func(s *story) {
		s.settle(s.primary())
		s.startTicks()
		table := []string{s.machine(), fmt.Sprintf("%-12s %4s %8s %8s %8s", "write gap", "n", "median", "min", "max")}
		for _, hint := range []string{"true", "false"} {
			_, err := s.lab.Exec(s.ctx, s.primary(), "crm_resource", "--resource", "msPostgresql", "--meta",
				"--set-parameter", model.MetaCrashHint, "--parameter-value", hint)
			s.must(err)
			var gaps []time.Duration
			for range times {
				gaps = append(gaps, s.crashGap(hint == "true"))
			}
			slices.Sort(gaps)
			seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
			table = append(table, fmt.Sprintf("%-12s %4d %8s %8s %8s", map[string]string{"true": "with a hint", "false": "without"}[hint], len(gaps),
				seconds(median(gaps)), seconds(gaps[0]), seconds(gaps[len(gaps)-1])))
			s.t.Logf("hint %s: %v", hint, gaps)
		}
		s.t.Log("\n" + strings.Join(table, "\n"))
	})
}

// median is that of durations in order.
func median(sorted []time.Duration) time.Duration {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ticks writes a row each 0.1 s over a connection of its own, and notes when that was acknowledged, in milliseconds.
const ticks = `#!/bin/sh
while :; do
	psql -XAtq 'host=` + testenv.VIP + ` user=postgres dbname=postgres connect_timeout=1 tcp_user_timeout=1000' \
		-c 'INSERT INTO tick VALUES (now())' >/dev/null 2>&1 && date +%s%3N >>~/ticks
	sleep 0.1
done
`

// startTicks lets a host that is there for that write all the time.
func (s *story) startTicks() {
	s.t.Helper()
	_, err := s.lab.VIPSQL(s.ctx, "CREATE TABLE tick (at timestamptz)")
	s.must(err)
	s.must(s.lab.WriteFile(s.ctx, s.loadHost(), "/usr/local/bin/ticks", ticks, 0o755))
	s.must(s.lab.WriteFile(s.ctx, s.loadHost(), "/etc/systemd/system/ticks.service",
		"[Service]\nUser=postgres\nExecStart=/usr/local/bin/ticks\n", 0o644))
	_, err = s.lab.Exec(s.ctx, s.loadHost(), "systemctl", "start", "ticks")
	s.must(err)
}

// ticked is when the last writes were acknowledged, in milliseconds, since a moment.
func (s *story) ticked(since int64) (at []int64) {
	s.t.Helper()
	out, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", s.loadHost(), "sh", "-c", fmt.Sprintf("awk '$1 >= %d' ~/ticks", since))
	s.must(err)
	for line := range strings.Lines(out) {
		n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		s.must(err)
		at = append(at, n)
	}
	return at
}

// crashGap kills the primary's postmaster, and returns the longest time between two writes around that. Then the host
// comes back.
func (s *story) crashGap(hint bool) time.Duration {
	s.t.Helper()
	old := s.awaitSteady(hint)
	given := s.hints()
	time.Sleep(time.Duration(rand.Int64N(int64(rexMonitor)))) // a random moment of the interval
	began := time.Now().UnixMilli()
	s.must(s.lab.Crash(s.ctx, old))
	s.awaitOther(old)
	back := time.Now().UnixMilli()
	var at []int64
	s.await(patience, "writes go on", func() (bool, string) {
		at = s.ticked(began - 2000)
		return len(at) > 1 && at[len(at)-1] > back, fmt.Sprint(len(at), " writes")
	})
	var gap int64
	for i := range at[1:] {
		gap = max(gap, at[i+1]-at[i])
	}
	if n := s.hints() - given; n != map[bool]int{true: 1}[hint] {
		s.t.Errorf("%d hints were given", n)
	}
	s.back(old)
	return time.Duration(gap) * time.Millisecond
}

// awaitSteady waits until the cluster is as it was before the last crash, with or without a hint to come.
func (s *story) awaitSteady(hint bool) (primary string) {
	s.t.Helper()
	primary = s.primary()
	s.awaitRight(patience, primary)
	s.awaitSuccessor(s.others(primary)...)
	s.await(patience, primary+" is ready for a crash", func() (bool, string) {
		status, err := s.status(primary)
		return err == nil && status.CrashHint.Would == hint && status.CrashHint.Enabled == hint, fmt.Sprintf("%+v %v", status.CrashHint, err)
	})
	return primary
}

// machine is where this was measured, and with what.
func (s *story) machine() string {
	s.t.Helper()
	status, err := s.status(s.primary())
	s.must(err)
	out, err := s.lab.Exec(s.ctx, s.primary(), "sh", "-c", `echo "$(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"`)
	s.must(err)
	return fmt.Sprintf("%s; %s; Pacemaker %s, resource-agents %s, PostgreSQL %s; sync, a write each 0.1 s, monitor %s", s.lab.Config().System,
		strings.TrimSpace(out), status.Versions.Pacemaker, status.Versions.ResourceAgents, status.Versions.PostgreSQL, rexMonitor)
}
