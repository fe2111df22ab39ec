package stories

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

const (
	walKeepSize = 32 << 20  // as the lab sets it
	maxWALSize  = 128 << 20 // one checkpoint's worth
	segment     = 16 << 20
)

// threeHosts is the cluster of most stories.
func threeHosts() testenv.Config {
	return testenv.Config{Properties: map[string]string{"no-quorum-policy": "freeze"}}
}

// TestHostsComeBack is the seed's story, and the core of all: slots appear, a standby is away across a failover, and
// the old primary comes back by pg_rewind. None needs a copy.
func TestHostsComeBack(t *testing.T) {
	on(t, []place{debian13, debian12, debian13Debian}, everywhere, threeHosts(), func(s *story) {
		pm01 := s.primary()
		pm02, pm03 := s.others(pm01)[0], s.others(pm01)[1]
		s.chapter("slots appear", func(s *story) { s.slotsAppear(pm01) })
		for _, host := range s.lab.Hosts() {
			s.mark(host)
		}
		s.chapter("away across a failover", func(s *story) { s.standbyAwayAcrossFailover(pm01, pm02, pm03) })
		s.chapter("old primary", func(s *story) { s.oldPrimaryBack(pm01, pm02) })
	})
}

// TestSlotsAreKept: slots cost nothing while nothing is written, move with the WAL, and are made again; a standby that
// is a copy of another one takes its own.
func TestSlotsAreKept(t *testing.T) {
	on(t, debian13Only, everywhere, threeHosts(), func(s *story) {
		pm01 := s.primary()
		pm02, pm03 := s.others(pm01)[0], s.others(pm01)[1]
		s.chapter("idle", func(s *story) { s.slotsAppear(pm01); s.idleCostsNothing() })
		s.chapter("a copied standby", func(s *story) { s.copiedStandby(pm01, pm02, pm03) })
		s.chapter("slots move", func(s *story) { s.slotsMove(pm01) })
		s.chapter("dropped by hand", func(s *story) { s.droppedByHand(pm01, pm03) })
	})
}

// TestDoubts: a standby that was away comes back, and nothing is dropped while there is any doubt.
func TestDoubts(t *testing.T) {
	on(t, debian13Only, everywhere, threeHosts(), func(s *story) {
		pm01 := s.primary()
		pm02, pm03 := s.others(pm01)[0], s.others(pm01)[1]
		s.settle(pm01)
		s.chapter("a standby is away", func(s *story) { s.standbyAway(pm01, pm03) })
		s.chapter("doubts", func(s *story) { s.doubts(pm01, pm03) })
		s.chapter("no quorum", func(s *story) { s.noQuorum(pm01, pm02, pm03) })
	})
}

// slotsAppear starts pgrex everywhere and waits until all slots are there and in use.
func (s *story) slotsAppear(primary string) {
	s.start(s.lab.Hosts()...)
	took := s.awaitRight(patience, primary)
	s.t.Logf("all slots reserved and in use %s after pgrex was started", took.Round(10*time.Millisecond))
}

// idleCostsNothing is I9: while every daemon goes on looking, for a minute in long, nothing is written anywhere.
func (s *story) idleCostsNothing() {
	s.t.Helper()
	type writes struct {
		steps    uint64
		settings string
		slots    string
		epoch    string
	}
	look := func(host string) (writes, time.Time) {
		status, err := s.status(host)
		s.must(err)
		settings, err := s.lab.Exec(s.ctx, host, "stat", "-c", "%i %y", s.at.Data+"/postgresql.auto.conf")
		s.must(err)
		epoch, err := s.lab.Exec(s.ctx, host, "sh", "-c", "cibadmin -Q | sed -n 's/.* epoch=\"\\([0-9]*\\)\".*/\\1/p' | head -1")
		s.must(err)
		return writes{
			steps: status.StepsDone, settings: settings, epoch: epoch,
			slots: s.sql(host, "SELECT slot_name, restart_lsn FROM pg_replication_slots WHERE NOT active ORDER BY 1"),
		}, status.Looked
	}
	// A standby's first restartpoint on the primary's timeline ends a doubt, and what was put off for it is done then.
	s.await(patience, "nothing is left to say or to do on any host", func() (bool, string) {
		for _, host := range s.lab.Hosts() {
			if status, err := s.status(host); err != nil || !status.Healthy || len(status.Conditions)+len(status.Planned) > 0 {
				return false, fmt.Sprint(host, ": ", status.Summary, status.Conditions, status.Planned, err)
			}
		}
		return true, ""
	})
	idle := 25 * time.Second // of the daemon's own looks: two close ones among them
	if long() {
		idle = time.Minute
	}
	before, begin := map[string]writes{}, map[string]time.Time{}
	for _, host := range s.lab.Hosts() {
		before[host], begin[host] = look(host)
	}
	for _, host := range s.lab.Hosts() {
		s.await(patience, fmt.Sprintf("%s has looked for %s", host, idle), func() (bool, string) {
			now, looked := look(host)
			if now != before[host] {
				s.t.Fatalf("I9: %s wrote while idle: before %+v, now %+v", host, before[host], now)
			}
			return looked.Sub(begin[host]) >= idle, looked.String()
		})
	}
}

// copiedStandby: pm03 is a copy of pm02, so that it comes up with primary_slot_name of pm02.
func (s *story) copiedStandby(primary, source, copied string) {
	owner := func() string {
		return s.sql(primary, fmt.Sprintf("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '%s'", s.slot(source)))
	}
	before := owner()
	s.must(s.lab.Copy(s.ctx, copied, source))
	s.await(patience, copied+" has its own primary_slot_name", func() (bool, string) {
		if now := owner(); now != before {
			s.t.Fatalf("the slot of %s was taken: its process was %s, now %s", source, before, now)
		}
		out := s.ask(copied, "SHOW primary_slot_name")
		return out == s.slot(copied), out
	})
	s.awaitStreams(primary, copied)
	started, err := time.Parse(time.RFC3339Nano, s.sql(copied,
		`SELECT to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`))
	s.must(err)
	s.t.Logf("right %s after PostgreSQL's start", s.lastDone(copied, "SetPrimarySlotName").Sub(started).Round(time.Millisecond))
	if now := owner(); now != before {
		s.t.Errorf("the slot of %s was taken: its process was %s, now %s", source, before, now)
	}
}

// lastDone is when a host's daemon last did a step of a kind, as the journal says.
func (s *story) lastDone(host, kind string) time.Time {
	s.t.Helper()
	said, err := s.lab.Journal(s.ctx, host, "pgrex", s.begin, "--output=short-unix")
	s.must(err)
	lines := regexp.MustCompile(`(?m)^([0-9]+)\.([0-9]{6}) .*msg="step done" step=`+kind+` `).FindAllStringSubmatch(said, -1)
	if len(lines) == 0 {
		s.t.Fatalf("the journal of %s tells of no %s:\n%s", host, kind, said)
	}
	last := lines[len(lines)-1]
	seconds, err := strconv.ParseInt(last[1], 10, 64)
	s.must(err)
	micros, err := strconv.ParseInt(last[2], 10, 64)
	s.must(err)
	return time.Unix(seconds, micros*1000)
}

// slotsMove: under load the slots on every standby hold no more than two checkpoints' worth.
func (s *story) slotsMove(primary string) {
	most := map[string]int64{}
	first := map[string]string{}
	position := func(host, of string) string {
		return s.sql(host, fmt.Sprintf("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '%s'", s.slot(of)))
	}
	for _, host := range s.others(primary) {
		for _, of := range s.others(host) {
			first[host+of] = position(host, of)
		}
	}
	for range 24 {
		s.must(s.lab.Load(s.ctx, primary, walKeepSize))
		for _, host := range s.others(primary) {
			for _, of := range s.others(host) {
				most[host] = max(most[host], s.retained(host, s.slot(of)))
			}
		}
	}
	for _, host := range s.others(primary) {
		s.t.Logf("%s held at most %s in any slot while %s were written", host, model.FormatBytes(uint64(most[host])), model.FormatBytes(24*walKeepSize))
		if most[host] > 2*maxWALSize+segment {
			s.t.Errorf("%s held %s, more than two checkpoints' worth", host, model.FormatBytes(uint64(most[host])))
		}
		for _, of := range s.others(host) {
			if position(host, of) == first[host+of] {
				s.t.Errorf("on %s the slot for %s has not moved from %s", host, of, first[host+of])
			}
		}
	}
}

// droppedByHand: a slot that somebody drops is made again.
func (s *story) droppedByHand(primary, absent string) {
	s.must(s.lab.Off(s.ctx, absent))
	drop := fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", s.slot(absent))
	s.await(patience, "the absent standby's slot can be dropped", func() (bool, string) {
		out := s.ask(primary, drop)
		return out == "", out
	})
	// Within a second, if nothing holds the daemon up: a test of the controller says so, in fake time.
	took := s.await(patience, "the slot is back, reserved", func() (bool, string) {
		return s.reserved(primary, s.slot(absent))
	})
	s.t.Logf("back, reserved, %s after it was dropped", took.Round(10*time.Millisecond))
	s.must(s.lab.On(s.ctx, absent))
	s.awaitStreams(primary, absent)
}

// standbyAway: a standby is off while far more is written than PostgreSQL keeps by itself.
func (s *story) standbyAway(primary, absent string) {
	s.must(s.lab.Off(s.ctx, absent))
	s.load(primary, 20*walKeepSize)
	s.t.Logf("%s holds %s for %s", primary, model.FormatBytes(uint64(s.retained(primary, s.slot(absent)))), absent)
	s.must(s.lab.On(s.ctx, absent))
	took := s.awaitStreams(primary, absent)
	s.neverCopied(absent)
	s.t.Logf("%s streams again %s after it was switched on, without a copy", absent, took.Round(100*time.Millisecond))
}

// standbyAwayAcrossFailover: another host is promoted while a standby is off.
func (s *story) standbyAwayAcrossFailover(old, next, absent string) {
	s.awaitRight(patience, old)
	s.must(s.lab.Off(s.ctx, absent))
	s.load(old, 10*walKeepSize)
	s.await(patience, next+" has replayed and holds what "+absent+" needs", func() (bool, string) {
		need := s.sql(old, fmt.Sprintf("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '%s'", s.slot(absent)))
		out := s.sql(next, fmt.Sprintf("SELECT restart_lsn <= '%s' FROM pg_replication_slots WHERE slot_name = '%s'", need, s.slot(absent)))
		return out == "t", out
	})
	s.awaitSuccessor(next)
	s.must(s.lab.Crash(s.ctx, old))
	s.t.Logf("%s takes writes %s after the crash of %s", next, s.awaitPrimary(next).Round(100*time.Millisecond), old)
	s.load(next, 10*walKeepSize)
	s.must(s.lab.On(s.ctx, absent))
	took := s.awaitStreams(next, absent)
	s.neverCopied(absent)
	s.t.Logf("%s streams from %s %s after it was switched on, without a copy", absent, next, took.Round(100*time.Millisecond))
}

// oldPrimaryBack: the old primary needs pg_rewind, and pg_rewind finds what it needs.
func (s *story) oldPrimaryBack(old, primary string) {
	s.load(primary, 10*walKeepSize)
	s.t.Logf("%s keeps %s in pg_wal, %s of it for %s", primary, model.FormatBytes(uint64(s.walHeld(primary))),
		model.FormatBytes(uint64(s.retained(primary, s.slot(old)))), old)
	begin := time.Now()
	s.must(s.lab.Rewind(s.ctx, old))
	s.awaitStreams(primary, old)
	s.t.Logf("%s streams from %s %s after pg_rewind was begun, without a copy", old, primary, time.Since(begin).Round(100*time.Millisecond))
	s.awaitRight(patience, primary)
}

// doubts: what forbids anything destructive is said, and holds a drop that is due until it ends.
func (s *story) doubts(primary, standby string) {
	for _, doubt := range []struct {
		code       model.Code
		begin, end []string
	}{
		{model.CodeMaintenance, []string{"crm", "configure", "property", "maintenance-mode=true"},
			[]string{"crm", "configure", "property", "maintenance-mode=false"}},
		{model.CodeUnmanaged, []string{"crm_resource", "--resource", "msPostgresql", "--meta", "--set-parameter", "is-managed", "--parameter-value", "false"},
			[]string{"crm_resource", "--resource", "msPostgresql", "--meta", "--delete-parameter", "is-managed"}},
		{model.CodePaused, []string{"crm_resource", "--resource", "msPostgresql", "--meta", "--set-parameter", "pgrex-paused", "--parameter-value", "true"},
			[]string{"crm_resource", "--resource", "msPostgresql", "--meta", "--delete-parameter", "pgrex-paused"}},
	} {
		_, err := s.lab.Exec(s.ctx, primary, doubt.begin...)
		s.must(err)
		for _, host := range []string{primary, standby} {
			s.awaitCondition(host, doubt.code)
			s.makeOwnSlot(host)
		}
		for _, host := range []string{primary, standby} {
			s.notDropped(host)
		}
		_, err = s.lab.Exec(s.ctx, primary, doubt.end...)
		s.must(err)
		for _, host := range []string{primary, standby} {
			s.awaitDropped(host)
		}
	}
}

// makeOwnSlot makes what is to be dropped: a slot of a host for itself.
func (s *story) makeOwnSlot(host string) {
	s.t.Helper()
	s.sql(host, fmt.Sprintf("SELECT pg_create_physical_replication_slot('%s', true)", s.slot(host)))
}

// notDropped waits until the daemon has read the cluster twice with the slot there, and finds it still there.
func (s *story) notDropped(host string) {
	s.t.Helper()
	var reads []time.Time
	s.await(patience, host+" has looked closely twice", func() (bool, string) {
		status, err := s.status(host)
		if err == nil && slices.ContainsFunc(status.Slots, func(l controllerSlot) bool { return l.Name == s.slot(host) }) &&
			!slices.ContainsFunc(reads, status.Read.Equal) {
			reads = append(reads, status.Read)
		}
		return len(reads) > 1, fmt.Sprint(reads, err)
	})
	if ok, seen := s.reserved(host, s.slot(host)); !ok {
		s.t.Fatalf("%s dropped a slot in doubt; it has %s", host, seen)
	}
}

func (s *story) awaitDropped(host string) {
	s.t.Helper()
	s.await(patience, "the slot of "+host+" for itself is dropped", func() (bool, string) {
		out := s.ask(host, fmt.Sprintf("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '%s'", s.slot(host)))
		return out == "0", out
	})
}

// noQuorum: the primary is cut off from everybody, and the cluster is told to freeze.
func (s *story) noQuorum(primary string, others ...string) {
	for _, host := range others {
		s.must(s.lab.Cut(s.ctx, host))
	}
	s.awaitCondition(primary, model.CodeNoQuorum)
	s.makeOwnSlot(primary)
	s.notDropped(primary)
}
