package postgres

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgrex/pgrex/model"
)

// The rate of a slow link is measured, too: 2 Mbit/s are two messages a second. What comes at once tells nothing of the
// link, unless it is much.
func TestMeter(t *testing.T) {
	const message = 128 << 10
	for _, test := range []struct {
		name     string
		every    time.Duration // between two messages
		messages int           // that the primary has
		want     uint64        // bytes a second
	}{
		{"2 Mbit/s", 500 * time.Millisecond, 100, message * 2},
		{"20 Mbit/s", 50 * time.Millisecond, 100, message * 20},
		{"1 Gbit/s", time.Millisecond, 1000, message * 1000},
		{"a few messages", time.Millisecond, 5, 0},
		{"one message", time.Millisecond, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var m meter
			begin, at, end := time.Now(), model.LSN(0), model.LSN(test.messages*message)
			for !m.enough(at, make([]byte, message), end) {
				at += message
				time.Sleep(test.every)
			}
			took := time.Since(begin)
			time.Sleep(time.Second) // what its caller does next does not count
			if got := m.rate(); got != test.want || took > 2*measuring {
				t.Errorf("%s: %d bytes a second, and not %d, after %s", test.name, got, test.want, took)
			}
		})
	}
}
