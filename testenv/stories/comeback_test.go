package stories

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
)

// rejoinDropIn is what a story changes of pgrex-rejoin.service.
const rejoinDropIn = "/etc/systemd/system/pgrex-rejoin.service.d/story.conf"

// TestWithoutAPerson: hosts come back without a person, as far as pgrex-auto-rejoin allows, and are left alone
// otherwise.
func TestWithoutAPerson(t *testing.T) {
	on(t, releases, everywhere, threeHosts(), func(s *story) {
		first := s.primary()
		s.settle(first)
		s.comesBackAlone("rewind")
		s.chapter("its rights", func(s *story) { s.rejoinSandbox(first) })
		s.chapter("left alone", func(s *story) { s.leftAlone(s.others(first)[0]) })
		s.chapter("the primary's server is killed", func(s *story) {
			old := s.primary()
			s.awaitSuccessor(s.others(old)...)
			s.must(s.lab.Crash(s.ctx, old))
			s.backAlone(old, "")
			s.neverCopied(old)
		})
		s.chapter("the primary loses power, and its data have parted", func(s *story) {
			old := s.primary()
			s.part(old, 1)
			returned := s.backAlone(old, "rewind")
			s.givenUpIsKept(old, returned)
		})
		s.chapter("power is cut in the middle", func(s *story) { s.cutInTheMiddle(s.primary()) })
		s.chapter("the service is stopped in the middle", func(s *story) { s.stoppedInTheMiddle(s.primary()) })
		s.chapter("a copy", func(s *story) { s.copiedAlone(s.others(s.primary())[1]) })
		s.chapter("three tries fail", func(s *story) { s.threeTries(s.primary()) })
		s.chapter("no host is the primary", func(s *story) { s.firstAlone(s.primary()) })
		s.chapter("three returns within an hour", func(s *story) { s.flaps(s.others(s.primary())[0]) })
	})
}

// comesBackAlone allows ways back without a person, and runs the service on every host, now and at every boot.
func (s *story) comesBackAlone(dearest string) {
	s.t.Helper()
	s.allowAlone(dearest)
	for _, host := range s.lab.Hosts() {
		s.must(s.lab.WriteFile(s.ctx, host, rejoinDropIn, "[Service]\nExecStart=\nExecStart="+pgrex+" auto-rejoin --retry-wait 1s\n", 0o644))
		s.onRoot(host, "systemctl daemon-reload; systemctl --quiet enable --now pgrex-rejoin")
	}
}

func (s *story) allowAlone(dearest string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, s.primary(), "crm_resource", "--resource", "msPostgresql", "--meta", "--set-parameter", "pgrex-auto-rejoin",
		"--parameter-value", dearest)
	s.must(err)
}

// remembered is what a host remembers of its ways back without a person.
func (s *story) remembered(host string) (a model.AutoRejoin) {
	out, err := s.lab.Exec(s.ctx, host, "cat", "/var/lib/pgrex/auto-rejoin.json")
	if err == nil {
		_ = json.Unmarshal([]byte(out), &a) // it may be there in a moment
	}
	return a
}

// forgetReturns has a host forget how it came back, so that the next return is the first.
func (s *story) forgetReturns(host string) {
	s.t.Helper()
	s.onRoot(host, "systemctl stop pgrex-rejoin; rm -f /var/lib/pgrex/auto-rejoin.json; systemctl start pgrex-rejoin")
}

// backAlone waits until a host has come back without a person, and streams. It returns how.
func (s *story) backAlone(host, way string) model.Returned {
	s.t.Helper()
	before := s.remembered(host)
	took := s.await(2*patience, host+" comes back without a person", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		a := s.remembered(host)
		if err != nil || now == host || a.Last == nil || before.Last != nil && a.Last.At.Equal(before.Last.At) {
			return false, fmt.Sprintf("primary %s, %v; it remembers %+v", now, err, a)
		}
		return s.streams(now, host)
	})
	last := *s.remembered(host).Last
	s.t.Logf("%s streams again %s later: %+v", host, took, last)
	if last.GivenUp != nil {
		s.t.Logf("given up: %+v", *last.GivenUp)
		s.showsGivenUp(host, *last.GivenUp)
	}
	if way != "" && last.Way != way || last.By != model.AutoRejoinWho {
		s.t.Errorf("it came back by %s, as %s", last.Way, last.By)
	}
	s.ownRights(host)
	s.awaitRight(patience, s.primary())
	return last
}

// showsGivenUp: the status has what was given up.
func (s *story) showsGivenUp(host string, g model.GivenUp) {
	s.t.Helper()
	s.await(patience, "the status has what was given up", func() (bool, string) {
		out, _ := s.command(host, "status")
		return strings.Contains(strings.Join(strings.Fields(out), " "), "of WAL from "+g.From.String()+" to "+g.To.String()), out
	})
}

// givenUpIsKept: what was given up is kept, and can be read.
func (s *story) givenUpIsKept(host string, r model.Returned) {
	s.t.Helper()
	if r.GivenUp == nil {
		s.t.Fatal("it does not say what was given up")
	}
	out := s.asOwner(host, "$(grep pg_waldump "+r.GivenUp.Folder+"/how-to-read.txt) 2>/dev/null || true")
	if !strings.Contains(out, "LogicalMessage") { // as part has written them
		s.t.Errorf("the WAL that is kept does not have what was written: %.500s", out)
	}
}

// rejoinSandbox: what the service's two parts may do.
func (s *story) rejoinSandbox(host string) {
	s.await(patience, "it is active", func() (bool, string) {
		out := s.showRejoin(host, "StatusText")
		return s.showRejoin(host, "ActiveState") == "active" && strings.HasPrefix(out, "left alone: "), out
	})
	pid := s.showRejoin(host, "MainPID")
	part := ""
	// The first part has Pacemaker's tools as children, too. Until it is executed, a tool is the same program for a moment.
	s.await(patience, "the other part is found", func() (bool, string) {
		part = s.onRoot(host, "for c in $(cat /proc/"+pid+"/task/*/children); do [ ! /proc/$c/exe -ef /proc/"+pid+"/exe ] || echo $c; done")
		return len(strings.Fields(part)) == 1, part
	})
	said := s.onRoot(host, "cat /proc/"+pid+"/status /proc/"+part+"/status")
	s.t.Log(said)
	parts := strings.Split(said, "Name:\t")[1:]
	for i, want := range [][]string{{"CapBnd:\t00000000000000c0", "Uid:\t0\t", "NoNewPrivs:\t1"}, {"CapEff:\t0000000000000000", "NoNewPrivs:\t1"}} {
		for _, line := range want {
			if i >= len(parts) || !strings.Contains(parts[i], line) {
				s.t.Errorf("part %d has no %q", i, line)
			}
		}
	}
	if got := s.onRoot(host, "ps -o user=,group= -p "+part); strings.Join(strings.Fields(got), " ") != "postgres postgres" {
		s.t.Errorf("the part that does the work is %s", got)
	}
}

func (s *story) showRejoin(host, property string) string {
	s.t.Helper()
	return s.onRoot(host, "systemctl show --value --property "+property+" pgrex-rejoin")
}

// awaitAlone waits until the service on a host says why it leaves that host alone.
func (s *story) awaitAlone(host, why string) {
	s.t.Helper()
	s.await(patience, host+" is left alone: "+why, func() (bool, string) {
		out := s.showRejoin(host, "StatusText")
		return strings.Contains(out, why), out
	})
}

// leftAlone: what an operator has stopped stays stopped.
func (s *story) leftAlone(host string) {
	if _, status := s.operate(host, "stop", "--yes"); status != 0 {
		s.t.Fatal("it is not stopped")
	}
	s.awaitAlone(host, "pgrex keeps the database here stopped")
	if _, status := s.operate(host, "start", "--yes"); status != 0 {
		s.t.Fatal("it is not started")
	}
	s.stopWithLock(host)
	s.awaitAlone(host, "this node is in standby mode")
	if last := s.remembered(host).Last; last != nil {
		s.t.Errorf("it came back: %+v", last)
	}
	s.asOwner(host, "rm "+s.at.Lock)
	s.must(s.lab.Unstandby(s.ctx, host))
	s.awaitRight(patience, s.primary())
	s.awaitAlone(host, "PostgreSQL here is up")
}

// cutInTheMiddle: a host that loses power in the middle goes on after its next boot.
func (s *story) cutInTheMiddle(old string) {
	s.allowAlone("copy")
	s.part(old, 1)
	s.await(2*patience, "it has begun", func() (bool, string) {
		out, err := s.lab.Exec(s.ctx, old, "cat", "/var/lib/pgrex/operation.json")
		return err == nil && strings.Contains(out, `"id": "ended"`), out
	})
	s.must(s.lab.Off(s.ctx, old))
	s.must(s.lab.On(s.ctx, old))
	s.backAlone(old, "")
	s.nothingOfRejoinLeft(old)
}

// stoppedInTheMiddle: systemd leaves pg_rewind time to end, and the service goes on once it is started again.
func (s *story) stoppedInTheMiddle(old string) {
	s.allowAlone("rewind")
	tool := s.at.Bin + "/pg_rewind"
	s.onRoot(old, "mv "+tool+" "+tool+".away; printf '#!/bin/sh\ncase \"$*\" in *--dry-run*) ;; *) touch /tmp/rewinds; sleep 5 ;; esac\n"+
		"exec "+tool+".away \"$@\"\n' >"+tool+"; chmod 755 "+tool)
	s.part(old, 1)
	s.await(2*patience, "pg_rewind is at work", func() (bool, string) {
		_, err := s.lab.Exec(s.ctx, old, "test", "-e", "/tmp/rewinds")
		return err == nil, fmt.Sprint(err)
	})
	s.onRoot(old, "systemctl stop pgrex-rejoin")
	s.asOwner(old, "test -e "+s.at.Data+".pgrex-rewind/rewound") // pg_rewind came to its end
	if result := s.showRejoin(old, "Result"); result != "success" {
		s.t.Errorf("the service ended with %s", result)
	}
	s.onRoot(old, "mv "+tool+".away "+tool+"; rm /tmp/rewinds; systemctl start pgrex-rejoin")
	returned := s.backAlone(old, "")
	if returned.Way == "copy" {
		s.t.Error("a rewind that came to its end needs no copy")
	}
	s.givenUpIsKept(old, returned)
	s.nothingOfRejoinLeft(old)
}

// copiedAlone: the WAL that a host needs is gone. A copy is made if it is allowed, and not before.
func (s *story) copiedAlone(host string) {
	primary := s.primary()
	s.mark(primary) // pg_rewind has copied the marks of others
	s.mark(host)
	s.loseSlot(primary, host)
	s.asOwner(host, "touch "+s.at.Lock)
	s.must(s.lab.Unstandby(s.ctx, host))
	s.awaitAlone(host, "the cheapest way back is copy, and pgrex-auto-rejoin is rewind")
	s.allowAlone("copy")
	s.backAlone(host, "copy")
	if mark := s.asOwner(host, "cat "+s.at.Data+"/copied_never"); mark != primary { // the primary's own
		s.t.Errorf("the data folder is marked %q", mark)
	}
	s.nothingOfRejoinLeft(host)
	s.mark(host)
}

// threeTries: a way back that fails is tried three times, and then a person has to look. What that person types clears
// the count.
func (s *story) threeTries(old string) {
	s.allowAlone("rewind")
	s.onRoot(old, "mv "+s.at.Bin+"/pg_rewind "+s.at.Bin+"/pg_rewind.away; printf '#!/bin/sh\\necho pg_rewind: broken >&2\\nexit 1\\n' >"+s.at.Bin+
		"/pg_rewind; chmod 755 "+s.at.Bin+"/pg_rewind")
	s.part(old, 1)
	s.awaitCondition(old, model.CodeAutoRejoinFailed)
	s.awaitAlone(old, "3 tries in a row have failed")
	if a := s.remembered(old); a.Tries != model.MaxTries || !strings.Contains(a.Problem, "broken") {
		s.t.Errorf("it remembers %+v", a)
	}
	s.onRoot(old, "mv "+s.at.Bin+"/pg_rewind.away "+s.at.Bin+"/pg_rewind")
	if _, status := s.rejoin(old, "--yes"); status != 0 {
		s.t.Fatal("rejoin fails")
	}
	s.awaitRight(patience, s.primary())
	if a := s.remembered(old); a.Tries != 0 || a.Problem != "" || a.Last == nil || a.Last.By == model.AutoRejoinWho {
		s.t.Errorf("after a rejoin by hand it remembers %+v", a)
	}
}

// firstAlone: nobody may take over, and the last primary starts again, since it is proven that it has the newest data.
func (s *story) firstAlone(primary string) {
	s.awaitSuccessor(s.others(primary)...)
	synchronous, other := s.standbysOf(primary)
	s.sql(other, "ALTER SYSTEM SET primary_conninfo = 'host=nowhere.invalid'")
	s.sql(other, "SELECT pg_reload_conf()")
	s.awaitDisconnected(primary, other)
	s.must(s.lab.Off(s.ctx, synchronous))
	s.awaitDisconnected(primary, synchronous)
	s.sql(primary, "CREATE TABLE only_here (n int)")
	s.must(s.lab.Crash(s.ctx, primary))
	s.await(2*patience, primary+" starts first without a person", func() (bool, string) {
		a := s.remembered(primary)
		return a.Last != nil && a.Last.Way == "first", fmt.Sprintf("it remembers %+v", a)
	})
	s.awaitPrimary(primary)
	s.sql(primary, "SELECT FROM only_here")
	s.sql(other, "ALTER SYSTEM RESET primary_conninfo")
	s.sql(other, "SELECT pg_reload_conf()")
	s.must(s.lab.On(s.ctx, synchronous))
	s.awaitRight(2*patience, primary)
}

// flaps: a host that fails again and again comes back three times.
func (s *story) flaps(host string) {
	s.forgetReturns(host)
	for i := range model.MaxReturns {
		s.awaitUnpromoted(host) // a start that is under way would try again for minutes
		s.asOwner(host, "touch "+s.at.Lock)
		s.must(s.lab.Crash(s.ctx, host))
		s.backAlone(host, "start")
		if got := len(s.remembered(host).Returns); got != i+1 {
			s.t.Fatalf("it counts %d returns", got)
		}
	}
	s.awaitCondition(host, model.CodeFlapping)
	s.awaitUnpromoted(host)
	s.asOwner(host, "touch "+s.at.Lock)
	s.must(s.lab.Crash(s.ctx, host))
	s.awaitAlone(host, "it has come back 3 times within an hour")
	s.awaitCondition(host, model.CodeRejoinNeeded)
	if _, status := s.rejoin(host, "--yes"); status != 0 {
		s.t.Fatal("rejoin fails")
	}
	s.awaitRight(patience, s.primary())
	if a := s.remembered(host); len(a.Returns) != 0 || a.Flaps() {
		s.t.Errorf("after a rejoin by hand it remembers %+v", a)
	}
}
