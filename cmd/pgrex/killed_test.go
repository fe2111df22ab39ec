package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// meetingFolder is where one of Pacemaker's tools says that it waits, and for whom.
const meetingFolder = "meeting"

// killed WHO WHEN CALL COMMAND... runs an operation of root's, which is two processes, up to a call of one of
// Pacemaker's tools, which CALL matches as a whole, and kills one or both of them: "tools" runs Pacemaker's tools,
// "work" does all else. WHEN is "before" or "after" that tool has done it. Where one of the two is left, the operation
// ends as it can.
func killed(ts *testscript.TestScript, _ bool, args []string) {
	who, when, call, command := args[0], args[1], args[2], args[3:]
	atCall(ts, when, call, command, func(tools int) {
		pids := map[string][]int{"tools": {tools}, "work": {workOf(ts, tools)}}
		pids["both"] = slices.Concat(pids["work"], pids["tools"]) // or the one would see the other's end
		for _, pid := range pids[who] {
			if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) { // it may end with the other one
				ts.Check(err)
			}
		}
		for _, pid := range pids[who] {
			until(ts, fmt.Sprintf("process %d ends", pid), func() bool { return hasEnded(pid) })
		}
	})
}

// signaled SIGNAL CALL COMMAND... runs an operation of root's up to a call of one of Pacemaker's tools, as "killed"
// does, and sends it a signal, such as INT, once the tool has done it.
func signaled(ts *testscript.TestScript, _ bool, args []string) {
	signal := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
	atCall(ts, "after", args[1], args[2:], func(tools int) {
		ts.Check(syscall.Kill(tools, signal))
	})
}

// atCall runs a command until one of Pacemaker's tools waits at a call, does something, lets the tool go on, and waits
// for the command's end, which has to be an error.
func atCall(ts *testscript.TestScript, when, call string, command []string, do func(tools int)) {
	ts.Check(os.WriteFile(ts.MkAbs(filepath.Join(meetingFolder, when)), []byte(call), 0o644))
	waits := ts.MkAbs(filepath.Join(meetingFolder, "waits"))
	ended := make(chan error, 1)
	go func() { ended <- ts.Exec(command[0], command[1:]...) }()
	var over bool
	var err error
	until(ts, "the call "+call, func() bool {
		select {
		case err = <-ended:
			over = true
		default:
		}
		_, missing := os.Stat(waits)
		return over || missing == nil
	})
	if over {
		ts.Fatalf("%s ended (%v) without the call %s", strings.Join(command, " "), err, call)
	}
	text, err := os.ReadFile(waits)
	ts.Check(err)
	tools, err := strconv.Atoi(strings.TrimSpace(string(text)))
	ts.Check(err)
	do(tools)
	ts.Check(os.Remove(waits))
	if err := <-ended; err == nil {
		ts.Fatalf("%s ends well", strings.Join(command, " "))
	}
}

// workOf finds the part of an operation that does the work: it runs the same program as the other part, which has
// started it.
func workOf(ts *testscript.TestScript, tools int) int {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", tools))
	ts.Check(err)
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", tools))
	ts.Check(err)
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			ts.Check(err)
			if its, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && its == program {
				return pid
			}
		}
	}
	ts.Fatalf("process %d has no other part", tools)
	return 0
}

// hasEnded reports whether a process is gone, or waits for its parent to notice.
func hasEnded(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return true
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return err == nil && strings.HasPrefix(state, "Z")
}

// until waits for a condition, as long as patience lasts.
func until(ts *testscript.TestScript, what string, condition func() bool) {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("not in time: %s", what)
		}
	}
}
