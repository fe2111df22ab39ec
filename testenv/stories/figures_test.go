package stories

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestRejoinFigures measures, on databases of different sizes, what each way back takes and what comes over the
// network. The first two ways do not grow with the database. It takes long, and is told when PGREX_LONG is set.
func TestRejoinFigures(t *testing.T) {
	inLong(t)
	if os.Getenv("PGREX_NO_LAB") != "" {
		t.Skip("PGREX_NO_LAB is set: the stories need the lab, and the lab needs root")
	}
	table := []string{fmt.Sprintf("%-10s %-8s %8s %12s", "database", "way", "seconds", "received")}
	for _, size := range []int64{300 << 20, 1 << 30, 3 << 30} {
		t.Run(model.FormatBytes(uint64(size)), func(t *testing.T) {
			s := tell(t, testenv.Config{DataBytes: size})
			old := s.primary()
			s.start(s.lab.Hosts()...)
			s.awaitRight(patience, old)
			away := s.others(old)[1]
			measure := func(method, host string) {
				before, begin := s.received(host), time.Now()
				if out, status := s.rejoin(host, "--yes", "--method", method); status != 0 {
					s.t.Fatalf("rejoin ends with %d: %s", status, out)
				}
				took, bytes := time.Since(begin), s.received(host)-before
				table = append(table, fmt.Sprintf("%-10s %-8s %8.1f %12s", model.FormatBytes(uint64(size)), method, took.Seconds(),
					model.FormatBytes(bytes)))
				s.awaitRight(patience, s.primary())
			}
			s.stopWithLock(away)
			s.load(old, 32<<20)
			measure("start", away)
			s.stopWithLock(away)
			measure("copy", away)
			s.diverge(old, 1)
			measure("rewind", old)
		})
	}
	t.Log("\n" + strings.Join(table, "\n"))
}

// received is what has come over a host's network, in bytes.
func (s *story) received(host string) uint64 {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "cat", "/sys/class/net/eth0/statistics/rx_bytes")
	s.must(err)
	n, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
	s.must(err)
	return n
}
