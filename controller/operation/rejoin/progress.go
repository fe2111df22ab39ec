package rejoin

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// fetched is how pg_basebackup and pg_rewind report their progress.
var fetched = regexp.MustCompile(`^([0-9]+)/([0-9]+) kB \(`)

// progress makes lines about a tool's progress out of what it says. On a terminal it draws the line again each time. On
// a pipe it prints one line every few seconds. It passes on what pg_rewind says about how much there is to do.
func (r *Rejoin) progress() func(string) {
	const every = 5 * time.Second
	begin := time.Now()
	var last time.Time
	return func(line string) {
		now := time.Now()
		m := fetched.FindStringSubmatch(line)
		switch {
		case m == nil:
			if _, text, ok := strings.Cut(line, "need to copy"); ok {
				r.Report("   it needs to copy" + text)
			}
		case r.Redraw != nil:
			r.Redraw("   " + bar(m[1], m[2], now.Sub(begin)))
		case now.Sub(last) >= every:
			last = now
			r.Report("   " + bar(m[1], m[2], now.Sub(begin)))
		}
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
	time := time.Duration(float64(bytes) / float64(rate) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s, about %s at %s/s", model.FormatBytes(bytes), max(time, 1e9), model.FormatBytes(rate))
}
