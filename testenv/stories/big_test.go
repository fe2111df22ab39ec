package stories

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestBigAndSlow: a database cluster of many databases and many small files, behind a slow link. What rejoin says
// beforehand is true within a factor of two, its progress moves, an interrupt leaves all as it was, and the files do not
// fill the memory. It takes long, and is told when PGREX_LONG is set.
func TestBigAndSlow(t *testing.T) {
	inLong(t)
	if os.Getenv("PGREX_NO_LAB") != "" {
		t.Skip("PGREX_NO_LAB is set: the stories need the lab, and the lab needs root")
	}
	const databases, made, files, link = 40, 10, 100_000, "50mbit"
	s := tell(t, testenv.Config{Properties: map[string]string{"no-quorum-policy": "freeze"}})
	old := s.primary()
	s.settle(old)
	away := s.others(old)[1]
	s.manyDatabases(old, "before", databases)
	s.awaitRight(patience, old)
	s.stopWithLock(away)
	s.chapter("many files", func(s *story) {
		few := s.measured(away, "--dry-run", "--method", "copy")
		s.asOwner(away, fmt.Sprintf("mkdir %[1]s/base/many && cd %[1]s/base/many && seq %[2]d | xargs touch", s.at.Data, files))
		many := s.measured(away, "--dry-run", "--method", "copy")
		s.t.Logf("a look takes %s and %s; with %d more files %s and %s", few.took, few.peak(), files, many.took, many.peak())
		const names = 8 << 20 // the names of all files take twice as much
		if many.most > few.most+names {
			s.t.Errorf("with %d more files it takes %s of memory, and %s without", files, many.peak(), few.peak())
		}
	})
	s.slow(old, link)
	s.chapter("an interrupt", func(s *story) {
		before := s.asOwner(away, "stat -c %i "+s.at.Data)
		told := make(chan string, 1)
		go func() { told <- s.interruptedAt(away, "%, ") }()
		end := s.measured(away, "--yes", "--method", "copy")
		s.t.Logf("%s%s", end.said, <-told)
		if end.status != "1" || !strings.Contains(end.said, "interrupted: undoing what was done") {
			s.t.Errorf("it ends with %s", end.status)
		}
		if now := s.asOwner(away, "stat -c %i "+s.at.Data); now != before {
			s.t.Error("the data folder is another one")
		}
		s.asOwner(away, "test -e "+s.at.Lock)
		s.nothingOfRejoinLeft(away)
		s.awaitStopped(away)
	})
	s.chapter("copy", func(s *story) { s.asSaid(old, away, "copy") })
	s.fast(old)
	s.chapter("rewind", func(s *story) {
		s.diverge(old, 1)
		now := s.primary()
		s.manyDatabases(now, "since", made)
		s.slow(now, link)
		s.asSaid(now, old, "rewind")
	})
}

// manyDatabases makes databases of about 7 MB and 300 files each, with little WAL.
func (s *story) manyDatabases(primary, name string, count int) {
	s.t.Helper()
	for i := range count {
		s.sql(primary, fmt.Sprintf("CREATE DATABASE %s%d STRATEGY file_copy", name, i))
	}
}

// slow limits what a host sends. What waits for the link delays the rest by up to 100 ms.
func (s *story) slow(host, rate string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "100ms")
	s.must(err)
}

// fast undoes slow.
func (s *story) fast(host string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "tc", "qdisc", "del", "dev", "eth0", "root")
	s.must(err)
}

// rejoinRun is a rejoin that has ended.
type rejoinRun struct {
	said, status string
	took         time.Duration
	most         uint64 // the peak memory of the bigger of its two processes, in bytes
}

func (r rejoinRun) peak() string { return model.FormatBytes(r.most) }

// said is where measured has what rejoin prints, on its host.
const said = "/run/rejoin.said"

// measured runs rejoin in a process group of its own, as a shell does at a terminal, and looks at its memory meanwhile.
func (s *story) measured(host string, arguments ...string) rejoinRun {
	s.t.Helper()
	const script = `said=$1; shift; : >"$said"
setsid env --default-signal=INT "$@" >"$said" 2>&1 & group=$!
echo $group >"$said.group"
while kill -0 $group 2>/dev/null; do
	for part in $(ps -o pid= -s $group); do sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$part/status 2>/dev/null; done
	sleep 0.1
done | sort -n | tail -1
status=0; wait $group || status=$?
echo $status; cat "$said"`
	begin := time.Now()
	out, err := s.lab.Exec(s.ctx, host, append([]string{"sh", "-c", script, "sh", said, pgrex, "rejoin"}, arguments...)...)
	s.must(err)
	fields := strings.SplitN(out, "\n", 3)
	if len(fields) < 3 {
		s.t.Fatalf("it prints %q", out)
	}
	kB, err := strconv.ParseUint(fields[0], 10, 64)
	s.must(err)
	return rejoinRun{said: fields[2], status: fields[1], took: time.Since(begin).Round(100 * time.Millisecond), most: kB << 10}
}

// interruptedAt interrupts rejoin, as Ctrl-C at a terminal does, when it has printed something, and returns how fast it
// was to answer and to end.
func (s *story) interruptedAt(host, printed string) string {
	const script = `until grep -q "$2" "$1"; do sleep 0.2; done
group=$(cat "$1.group"); kill -INT -$group; begin=$(date +%s%N)
until grep -q interrupted: "$1"; do sleep 0.05; done; heard=$(date +%s%N)
while kill -0 $group 2>/dev/null; do sleep 0.05; done; end=$(date +%s%N)
echo "it answered $(((heard - begin) / 1000000)) ms after the interrupt, and had ended $(((end - begin) / 1000000)) ms after it"`
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	out, err := s.lab.Exec(ctx, host, "sh", "-c", script, "sh", said, printed)
	if err != nil {
		out += err.Error()
	}
	return out
}

var (
	foretold = regexp.MustCompile(`(?m)^(\w+) +possible \(([0-9.]+ \w+), about ([0-9hms]+) at`)
	fetching = regexp.MustCompile(`(?m)^[0-9]+\. pg_(?:basebackup|rewind) from .* \(([0-9hms.]+)\)$`)
	percent  = regexp.MustCompile(`(?m)^ +\[[#.]+\] +([0-9]+)%`)
)

// asSaid brings a host back, and compares what it took with what rejoin said beforehand.
func (s *story) asSaid(primary, host, way string) {
	s.t.Helper()
	before := s.received(host)
	run := s.measured(host, "--yes", "--method", way)
	fetched := s.received(host) - before
	s.t.Logf("%s", run.said)
	if run.status != "0" {
		s.t.Fatalf("it ends with %s", run.status)
	}
	for _, m := range foretold.FindAllStringSubmatch(run.said, -1) {
		if m[1] != way {
			continue
		}
		bytes, took := parsedBytes(s.t, m[2]), parsedDuration(s.t, m[3])
		steps := fetching.FindAllStringSubmatch(run.said, -1) // a dry run comes first
		if len(steps) == 0 {
			s.t.Fatal("it has fetched nothing")
		}
		in := parsedDuration(s.t, steps[len(steps)-1][1])
		s.t.Logf("%s was to fetch %s in %s, has fetched %s in %s, and has ended after %s, with %s of memory",
			way, m[2], m[3], model.FormatBytes(fetched), in, run.took, run.peak())
		if b := float64(fetched); b < bytes/2 || b > bytes*2 {
			s.t.Error("what it has fetched is not within a factor of two of that")
		}
		if in < took/2 || in > took*2 {
			s.t.Error("the time that took is not within a factor of two of that")
		}
		s.moves(run)
		s.awaitStreams(primary, host)
		s.nothingOfRejoinLeft(host)
		return
	}
	s.t.Errorf("it does not say how long %s takes", way)
}

// moves: the progress begins at its beginning, grows, and comes to its end.
func (s *story) moves(run rejoinRun) {
	s.t.Helper()
	last, different := -1, 0
	for _, m := range percent.FindAllStringSubmatch(run.said, -1) {
		n, err := strconv.Atoi(m[1])
		s.must(err)
		if n < last {
			s.t.Errorf("from %d%% it goes back to %d%%", last, n)
		}
		if n > last {
			different++
		}
		last = n
	}
	if different < 4 {
		s.t.Errorf("it shows %d different progresses", different)
	}
}

func parsedBytes(t *testing.T, text string) float64 {
	t.Helper()
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
}

func parsedDuration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
