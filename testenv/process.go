package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process for good: a pid alone may be given to another one.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since the machine's boot
}

// processOf names the process that has the pid now.
func processOf(pid int) (Process, error) {
	fields, err := procStat(pid)
	if err != nil {
		return Process{}, err
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return Process{PID: pid, Start: start}, err
}

// procStat are the fields of /proc/PID/stat from the third (the state) on: the second, the name, may hold blanks.
func procStat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return fields, nil
}

// Alive tells whether the process still runs; one that only waits to be reaped does not.
func (p Process) Alive() bool {
	if p.PID == 0 {
		return false
	}
	now, err := processOf(p.PID)
	if err != nil || now != p {
		return false
	}
	fields, err := procStat(p.PID)
	return err == nil && fields[0] != "Z" && fields[0] != "X"
}

// kill ends exactly this process, with SIGKILL. A process that is gone is no error.
func (p Process) kill() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !p.Alive() { // checked after the open: from here on the descriptor means this process and no other
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return nil
}

// awaitEnd waits until the process has ended.
func (p Process) awaitEnd(ctx context.Context) error {
	return poll(ctx, 10*time.Millisecond, fmt.Sprintf("the end of process %d", p.PID), func(context.Context) (bool, error) {
		return !p.Alive(), nil
	})
}

// final is an error after which a condition can no longer come to hold.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// poll looks until the condition holds, or can no longer. At the deadline the error says what was awaited and the last
// thing seen: the condition's error, which otherwise says no more than "not yet".
func poll(ctx context.Context, every time.Duration, what string, condition func(context.Context) (bool, error)) error {
	begin := time.Now()
	var seen error
	for {
		ok, err := condition(ctx)
		if ok {
			return nil
		}
		if end := (final{}); errors.As(err, &end) {
			return fmt.Errorf("%s: %w", what, end.error)
		}
		if err != nil && ctx.Err() == nil {
			seen = err
		}
		select {
		case <-ctx.Done():
			why := fmt.Sprintf("waited %s for %s", time.Since(begin).Round(100*time.Millisecond), what)
			if seen != nil {
				return fmt.Errorf("%s; last seen: %w (%w)", why, seen, context.Cause(ctx))
			}
			return fmt.Errorf("%s: %w", why, context.Cause(ctx))
		case <-time.After(every):
		}
	}
}
