package controller

import (
	"slices"
	"time"

	"github.com/pgrex/pgrex/model"
)

// Source is what a look reads.
type Source string

// The sources of a look. The primary is asked on a standby only.
const (
	SourceCIB        Source = "cib"
	SourcePostgreSQL Source = "postgresql"
	SourcePrimary    Source = "primary"
)

var sources = []Source{SourceCIB, SourcePostgreSQL, SourcePrimary}

// bounds are the upper bounds of the durations that are counted, in seconds: an answer from memory, a tool that is started, a
// deadline.
var bounds = [...]float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10}

// LookStatus is how the looks at one source have gone since the daemon's start.
type LookStatus struct {
	Source Source `json:"source"`
	// Last is when the last one ended that had an answer; null before the first.
	Last    *time.Time `json:"last"`
	Errors  uint64     `json:"errors"`  // looks without an answer, or with one that is of no use
	Count   uint64     `json:"count"`   // all of them
	Seconds float64    `json:"seconds"` // that they took together
	// Buckets are in order of their bounds; each counts what those before it count, too.
	Buckets []Bucket `json:"buckets"`
}

// Bucket counts the looks that took at most so long.
type Bucket struct {
	AtMost float64 `json:"at_most"` // seconds
	Count  uint64  `json:"count"`
}

// StepCount is how often steps of one kind were carried out, and how often they failed, since the daemon's start.
type StepCount struct {
	Kind   string `json:"kind"`
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
}

// looks counts the looks at each source.
type looks map[Source]*looked

type looked struct {
	last          time.Time
	count, errors uint64
	took          time.Duration
	within        [len(bounds)]uint64
}

// ended counts a look.
func (l looks) ended(source Source, began time.Time, answered bool) {
	now := time.Now()
	this := l[source]
	if this == nil {
		this = &looked{}
		l[source] = this
	}
	took := now.Sub(began)
	this.count++
	this.took += took
	for i, bound := range bounds {
		if took.Seconds() <= bound {
			this.within[i]++
		}
	}
	if answered {
		this.last = now
	} else {
		this.errors++
	}
}

// status returns an entry for each source.
func (l looks) status() []LookStatus {
	all := make([]LookStatus, 0, len(sources))
	for _, source := range sources {
		s := LookStatus{Source: source, Buckets: make([]Bucket, 0, len(bounds))}
		this := looked{}
		if l[source] != nil {
			this = *l[source]
		}
		if !this.last.IsZero() {
			s.Last = &this.last
		}
		s.Errors, s.Count, s.Seconds = this.errors, this.count, this.took.Seconds()
		for i, bound := range bounds {
			s.Buckets = append(s.Buckets, Bucket{bound, this.within[i]})
		}
		all = append(all, s)
	}
	return all
}

// newStepCounts has every kind of step, so that each is there before the first one is carried out.
func newStepCounts() (counts stepCounts) {
	for _, step := range []model.Step{model.CreateSlot{}, model.ReleaseXMin{}, model.TouchSlot{}, model.AdvanceSlot{}, model.ResetSlot{},
		model.DropSlot{}, model.SetPrimarySlotName{}, model.SetWALBudget{}, model.PublishAttribute{}} {
		counts = append(counts, StepCount{Kind: step.Kind()})
	}
	return counts
}

type stepCounts []StepCount

// add counts what became of steps.
func (s *stepCounts) add(r Result) {
	for _, step := range r.Done {
		s.of(step.Kind()).Done++
	}
	for _, f := range r.Failures {
		s.of(f.kind).Failed++
	}
}

func (s *stepCounts) of(kind string) *StepCount {
	i := slices.IndexFunc(*s, func(c StepCount) bool { return c.Kind == kind })
	if i < 0 {
		i = len(*s)
		*s = append(*s, StepCount{Kind: kind})
	}
	return &(*s)[i]
}
