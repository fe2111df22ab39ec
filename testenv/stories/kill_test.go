package stories

import (
	"bufio"
	"context"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What rejoin prints: a step of the plan, one that is done with the time that it took, and a tool's progress.
var (
	plannedStep = regexp.MustCompile(`^[0-9]+\. (.*)$`)
	doneStep    = regexp.MustCompile(`^[0-9]+\. (.*) \([0-9.]+(?:ms|s|m[0-9.]+s)\)$`)
	progressing = regexp.MustCompile(`^ {3}\[`)
)

// watched is a pgrex rejoin --yes that is under way.
type watched struct {
	planned []string // its steps
	done    int      // of them
	said    []string
	status  int // when it has ended
}

// watchRejoin runs rejoin on a host, as root, and kills it and what it started, with SIGKILL, as soon as until is true
// after a line.
func (s *story) watchRejoin(host string, until func(w *watched, line string) bool, arguments ...string) *watched {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	rejoin := append([]string{pgrex, "rejoin", "--yes"}, arguments...)
	command, env, err := s.lab.Command(ctx, host, rejoin...)
	if host == s.older {
		command, env, err = s.lab.CommandAs(ctx, "postgres", "haclient", host, rejoin...)
	}
	s.must(err)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Dir = env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = kill, 5*time.Second
	out, err := cmd.StdoutPipe()
	s.must(err)
	cmd.Stderr = cmd.Stdout
	s.must(cmd.Start())
	w := &watched{}
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		w.said = append(w.said, line)
		if m := doneStep.FindStringSubmatch(line); m != nil && slices.Contains(w.planned, m[1]) {
			w.done++
		} else if m := plannedStep.FindStringSubmatch(line); m != nil {
			w.planned = append(w.planned, m[1])
		}
		if !killed && until(w, line) {
			killed = true
			_ = kill()
		}
	}
	_ = cmd.Wait() // its status tells
	w.status = cmd.ProcessState.ExitCode()
	return w
}

// killedAt kills rejoin while a step is under way whose text matches, a tool once it reports progress. It tells whether
// there was such a step; without one, rejoin is killed before its first.
func (s *story) killedAt(host, step string, arguments ...string) bool {
	s.t.Helper()
	at := regexp.MustCompile(step)
	found := false
	w := s.watchRejoin(host, func(w *watched, line string) bool {
		// The last step of every plan.
		if len(w.planned) == 0 || !strings.Contains(w.planned[len(w.planned)-1], "has left") {
			return false
		}
		next := w.planned[min(w.done, len(w.planned)-1)]
		if !slices.ContainsFunc(w.planned, at.MatchString) {
			return true
		}
		found = at.MatchString(next) && (!strings.HasPrefix(next, "pg_") || strings.HasSuffix(next, "dry run") || progressing.MatchString(line))
		return found
	}, arguments...)
	s.t.Logf("%s: killed at %q (%t):\n%s", host, step, found, strings.Join(w.said, "\n"))
	switch w.status {
	case 0:
		s.t.Logf("%s: it was through before the kill", host)
	case 1:
		s.t.Fatalf("%s: it has failed before the kill", host)
	}
	return found
}

// killedEverywhere kills rejoin at each step of its plan, one attempt after the other, so that each goes on from what
// the last has left, and lets the last attempt through. The way that the first would go is given; but says where not
// to kill.
func (s *story) killedEverywhere(primary, host, method, but string, arguments ...string) {
	s.t.Helper()
	plan, status := s.rejoin(host, "--dry-run")
	if status != 2 || !strings.Contains(plan, "the way back is "+method) {
		s.t.Fatalf("the dry run ends with %d and does not say that it is done by %s", status, method)
	}
	begin, kills := time.Now(), 0
	for line := range strings.Lines(plan) {
		m := plannedStep.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || but != "" && regexp.MustCompile(but).MatchString(m[1]) {
			continue
		}
		if s.killedAt(host, "^"+regexp.QuoteMeta(m[1])+"$", arguments...) {
			kills++
		}
	}
	s.t.Logf("%s: killed %d times within %s", host, kills, time.Since(begin).Round(time.Second))
	if out, status := s.rejoin(host, "--yes"); status != 0 {
		s.t.Fatalf("at last rejoin ends with %d: %s", status, out)
	}
	s.awaitStreams(primary, host)
	s.nothingOfRejoinLeft(host)
	s.awaitRight(patience, primary)
}

// nothingLeft: no copy, no old data, no journal.
func (s *story) nothingOfRejoinLeft(host string) {
	s.t.Helper()
	if out, err := s.lab.Exec(s.ctx, host, "sh", "-c", "ls -d "+s.at.Data+".*"); err == nil {
		s.t.Errorf("this is left: %s", out)
	}
}
