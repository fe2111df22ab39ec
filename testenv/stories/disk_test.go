package stories

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

const (
	walDisk = 512 << 20 // each host's file system for WAL
)

// TestNoDiskFillsUp: a standby stays away under steady load until the budget ends. The primary never stops taking
// writes, nobody but that standby loses its slot, it is said in time, and after rejoin all is well again.
func TestNoDiskFillsUp(t *testing.T) {
	on(t, debian13Only, everywhere, testenv.Config{
		Hosts: []string{"pm01", "pm02", "pm03"}, WALBytes: walDisk, Properties: map[string]string{"no-quorum-policy": "freeze"},
	}, func(s *story) {
		primary := s.primary()
		other, away := s.others(primary)[0], s.others(primary)[1]
		s.start(s.lab.Hosts()...)
		s.awaitRight(patience, primary)
		budget := s.awaitBudget()
		s.chapter("a standby is off", func(s *story) {
			f := s.flood(primary, []string{away}, func() { s.must(s.lab.Off(s.ctx, away)) })
			f.keptWriting(budget)
			f.warned(away)
			f.forecastTurned(primary, away)
			f.forecastTurned(other, away)
			s.must(s.lab.On(s.ctx, away))
			s.backByCopy(f, away)
		})
		if !long() {
			return // the rest takes ten minutes
		}
		s.chapter("pgrex is killed as it begins", func(s *story) {
			f := s.flood(primary, []string{away}, func() {
				s.stop(primary)
				s.must(s.lab.Standby(s.ctx, away))
			})
			f.keptWriting(budget)
			s.start(primary)
			s.must(s.lab.Unstandby(s.ctx, away))
			s.backByCopy(f, away)
		})
		s.chapter("two standbys are off", func(s *story) {
			f := s.flood(primary, []string{other, away}, func() {
				s.must(s.lab.Standby(s.ctx, other))
				s.must(s.lab.Standby(s.ctx, away))
			})
			f.keptWriting(budget)
			f.warned(other)
			f.warned(away)
			for _, host := range []string{other, away} {
				s.must(s.lab.Unstandby(s.ctx, host))
				s.backByCopy(f, host)
			}
		})
		s.chapter("the operator's own limit", func(s *story) {
			const limit = 192
			s.pin(limit)
			f := s.flood(primary, []string{away}, func() { s.must(s.lab.Standby(s.ctx, away)) })
			f.keptWriting(limit << 20)
			f.warned(away)
			s.must(s.lab.Unstandby(s.ctx, away))
			s.backByCopy(f, away)
		})
	})
}

// awaitBudget waits until every host has a budget, and the same one: they have the same disks.
func (s *story) awaitBudget() (bytes int64) {
	s.t.Helper()
	s.await(patience, "a budget on every host", func() (bool, string) {
		seen := map[int64]bool{}
		for _, host := range s.lab.Hosts() {
			n, err := strconv.ParseInt(s.ask(host, slotLimit), 10, 64)
			if err != nil || n <= 0 {
				return false, fmt.Sprint(host, " has ", n, err)
			}
			seen[n], bytes = true, n<<20
		}
		return len(seen) == 1, fmt.Sprint(seen)
	})
	s.t.Logf("the budget is %s of %s", model.FormatBytes(uint64(bytes)), model.FormatBytes(walDisk))
	return bytes
}

// slotLimit reads max_slot_wal_keep_size in MB.
const slotLimit = "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"

// pin has the operator set max_slot_wal_keep_size in every postgresql.conf, and waits until that counts.
func (s *story) pin(megabytes int) {
	s.t.Helper()
	for _, host := range s.lab.Hosts() {
		_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", host, "sh", "-c",
			fmt.Sprintf("echo 'max_slot_wal_keep_size = %dMB' >>%s", megabytes, s.at.Config))
		s.must(err)
		s.sql(host, "SELECT pg_reload_conf()")
	}
	for _, host := range s.lab.Hosts() {
		s.await(patience, host+" heeds the operator's limit", func() (bool, string) {
			now := s.ask(host, slotLimit)
			return now == strconv.Itoa(megabytes), now
		})
		s.awaitCondition(host, model.CodeBudgetPinned)
	}
}

// flood is what was seen while standbys were away under load.
type flood struct {
	*story
	primary string
	away    []string
	begin   time.Time
	end     time.Duration // the last slot was lost

	mu       sync.Mutex
	acks     int
	gap      time.Duration // the longest between two commits
	failed   error         // of a write
	highest  map[string]int64
	held     map[string]model.LSN     // for a host that is away, by the primary's slot as long as that was not lost
	lost     map[string]time.Duration // "HOST's SLOT", when it was seen to be lost
	said     map[string]time.Duration // "CODE of SUBJECT" on the primary, when it was first seen
	forecast map[string]string        // a host's pgrex-forecast, as last seen
	turned   map[string]time.Duration // "HOST: FORECAST", when it was first seen
}

// flood lets standbys go and writes on the primary, steadily, until the slots of all of them are lost there.
func (s *story) flood(primary string, away []string, leave func()) *flood {
	s.t.Helper()
	f := &flood{
		story: s, primary: primary, away: away, highest: map[string]int64{}, held: map[string]model.LSN{}, lost: map[string]time.Duration{},
		said: map[string]time.Duration{}, forecast: map[string]string{}, turned: map[string]time.Duration{},
	}
	leave()
	f.begin = time.Now()
	ctx, stop := context.WithCancel(s.ctx)
	var writing sync.WaitGroup
	writing.Go(func() { f.write(ctx) })
	defer func() {
		stop()
		writing.Wait()
		f.report()
	}()
	s.await(4*time.Minute, fmt.Sprintf("the slots of %s are lost on %s", away, primary), func() (bool, string) {
		f.look()
		for _, host := range away {
			if _, ok := f.lost[primary+"'s "+s.slot(host)]; !ok {
				return false, fmt.Sprint(f.highest, f.said)
			}
		}
		return true, ""
	})
	f.end = time.Since(f.begin)
	// What PostgreSQL lets go it frees within this checkpoint; pgrex looks again every ten seconds.
	s.sql(primary, "CHECKPOINT")
	return f
}

// floodEvery is how often a megabyte of WAL is written, at most: between two looks of pgrex, which are ten seconds
// apart, less than lies between its warnings, which are 15 % of the budget apart.
const floodEvery = 400 * time.Millisecond

// write commits a row with each megabyte of WAL.
func (f *flood) write(ctx context.Context) {
	tick := time.NewTicker(floodEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := f.lab.SQL(ctx, f.primary, `SELECT pg_catalog.pg_logical_emit_message(true, 'flood', pg_catalog.repeat('x', 1000000));
			INSERT INTO rexlab.writes VALUES (0, now(), 'flood') ON CONFLICT (id) DO UPDATE SET at = now()`)
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		if err != nil && f.failed == nil {
			f.failed = err
		}
		f.acks++
		f.gap = max(f.gap, time.Since(last))
		f.mu.Unlock()
		last = time.Now()
	}
}

// look takes what there is to see on the hosts that run: what they foretell first, so that the loss behind it is seen,
// too.
func (f *flood) look() {
	now := time.Since(f.begin)
	running := slices.DeleteFunc(f.lab.Hosts(), func(host string) bool { return slices.Contains(f.away, host) })
	for _, host := range running {
		out, err := f.lab.Exec(f.ctx, host, "attrd_updater", "--query", "--name", model.ForecastAttribute("pgsql"), "--node", host)
		if err == nil { // there may be none yet
			_, value, _ := strings.Cut(out, `value="`)
			f.forecast[host], _, _ = strings.Cut(value, `"`)
			note(f.turned, host+": "+f.forecast[host], now)
		}
	}
	for _, host := range running {
		out, err := f.lab.Exec(f.ctx, host, "df", "--block-size=1", "--output=used", f.at.WAL)
		f.must(err)
		used, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(out), "Used")), 10, 64)
		f.must(err)
		f.highest[host] = max(f.highest[host], used)
	}
	f.lookAtSlots(running, now)
	status, err := f.status(f.primary)
	if err != nil {
		return // it may be stopped
	}
	for _, c := range status.Conditions {
		note(f.said, string(c.Code)+" of "+c.Subject, now)
	}
}

// lookAtSlots notes those that are lost. A standby's pgrex makes a lost slot again at once where the primary still has
// the WAL: then it begins after what the primary holds. The primary is asked last, since the standbys' slots follow
// its own.
func (f *flood) lookAtSlots(running []string, now time.Duration) {
	begins := map[string]model.LSN{}
	standbys := slices.DeleteFunc(slices.Clone(running), func(host string) bool { return host == f.primary })
	for _, host := range append(standbys, f.primary) {
		out := f.sql(host, "SELECT slot_name, coalesce(restart_lsn, '0/0'), wal_status = 'lost' FROM pg_replication_slots")
		for line := range strings.Lines(out) {
			column := strings.Split(strings.TrimSpace(line), "|")
			begin, err := model.ParseLSN(column[1])
			f.must(err)
			slot := host + "'s " + column[0]
			begins[slot] = begin
			if column[2] == "t" {
				note(f.lost, slot, now)
			}
		}
	}
	for _, away := range f.away {
		slot := "'s " + f.slot(away)
		if held := begins[f.primary+slot]; held.IsValid() {
			f.held[away] = held
		}
		for _, host := range standbys {
			if held := f.held[away]; held.IsValid() && begins[host+slot] > held {
				note(f.lost, host+slot, now)
			}
		}
	}
}

func note(when map[string]time.Duration, what string, now time.Duration) {
	if _, ok := when[what]; !ok {
		when[what] = now
	}
}

// report writes what was measured to the log.
func (f *flood) report() {
	f.t.Logf("%d commits of 1 MB, the longest wait for one %s", f.acks, f.gap.Round(10*time.Millisecond))
	for _, host := range slices.Sorted(maps.Keys(f.highest)) {
		f.t.Logf("%s: %s of %s were used at most, %d %%", host, model.FormatBytes(uint64(f.highest[host])),
			model.FormatBytes(walDisk), f.highest[host]*100/walDisk)
	}
	for _, what := range []struct {
		text string
		when map[string]time.Duration
	}{{"said", f.said}, {"lost", f.lost}, {"forecast", f.turned}} {
		byTime := func(a, b string) int { return int(what.when[a] - what.when[b]) }
		for _, name := range slices.SortedFunc(maps.Keys(what.when), byTime) {
			f.t.Logf("%s after %s: %s", what.text, what.when[name].Round(100*time.Millisecond), name)
		}
	}
}

// keptWriting proves that no write failed, that no disk came near its end, and that nobody else has lost a slot.
func (f *flood) keptWriting(budget int64) {
	f.t.Helper()
	if f.failed != nil || f.acks == 0 {
		f.t.Errorf("of %d writes one failed: %v", f.acks, f.failed)
	}
	// Beyond the budget a disk has at most what is written until the next checkpoint has ended, and what is kept for
	// later.
	most := budget + 128<<20 + 64<<20
	for host, used := range f.highest {
		if used > most {
			f.t.Errorf("on %s %s were used, more than %s", host, model.FormatBytes(uint64(used)), model.FormatBytes(uint64(most)))
		}
	}
	for what := range f.lost {
		if !slices.ContainsFunc(f.away, func(host string) bool { return strings.HasSuffix(what, "'s "+f.slot(host)) }) {
			f.t.Errorf("%s is lost", what)
		}
	}
}

// warned proves that what was said of a host came in order, and before its slot was lost.
func (f *flood) warned(host string) {
	f.t.Helper()
	order := []string{
		"NotAttached of " + host, "BudgetNearlySpent of " + host, "BudgetSpent of " + host,
	}
	last := time.Duration(0)
	for _, what := range order {
		at, ok := f.said[what]
		if !ok || at < last {
			f.t.Errorf("%s was said after %s (%t), which is not in order", what, at, ok)
		}
		last = at
	}
	lost := f.lost[f.primary+"'s "+f.slot(host)]
	if last >= lost {
		f.t.Errorf("%s came after the loss (%s, %s)", order[2], last, lost)
	}
	f.awaitCondition(f.primary, model.CodeRebuildRequired)
	f.t.Logf("%s: nearly spent %s, spent %s before the loss", host,
		(lost - f.said[order[1]]).Round(100*time.Millisecond), (lost - last).Round(100*time.Millisecond))
}

// forecastTurned proves that a candidate's forecast for a host was stream at first and turned to copy, not before WAL
// for it was lost there or on the primary: with the same budget either may come first, by when its next checkpoint
// ends.
func (f *flood) forecastTurned(candidate, host string) {
	f.t.Helper()
	f.await(patience, candidate+" forecasts a copy for "+host, func() (bool, string) {
		f.look()
		return strings.Contains(f.forecast[candidate], host+"=copy"), f.forecast[candidate]
	})
	lost, streams := f.lost[f.primary+"'s "+f.slot(host)], false
	if here, ok := f.lost[candidate+"'s "+f.slot(host)]; ok {
		lost = min(lost, here)
	}
	for what, at := range f.turned {
		if !strings.HasPrefix(what, candidate+": ") {
			continue
		}
		streams = streams || strings.Contains(what, host+"=stream")
		if strings.Contains(what, host+"=copy") {
			f.t.Logf("%s forecast a copy for %s %s after the loss", candidate, host, (at - lost).Round(100*time.Millisecond))
			if at < lost {
				f.t.Errorf("%q was forecast after %s, before the loss after %s", what, at, lost)
			}
		}
	}
	if !streams {
		f.t.Errorf("%s never forecast that %s would stream: %v", candidate, host, f.turned)
	}
}

// backByCopy brings a host back that has lost its slot, and sees that all is well and the disks are free again.
func (s *story) backByCopy(f *flood, host string) {
	s.t.Helper()
	// Pacemaker starts it on its old data. A start that comes after rejoin's look would end that.
	s.await(patience, host+" is a member again", func() (bool, string) {
		_, status := s.asRoot(host, "rejoin", "--dry-run")
		return status == 2, fmt.Sprint(status)
	})
	out, status := s.rejoin(host, "--yes")
	if status != 0 || !strings.Contains(out, "the way back is copy") {
		s.t.Fatalf("%s is not back by copy: %d", host, status)
	}
	back := slices.DeleteFunc(slices.Clone(f.away), func(h string) bool { return h == host })
	f.away = back
	if len(back) > 0 {
		return // another one is still away
	}
	s.awaitRight(patience, f.primary)
	s.await(patience, "all is well on every host", func() (bool, string) {
		for _, h := range s.lab.Hosts() {
			if out, status := s.command(h, "status"); status != 0 {
				return false, out
			}
		}
		return true, ""
	})
	for h, highest := range f.highest {
		s.await(patience, "the WAL on "+h+" goes", func() (bool, string) {
			s.sql(h, "CHECKPOINT")
			held := s.walHeld(h)
			return held < highest/2 || held <= 192<<20, model.FormatBytes(uint64(held))
		})
	}
}
