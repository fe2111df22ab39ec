package postgres

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrap37Lane: what hangs in the kernel, as the file system of a dead file server does, is asked once. One caller
// waits
// until its deadline, and the next ones not at all. Nor does the end wait for long.
func TestTrap37Lane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const deadline = 3 * time.Second
		l := newLane("the file system")
		var asked atomic.Int32
		answer := make(chan error)
		hang := func() (int32, error) { return asked.Add(1), <-answer }
		ask := func() (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			begin := time.Now()
			_, err := call(ctx, l, hang)
			return time.Since(begin), err
		}
		want := func(what string, err error, took, should time.Duration) {
			t.Helper()
			if _, hangs := errors.AsType[hangsError](err); !hangs || took != should {
				t.Errorf("%s: %v, after %s", what, err, took)
			}
		}
		// One that was cancelled may yet be answered: the next waits for that.
		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := call(cancelled, l, hang); !errors.Is(err, context.Canceled) {
			t.Errorf("one that was cancelled: %v", err)
		}
		took, first := ask()
		want("the first", first, took, deadline)
		time.Sleep(time.Minute)
		took, second := ask()
		want("the second", second, took, 0)
		if second.Error() != first.Error() || asked.Load() != 1 || l.idle() {
			t.Errorf("asked %d times: %v, and then %v", asked.Load(), first, second)
		}
		close(answer)
		synctest.Wait()
		if took, err := ask(); err != nil || took != 0 || asked.Load() != 2 {
			t.Errorf("once it answers: %v, after %s", err, took)
		}
		answer = make(chan error)
		took, third := ask()
		want("it hangs again", third, took, deadline)
		begin := time.Now()
		l.close()
		if took := time.Since(begin); took != closeTimeout {
			t.Errorf("the end took %s", took)
		}
		if _, err := ask(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		close(answer)
	})
}
