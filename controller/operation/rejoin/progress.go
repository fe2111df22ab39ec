package rejoin

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
)

// showEvery is how often the progress of something is shown on a pipe, and how long something shows nothing before
// that is said.
const showEvery = 5 * time.Second

// show shows how far something is. On a terminal it draws over the line that it drew before.
func (r *Rejoin) show(line string) {
	switch {
	case r.Redraw != nil:
		r.Redraw("   " + line)
	case r.Report != nil:
		r.Report("   " + line)
	}
}

// during does something that may take minutes, and shows now and then for how long already, and how many files and
// folders were counted. Neither show nor count has to be there.
func during(show func(line string), text string, count *atomic.Int64, do func() error) error {
	if show == nil {
		return do()
	}
	counted := func() int64 { return 0 }
	if count != nil {
		counted = count.Load
	}
	before := counted()
	defer repeat(func(since time.Duration) {
		line := fmt.Sprintf("%s: %s", text, since.Round(time.Second))
		if n := counted() - before; n > 0 {
			line += fmt.Sprintf(", %d files", n)
		}
		show(line)
	})()
	return do()
}

// repeat calls something each showEvery, with the time since the beginning, until the returned function is called.
func repeat(do func(since time.Duration)) (end func()) {
	begin, ending := time.Now(), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(showEvery)
		defer tick.Stop()
		for {
			select {
			case <-ending:
				return
			case now := <-tick.C:
				do(now.Sub(begin))
			}
		}
	})
	return func() {
		close(ending)
		ended.Wait()
	}
}

// clear removes what is beside the data.
func (r *Rejoin) clear(ctx context.Context, c *Case) error {
	return during(r.show, "removing "+c.Place.Beside(), c.Place.Count, func() error { return c.Place.Clear(ctx) })
}

// run runs a tool, and shows its progress.
func (r *Rejoin) run(ctx context.Context, t datadir.Tool) error {
	p, told := r.progress(t), t.Progress
	t.Progress = func(line string) {
		if told != nil {
			told(line)
		}
		p.hear(line, time.Now())
	}
	defer repeat(func(time.Duration) { p.silent(time.Now()) })()
	_, err := t.Run(ctx)
	return err
}

// needs is in what pg_rewind says before it fetches anything.
const needs = "need to copy"

// fetched is how pg_basebackup and pg_rewind report their progress.
var fetched = regexp.MustCompile(`^([0-9]+)/([0-9]+) kB \(`)

// progress makes lines about a tool's progress out of what it says. On a terminal it draws the line again each time. On
// a pipe it prints one line every few seconds. It passes on what pg_rewind says about how much there is to do. If the
// tool says nothing for long, that is shown: pg_basebackup says nothing while it waits for the primary, nor while all
// that it has written goes to the disk.
type progress struct {
	*Rejoin
	doing string // what the tool said last that is no progress

	mu           sync.Mutex
	bar, whole   string    // its progress, with the rate and without
	full         bool      // it has all
	begin        time.Time // of the first progress
	heard, shown time.Time // the last time
}

func (r *Rejoin) progress(t datadir.Tool) *progress {
	return &progress{Rejoin: r, doing: t.Called() + ": waiting for the primary", heard: time.Now()}
}

// hear takes what the tool says.
func (p *progress) hear(line string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = now
	m := fetched.FindStringSubmatch(line)
	if m == nil {
		p.doing, p.bar = line, ""
		if _, text, ok := strings.Cut(line, needs); ok {
			p.Report("   it needs to copy" + text)
		}
		return
	}
	if p.begin.IsZero() {
		p.begin = now
	}
	p.bar, p.full = bar(m[1], m[2], now.Sub(p.begin)), m[1] == m[2]
	p.whole = bar(m[1], m[2], 0)
	if p.Redraw != nil || now.Sub(p.shown) >= showEvery {
		p.shown = now
		p.show(p.bar)
	}
}

// silent shows that the tool has said nothing for a while.
func (p *progress) silent(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := now.Sub(p.heard).Round(time.Second)
	switch {
	case since < showEvery:
	case p.bar == "":
		p.show(fmt.Sprintf("%s: %s", p.doing, since))
	case p.full:
		p.show(fmt.Sprintf("%s; writing it to the disk: %s", p.whole, since))
	default:
		p.show(fmt.Sprintf("%s; nothing has come for %s", p.bar, since))
	}
}

// bar shows how far something is: done and total in kB as the tool says them, and the time since the beginning.
func bar(doneKB, totalKB string, since time.Duration) string {
	const width = 20
	done, _ := strconv.ParseUint(doneKB, 10, 54) // they are digits; what is too big becomes the biggest
	total, _ := strconv.ParseUint(totalKB, 10, 54)
	part := 1.0
	if total > 0 {
		part = min(1, float64(done)/float64(total))
	}
	full := int(part * width)
	text := fmt.Sprintf("[%s%s] %3.0f%%, %s of %s", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*part,
		model.FormatBytes(done<<10), model.FormatBytes(total<<10))
	if rate := float64(done<<10) / since.Seconds(); done > 0 && since > 0 {
		left := time.Duration((1 - part) / part * float64(since))
		text += fmt.Sprintf(", %s/s, %s left", model.FormatBytes(uint64(rate)), left.Round(time.Second))
	}
	return text
}

// Size is what is fetched, for people, and the time it takes at a rate in bytes a second, if that is known.
func Size(bytes, rate uint64) string {
	if rate == 0 {
		return model.FormatBytes(bytes)
	}
	const most = 1 << 31 // seconds; a Duration holds not many more
	time := time.Duration(min(float64(bytes)/float64(rate), most) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s, about %s at %s/s", model.FormatBytes(bytes), max(time, 1e9), model.FormatBytes(rate))
}
