package controller

import (
	"math"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

const (
	// The usual rate forgets half of what was after this time.
	rateHalfLife = 10 * time.Minute
	// The peak is the highest of windows of this length, of the last day and up to an hour more; each hour's highest is kept.
	peakWindow = time.Minute
	peakHour   = time.Hour
	peakMemory = 24 * time.Hour
	// Two looks tell a rate when there is some time between them, but not so much that anything may have happened.
	shortestLook = 500 * time.Millisecond
	longestLook  = 2 * time.Minute
	// Before so much has been measured nothing is said.
	firstRate = 10 * time.Second
)

// rates measures how fast WAL comes, from where it ends at each look. A look at another role or system, or at a server that
// was down in between, begins anew, and so does one without an answer: what came meanwhile came at no rate.
type rates struct {
	last       look
	system     string // the last one known
	since      time.Time
	measured   time.Duration
	sum, parts float64 // the smoothed rate is their quotient, so that it needs no time to become right
	window     look    // bytes and seconds of the window that is not over yet
	peaks      []peak  // in order of time
}

// kept returns the rates to save for after a restart.
func (r *rates) kept(now time.Time) keptRates {
	k := keptRates{At: now, System: r.system, Since: r.since, Measured: r.measured, Sum: r.sum, Parts: r.parts}
	for _, p := range r.peaks {
		k.Peaks = append(k.Peaks, keptPeak{p.begin, p.rate})
	}
	return k
}

// resume continues with saved rates, if they are of the same database and not older than peakMemory.
func (r *rates) resume(k keptRates, system string, now time.Time) {
	age := now.Sub(k.At).Abs() // a clock may be set back
	if k.System == "" || k.System != system || k.Parts <= 0 || age > peakMemory {
		return
	}
	r.since, r.measured, r.sum, r.parts = k.Since, k.Measured, k.Sum, k.Parts
	for _, p := range k.Peaks {
		r.peaks = append(r.peaks, peak{p.Begin, p.Rate})
	}
}

// look is where WAL ended, and when; or, for a window, how many bytes came in which time.
type look struct {
	at         time.Time
	end        model.LSN
	system     string
	inRecovery bool
	took       time.Duration
}

// peak is the highest window of an hour.
type peak struct {
	begin time.Time
	rate  float64
}

// measure takes a look, and gives the rate with it.
func (r *rates) measure(in reconcile.Input, now time.Time) model.WALRate {
	i := in.Instance
	end, known := endOfWAL(in)
	took := now.Sub(r.last.at)
	this := look{at: now, end: end, system: i.SystemID, inRecovery: i.InRecovery}
	if known {
		r.system = i.SystemID
	}
	switch {
	case !known:
		r.last = look{}
	case took > longestLook, end < r.last.end, this.system != r.last.system, this.inRecovery != r.last.inRecovery:
		r.last = this
	case took >= shortestLook:
		r.add(end-r.last.end, took, now)
		r.last = this
	}
	return r.rate(now)
}

// endOfWAL is how far WAL goes: on a standby also what the primary has said it has, because a standby that was away gets
// the old WAL much faster than new WAL comes.
func endOfWAL(in reconcile.Input) (model.LSN, bool) {
	i := in.Instance
	switch {
	case i.State != model.ServerUp:
		return 0, false
	case !i.InRecovery:
		return i.End(), i.End().IsValid()
	case in.Upstream == nil:
		return 0, false
	}
	return max(i.End(), in.Upstream.Flushed), true
}

func (r *rates) add(bytes model.LSN, took time.Duration, now time.Time) {
	if r.since.IsZero() {
		r.since = now.Add(-took)
	}
	r.measured += took
	keep := math.Exp2(-float64(took) / float64(rateHalfLife))
	r.sum = r.sum*keep + float64(bytes)/took.Seconds()*(1-keep)
	r.parts = r.parts*keep + (1 - keep)

	r.window.end += bytes
	r.window.took += took
	if r.window.took < peakWindow {
		return
	}
	rate := float64(r.window.end) / r.window.took.Seconds()
	r.window = look{}
	if n := len(r.peaks); n > 0 && now.Sub(r.peaks[n-1].begin) < peakHour {
		r.peaks[n-1].rate = max(r.peaks[n-1].rate, rate)
	} else {
		r.peaks = append(r.peaks, peak{now, rate})
	}
}

func (r *rates) rate(now time.Time) model.WALRate {
	if r.measured < firstRate {
		return model.WALRate{}
	}
	for len(r.peaks) > 0 && now.Sub(r.peaks[0].begin) > peakMemory+peakHour { // its highest may be of its end
		r.peaks = r.peaks[1:]
	}
	rate := model.WALRate{Usual: r.sum / r.parts, Since: r.since}
	rate.Peak = rate.Usual
	for _, p := range r.peaks {
		rate.Peak = max(rate.Peak, p.rate)
	}
	return rate
}
