package model

import (
	"cmp"
	"slices"
	"time"
)

// Dearest is the dearest way back that may be taken without a person (MetaAutoRejoin).
type Dearest string

// The values, each of them with those before it.
const (
	DearestNone   Dearest = "none"
	DearestStart  Dearest = "start"  // the data as they are
	DearestRewind Dearest = "rewind" // pg_rewind
	DearestCopy   Dearest = "copy"   // a copy of the whole database
)

var dearest = []string{string(DearestNone), string(DearestStart), string(DearestRewind), string(DearestCopy)}

// Allows reports whether a way back is no dearer than this one. It never allows a way that is none of the values.
func (d Dearest) Allows(way string) bool {
	i := slices.Index(dearest, way)
	return i > 0 && i <= slices.Index(dearest, string(d))
}

// How often a host may come back without a person.
const (
	// MaxTries is how many tries in a row may fail.
	MaxTries = 3
	// MaxReturns within ReturnsWithin seconds are too many: something makes this host fail again and again.
	MaxReturns    = 3
	ReturnsWithin = 3600
)

// AutoRejoinWho begins operations without a person, in their journals.
const AutoRejoinWho = "pgrex-rejoin"

// AutoRejoin is what a host remembers of its ways back without a person. It outlives a restart of the host. The zero
// value is that of a host that has never tried.
type AutoRejoin struct {
	// Tries is how many tries have failed in a row, or were begun and never ended. The next one waits until Next.
	Tries int       `json:"tries"`
	Next  time.Time `json:"next,omitzero"`
	// Wait is the first of the waits, from which the others grow; 0 for the usual one.
	Wait time.Duration `json:"wait,omitempty"`
	// Problem is why the last try failed, or why this host was left alone after a close look; "" after a success.
	Problem string `json:"problem,omitempty"`
	// Refused: after a close look, no way back may be taken without a person.
	Refused bool `json:"refused,omitempty"`
	// Returns are the times of the last successful tries, at most MaxReturns, the oldest first.
	Returns []time.Time `json:"returns,omitempty"`
	// Last is how this host came back the last time, also with a person; nil if that is not known.
	Last *Returned `json:"last,omitempty"`
	// GivenUp is what a try has given up that did not end well; nil for nothing. The return after it names it.
	GivenUp *GivenUp `json:"given_up,omitempty"`
	// Running reports whether the service that comes back without a person runs here. It is not kept.
	Running bool `json:"running,omitempty"`
}

// Returned is how a host came back.
type Returned struct {
	At      time.Time `json:"at"`
	By      string    `json:"by"`      // who began it
	Way     string    `json:"way"`     // the method of rejoin; "first" for a start as the primary
	Primary string    `json:"primary"` // whom it follows since
	GivenUp *GivenUp  `json:"given_up,omitempty"`
}

// GivenUp is WAL that only this host had when a rewind or a copy began. In it may be commits that were acknowledged.
type GivenUp struct {
	Timeline uint32 `json:"timeline"` // the one that both hosts have in common
	From     LSN    `json:"from"`     // where the data parted
	To       LSN    `json:"to"`       // the end of the WAL here
	Bytes    uint64 `json:"bytes"`    // between them
	Commit   string `json:"last_commit,omitempty"`
	Folder   string `json:"folder"` // the WAL is kept there
	// Short is why not all of it is kept; "" if all is.
	Short string `json:"short,omitempty"`
}

// Nothing reports whether there is nothing to say: this host has never come back, and no service runs.
func (a *AutoRejoin) Nothing() bool {
	return a == nil || a.Tries == 0 && a.Problem == "" && len(a.Returns) == 0 && a.Last == nil && a.GivenUp == nil && !a.Running
}

// Failed reports whether the tries are used up.
func (a AutoRejoin) Failed() bool { return a.Tries >= MaxTries }

// Flaps reports whether this host came back too often within a short time. That stays so until a person has looked.
func (a AutoRejoin) Flaps() bool {
	n := len(a.Returns)
	if n < MaxReturns {
		return false
	}
	last := slices.SortedFunc(slices.Values(a.Returns[n-MaxReturns:]), time.Time.Compare) // the clock may have been put back
	return last[MaxReturns-1].Sub(last[0]) <= ReturnsWithin*time.Second
}

// Tried is what is remembered once a try has begun: it has failed, unless it ends well. wait is how long the first try
// has to be ago before the second one.
func (a AutoRejoin) Tried(now time.Time, wait time.Duration) AutoRejoin {
	a.Tries++
	a.Wait, a.Refused = wait, false
	for range a.Tries - 1 {
		wait *= waitGrows
	}
	a.Next = now.Add(wait)
	return a
}

// Due reports whether the next try may begin. A Next that is further ahead than any wait was set by a clock that has been
// put right since.
func (a AutoRejoin) Due(now time.Time) bool {
	wait := cmp.Or(a.Wait, usualWait)
	for range MaxTries - 1 {
		wait *= waitGrows
	}
	return !now.Before(a.Next) || a.Next.Sub(now) > max(wait, LongestLeft)
}

// LongestLeft is how long a host is left alone at most after a close look that was no try.
const LongestLeft = time.Hour

// waitGrows is how many times longer each wait is than the one before.
const waitGrows = 5

// usualWait is the first wait unless another one was asked for.
const usualWait = time.Minute

// Succeeded is what is remembered of a try that has ended well. What an earlier try has given up was given up for this
// return.
func (a AutoRejoin) Succeeded(r Returned) AutoRejoin {
	all := append(slices.Clone(a.Returns), r.At)
	if r.GivenUp == nil {
		r.GivenUp = a.GivenUp
	}
	return AutoRejoin{Returns: all[max(0, len(all)-MaxReturns):], Last: &r}
}
