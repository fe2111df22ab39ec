package stories

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// moment is when an operation is killed: before or after it runs one of Pacemaker's tools with such arguments, as a
// pattern of the shell. After means that nobody has noted that it was run.
type moment struct {
	tool, arguments string
	after           bool
}

var (
	entering  = moment{"cibadmin", "*phase=maintenance*", false}
	entered   = moment{"cibadmin", "*phase=maintenance*", true}
	banning   = moment{"crm_resource", "*--ban*PT30M", false} // in maintenance-mode, and PostgreSQL still serves
	leaving   = moment{"cibadmin", "*phase=given*", false}    // PostgreSQL is shut down, and the target has everything
	left      = moment{"cibadmin", "*phase=given*", true}
	kept      = moment{"cibadmin", "*--create --scope constraints*", true} // the database, from this node
	parameter = moment{"crm_resource", "*--delete-parameter replication_slot_name*", true}
	refresh   = moment{"crm_resource", "--refresh*", false}
)

// TestOperationLeft: operations are killed, or their host loses power. Every host says so, no other operation begins,
// and what was left is finished or undone with one command. No acknowledged commit is lost.
func TestOperationLeft(t *testing.T) {
	on(t, releases, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02", "pm03"}}, func(s *story) {
		s.prepareSwitchover()
		s.startLoad()
		s.chapter("a switchover is undone", func(s *story) { s.switchoversUndone(entering, entered, banning, leaving) })
		s.chapter("a switchover is finished", func(s *story) { s.switchoversFinished(entered, leaving, left) })
		s.chapter("its host loses power, and undoes it", func(s *story) { s.undoneAfterPowerCut() })
		s.chapter("its host loses power, and another ends it", func(s *story) { s.endedElsewhere() })
		s.chapter("a stop", func(s *story) { s.stopLeft() })
		s.chapter("two at once", func(s *story) { s.twoAtOnce() })
		s.endLoad()
	})
}

// leave kills one of pgrex's operations, both its parts, at a moment.
func (s *story) leave(host string, at moment, arguments ...string) {
	s.t.Helper()
	const hold = `#!/bin/sh
case "$*" in
%[2]s)
	%[3]s
	echo $$ >/tmp/hold/reached
	exec sleep 300 ;;
esac
exec /usr/sbin/%[1]s "$@"
`
	ran := ":"
	if at.after {
		ran = "/usr/sbin/" + at.tool + ` "$@"`
	}
	s.must(s.lab.WriteFile(s.ctx, host, "/tmp/hold/"+at.tool, fmt.Sprintf(hold, at.tool, strings.ReplaceAll(at.arguments, " ", `\ `), ran), 0o755))
	_, err := s.lab.Exec(s.ctx, host, "sh", "-c", fmt.Sprintf(
		`chmod 777 /tmp/hold; PATH=/tmp/hold:$PATH setsid %[1]s %[2]s --yes >%[3]s 2>&1 & pid=$!; n=0
until [ -s /tmp/hold/reached ]; do n=$((n+1)); [ $n -lt 2400 ] && kill -0 $pid || exit 9; sleep 0.05; done
kill -KILL -$pid; wait $pid; ended=$?; kill -KILL $(cat /tmp/hold/reached); rm -r /tmp/hold; [ $ended = 137 ]`,
		pgrex, strings.Join(arguments, " "), interruptLog))
	s.interruptedOutput(host)
	s.must(err)
}

// unfinished: every host says so, and no other operation begins anywhere.
func (s *story) unfinished(host string) {
	s.t.Helper()
	for _, h := range s.lab.Hosts() {
		s.awaitCondition(h, model.CodeOperationUnfinished)
	}
	for _, arguments := range [][]string{{"start", "--yes"}, {"stop", "--yes"}, {"switchover", "--yes"}, {"adopt", "--yes"}, {"rejoin", "--yes"}} {
		for _, h := range s.lab.Hosts() {
			if out, status := s.asRoot(h, arguments...); status != 1 || !strings.Contains(out, "pgrex operation show") {
				s.t.Errorf("%v on %s ends with %d: %s", arguments, h, status, out)
			}
		}
	}
	s.says(host, 2, "started by root", "operation", "show")
	for _, other := range s.others(host) {
		s.says(other, 2, "was started on "+host, "operation", "show")
		s.says(other, 1, host+" is online, and has the journal", "operation", "undo", "--yes")
	}
}

// ended: nothing is left of it anywhere.
func (s *story) ended(primary string) {
	s.t.Helper()
	s.awaitPrimary(primary)
	for _, host := range s.lab.Hosts() {
		s.says(host, 0, "no operation is unfinished", "operation", "show")
		s.await(patience, host+" says so no more", func() (bool, string) {
			_, err := s.status(host)
			codes := s.conditions(host)
			return err == nil && !slices.Contains(codes, model.CodeOperationUnfinished) && !slices.Contains(codes, model.CodeOperationUnderWay),
				fmt.Sprint(codes, err)
		})
	}
	s.nothingLeft(primary)
	out, err := s.lab.Exec(s.ctx, primary, "sh", "-c", "cibadmin --query | grep -E 'pgrex-operation|maintenance-mode' || true")
	s.must(err)
	if out != "" {
		s.t.Errorf("this is left in the CIB: %s", out)
	}
	s.awaitRight(patience, primary)
	s.awaitAcknowledged()
}

func (s *story) switchoversUndone(moments ...moment) {
	for _, at := range moments {
		primary := s.primary()
		target := s.offered(primary)
		timeline := s.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint()")
		s.leave(primary, at, "switchover", "--to", target)
		s.unfinished(primary)
		s.says(primary, 2, "", "operation", "undo", "--dry-run")
		s.says(primary, 0, "is undone", "operation", "undo", "--yes")
		s.ended(primary)
		if now := s.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint()"); now != timeline {
			s.t.Errorf("the timeline was %s and is %s: somebody was promoted", timeline, now)
		}
		s.ownRights(primary)
		if at == leaving {
			s.ownScope(primary)
		}
	}
}

func (s *story) switchoversFinished(moments ...moment) {
	for _, at := range moments {
		primary := s.primary()
		target := s.offered(primary)
		s.leave(primary, at, "switchover", "--to", target)
		s.says(primary, 2, "", "operation", "finish", "--dry-run")
		s.says(primary, 0, "is finished", "operation", "finish", "--yes")
		s.ended(target)
		s.neverCopied(primary)
	}
}

// undoneAfterPowerCut: the host that had shut down its database is off, and comes back, before anybody has done
// anything.
func (s *story) undoneAfterPowerCut() {
	primary := s.primary()
	target := s.offered(primary)
	s.leave(primary, leaving, "switchover", "--to", target)
	s.must(s.lab.Off(s.ctx, primary))
	s.must(s.lab.On(s.ctx, primary))
	s.await(patience, primary+" is a member again", func() (bool, string) {
		out, status := s.asRoot(primary, "operation", "undo", "--dry-run")
		return status == 2, out
	})
	for _, host := range s.lab.Hosts() {
		s.awaitCondition(host, model.CodeOperationUnfinished)
	}
	// A host that is soon back is still online in the CIB, then offline until Pacemaker has noticed that it was away.
	// Until then the undo refuses or stops, and says so; it can be repeated.
	s.await(patience, primary+" has undone it", func() (bool, string) {
		out, status := s.asRoot(primary, "operation", "undo", "--yes")
		s.t.Logf("%d: %s", status, out)
		return status == 0 && strings.Contains(out, "is undone"), out
	})
	s.ended(primary)
}

// endedElsewhere: the host that had shut down its database stays off, and another member ends the operation.
func (s *story) endedElsewhere() {
	primary := s.primary()
	others := s.others(primary)
	s.leave(primary, leaving, "switchover", "--to", s.offered(primary))
	s.must(s.lab.Off(s.ctx, primary))
	s.await(patience, primary+" is off, and known to be", func() (bool, string) {
		out, status := s.asRoot(others[0], "operation", "undo", "--dry-run")
		return status == 2, out
	})
	for _, host := range others {
		s.awaitCondition(host, model.CodeOperationUnfinished)
	}
	s.says(others[0], 0, "the operation is ended", "operation", "undo", "--yes")
	s.await(patience, "another primary", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		return err == nil && now != primary, fmt.Sprint(now, err)
	})
	s.must(s.lab.On(s.ctx, primary))
	s.await(patience, primary+" knows that it was ended", func() (bool, string) {
		out, status := s.asRoot(primary, "operation", "undo", "--yes")
		s.t.Logf("%d: %s", status, out)
		return status == 0 && strings.Contains(out, "another member has ended the operation"), out
	})
	s.await(patience, primary+" comes back", func() (bool, string) {
		out, status := s.asRoot(primary, "rejoin", "--yes")
		return status == 0, out
	})
	s.neverCopied(primary)
	s.ended(s.primary())
}

// stopLeft: a stop of a standby is undone, and finished.
func (s *story) stopLeft() {
	primary := s.primary()
	host := s.others(primary)[0]
	s.awaitUnpromoted(host)
	s.leave(host, kept, "stop")
	s.says(host, 0, "is undone", "operation", "undo", "--yes")
	s.awaitStreams(primary, host)
	s.ended(primary)
	s.awaitUnpromoted(host)
	s.leave(host, kept, "stop")
	s.says(host, 0, "is stopped", "operation", "finish", "--yes")
	s.awaitStopped(host)
	s.says(host, 0, "is started", "start", "--yes")
	s.awaitStreams(primary, host)
	s.ended(primary)
}

// twoAtOnce: operations that are started on two hosts at the same moment follow each other, or one is refused.
func (s *story) twoAtOnce() {
	primary := s.primary()
	host := s.offered(primary)
	for _, pair := range [][2][]string{
		{{"switchover"}, {"stop"}},
		{{"stop", "--force"}, {"stop"}},
		{{"switchover"}, {"rejoin"}},
	} {
		s.awaitUnpromoted(host)
		done := make(chan string, 1)
		go func() {
			out, status := s.asRoot(host, append(pair[1], "--yes")...)
			done <- fmt.Sprintf("%s: %v: %d\n%s", host, pair[1], status, out)
		}()
		out, status := s.asRoot(primary, append(pair[0], "--yes")...)
		s.t.Logf("%s: %v: %d\n%s\n%s", primary, pair[0], status, out, <-done)
		for _, h := range s.lab.Hosts() {
			s.says(h, 0, "no operation is unfinished", "operation", "show")
		}
		for _, h := range []string{primary, host} { // whichever was stopped
			s.await(patience, h+" runs", func() (bool, string) {
				out, status := s.asRoot(h, "start", "--yes")
				if status != 0 {
					out, status = s.asRoot(h, "rejoin", "--yes")
				}
				return status == 0, out
			})
		}
		s.await(patience, "a primary", func() (bool, string) {
			now, err := s.lab.Primary(s.ctx)
			return err == nil, fmt.Sprint(now, err)
		})
		primary = s.primary()
		s.ended(primary)
		host = s.offered(primary)
	}
}

// offered is the host that a switchover would make the primary, once nothing speaks against one.
func (s *story) offered(primary string) (host string) {
	s.t.Helper()
	s.await(patience, "some host can be the primary", func() (bool, string) {
		out, status := s.asRoot(primary, "switchover", "--dry-run")
		if found := successor.FindStringSubmatch(out); status == 2 && found != nil {
			host = found[1]
		}
		return host != "", out
	})
	return host
}

var successor = regexp.MustCompile(`(?m)^[0-9]+\. wait until (\S+) is confirmed as primary$`)
