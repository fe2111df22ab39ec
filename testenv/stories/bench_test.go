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
// killed, at a random moment of PG-REX's monitor interval, with the crash hint and without; and how long it takes until
// that host streams again without a person, after the crash, and after power came back. hack/bench tells it.
func TestCrashFigures(t *testing.T) {
	times := benchTimes(t)
	config := threeHosts()
	config.Monitor, config.DataBytes = rexMonitor, 300<<20
	on(t, releases, everywhere, config, func(s *story) {
		s.settle(s.primary())
		s.comesBackAlone("rewind")
		s.startTicks()
		s.t.Log("\n" + s.machine())
		for _, hint := range []string{"true", "false"} {
			s.setCrashHint(hint)
			what := map[string]string{"true": "with a hint", "false": "without a hint"}[hint]
			var gaps, backs, received []float64
			for range times {
				m := s.measureCrash(hint == "true")
				gaps, backs, received = append(gaps, m.gap), append(backs, m.back), append(received, m.received)
			}
			s.figures("write gap, "+what, "s", gaps)
			s.figures("back after the crash, "+what, "s", backs)
			s.figures("received for that", "MiB", received)
		}
		var backs, received []float64
		for range times {
			m := s.measurePowerOn()
			backs, received = append(backs, m.back), append(received, m.received)
		}
		s.figures("back after Pacemaker is up", "s", backs)
		s.figures("received for that", "MiB", received)
	})
}

// TestPlannedEnds does each thing that ends a server in a planned way, again and again, and wants no hint. hack/bench
// tells it.
func TestPlannedEnds(t *testing.T) {
	times := benchTimes(t)
	on(t, releases, everywhere, threeHosts(), func(s *story) {
		s.settle(s.primary())
		s.setCrashHint("true")
		before := s.hints()
		for range times {
			for _, end := range plannedEnds {
				s.chapter(end.what, func(s *story) { end.do(s) })
			}
		}
		if n := s.hints() - before; n != 0 {
			s.t.Errorf("%d hints were given", n)
		}
		s.t.Logf("\n%s: %d planned ends of a server, no hint", s.lab.Config().System, times*len(plannedEnds))
	})
}

// benchTimes is how often hack/bench wants each thing measured: PGREX_BENCH.
func benchTimes(t *testing.T) int {
	t.Helper()
	times, err := strconv.Atoi(os.Getenv("PGREX_BENCH"))
	if err != nil || times < 1 {
		t.Skip("PGREX_BENCH is not set: hack/bench tells this story")
	}
	return times
}

// figures logs what was measured of one thing.
func (s *story) figures(what, unit string, values []float64) {
	s.t.Helper()
	slices.Sort(values)
	n := len(values)
	s.t.Logf("\n%-36s n=%d median %.1f %s, %.1f to %.1f\n  all: %.1f", what, n, (values[(n-1)/2]+values[n/2])/2, unit, values[0], values[n-1], values)
}

// measured is one failure: seconds without a write, seconds until the host streams again, and the MiB that it received
// meanwhile.
type measured struct{ gap, back, received float64 }

// ticks begins a write each 0.1 s, over a connection of its own, and notes when that was acknowledged, in milliseconds. It
// waits for none of them: one that waits for an address that nobody has would hide those after it.
const ticks = `#!/bin/sh
while sleep 0.1; do
	timeout 3 psql -XAtq 'host=` + testenv.VIP + ` user=postgres dbname=postgres connect_timeout=2' \
		-c 'INSERT INTO tick VALUES (now())' >/dev/null 2>&1 && date +%s%3N >>~/ticks &
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
	slices.Sort(at)
	return at
}

// measureCrash kills the primary's postmaster, and waits until that host is back.
func (s *story) measureCrash(hint bool) (m measured) {
	s.t.Helper()
	old := s.awaitSteady(hint)
	given, received := s.hints(), s.received(old)
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
	m.gap, m.back = float64(gap)/1000, float64(s.streamsSince(old)-began)/1000
	m.received = float64(s.received(old)-received) / (1 << 20)
	if n := s.hints() - given; n != map[bool]int{true: 1}[hint] {
		s.t.Errorf("%d hints were given", n)
	}
	s.t.Logf("%s crashed (hint: %t): %+v, %s", old, hint, m, s.wayBack(old))
	s.neverCopied(old)
	return m
}

// measurePowerOn cuts the primary's power, and gives it power again once another host is the primary.
func (s *story) measurePowerOn() (m measured) {
	s.t.Helper()
	old := s.awaitSteady(false)
	s.must(s.lab.Off(s.ctx, old))
	s.awaitOther(old)
	s.must(s.lab.On(s.ctx, old))
	streams := s.streamsSince(old)
	at, err := s.lab.Exec(s.ctx, old, "systemctl", "show", "--value", "--timestamp=us+utc", "--property", "ActiveEnterTimestamp", "pacemaker")
	s.must(err)
	up, err := time.Parse("Mon 2006-01-02 15:04:05.000000 MST", strings.TrimSpace(at))
	s.must(err)
	// Its network is a new one since the boot.
	m = measured{back: float64(streams-up.UnixMilli()) / 1000, received: float64(s.received(old)) / (1 << 20)}
	s.t.Logf("%s had no power: %+v, %s", old, m, s.wayBack(old))
	s.neverCopied(old)
	return m
}

// wayBack waits until a host's way back without a person has ended, and returns which one it was.
func (s *story) wayBack(host string) (way string) {
	s.t.Helper()
	s.await(patience, "its way back has ended", func() (bool, string) {
		a := s.remembered(host)
		if a.Last != nil {
			way = a.Last.Way
		}
		return a.Last != nil, fmt.Sprintf("%+v", a)
	})
	return way
}

// streamsSince waits until a host streams, and returns since when the primary has its connection, in milliseconds. The
// hosts have one clock.
func (s *story) streamsSince(host string) int64 {
	s.t.Helper()
	s.awaitStreams(s.primary(), host)
	return s.number(s.primary(), "SELECT (extract(epoch FROM backend_start) * 1000)::bigint FROM pg_stat_replication WHERE application_name = '"+
		host+"'")
}

// awaitSteady waits until the cluster is as it was before the last failure, with or without a hint to come. Each failure
// is the first of its hour.
func (s *story) awaitSteady(hint bool) (primary string) {
	s.t.Helper()
	primary = s.primary()
	s.awaitRight(patience, primary)
	s.awaitSuccessor(s.others(primary)...)
	s.forgetReturns(primary)
	s.awaitAlone(primary, "this host is the primary")
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
	return fmt.Sprintf("%s; %s; Pacemaker %s, resource-agents %s, PostgreSQL %s; sync, %s of data, a write each 0.1 s, monitor %s", s.lab.Config().System,
		strings.TrimSpace(out), status.Versions.Pacemaker, status.Versions.ResourceAgents, status.Versions.PostgreSQL, model.FormatBytes(uint64(s.lab.Config().DataBytes)), rexMonitor)
}
