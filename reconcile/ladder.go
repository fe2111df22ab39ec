package reconcile

import (
	"fmt"

	"github.com/pgrex/pgrex/model"
)

// Method is a way to bring a host back.
type Method string

// The methods, the cheapest first.
const (
	MethodStart  Method = "start"  // its data are a part of the primary's, which has the rest
	MethodRewind Method = "rewind" // its data parted from the primary's: pg_rewind takes them back
	MethodCopy   Method = "copy"   // pg_basebackup
)

// Return is what is known of a host that is to come back, and of the primary that it is to follow.
type Return struct {
	Host  string
	Local LocalData
	// Primary is who it is to follow: its timelines, and what it said of this host's slot.
	Primary   model.Upstream
	Timelines []model.Timeline
	// NoWAL is why the primary cannot send WAL from Local.End on; "" if it can.
	NoWAL string
	// Begun is the method of an earlier attempt that changed the data and was not finished.
	Begun Method
}

// LocalData is what a stopped server's data folder tells.
type LocalData struct {
	SystemID  string
	Timelines []model.Timeline // the oldest first
	End       model.LSN        // of its WAL
	Segment   uint64           // bytes of a WAL segment
	Bytes     uint64           // in the data folder
	Free      uint64           // on its file system, in bytes
	// NoRewind is why pg_rewind cannot work here, "" if it can; NoCopy the same for a copy.
	NoRewind, NoCopy string
}

// Rung is a way back, possible or not, and why.
type Rung struct {
	Method   Method
	Possible bool
	Why      string // one sentence
	Bytes    uint64 // to be fetched, about
}

// Ladder gives the ways back, the cheapest first.
func Ladder(r Return) []Rung {
	return []Rung{r.start(), r.rewind(), r.copied()}
}

// parted tells where the host's WAL and the primary's part: the end of what they share.
func (r Return) parted() model.LSN {
	var shared model.LSN
	for i, mine := range r.Local.Timelines {
		if i >= len(r.Timelines) || r.Timelines[i] != mine {
			break
		}
		shared = min(end(r.Local.Timelines, i, r.Local.End), end(r.Timelines, i, r.Primary.Flushed))
	}
	return shared
}

func end(timelines []model.Timeline, i int, last model.LSN) model.LSN {
	if i+1 < len(timelines) {
		return timelines[i+1].Begin
	}
	return last
}

// onlyAhead: on the primary's own timeline, and further than the primary itself.
func (r Return) onlyAhead() bool {
	mine, its := r.Local.Timelines, r.Timelines
	return len(mine) == len(its) && mine[len(mine)-1] == its[len(its)-1] && r.Local.End > r.Primary.Flushed
}

func (r Return) start() Rung {
	rung := Rung{Method: MethodStart, Bytes: r.Local.End.BytesTo(r.Primary.Flushed)}
	switch parted := r.parted(); {
	case r.otherSystem() != "":
		rung.Why = r.otherSystem()
	case r.Begun != "":
		rung.Why = fmt.Sprintf("a %s was begun here and not finished: the data are of no use as they are", r.Begun)
	case r.onlyAhead():
		rung.Why = fmt.Sprintf("it has WAL up to %s, and the primary, on the same timeline, only up to %s: the primary has lost "+
			"what this host has; find out why before you give it up", r.Local.End, r.Primary.Flushed)
	case parted == 0:
		rung.Why = "it shares no timeline with the primary"
	case parted != r.Local.End:
		rung.Why = fmt.Sprintf("its WAL goes on to %s, but parts from the primary's at %s", r.Local.End, parted)
	case r.NoWAL != "":
		rung.Why = fmt.Sprintf("it needs WAL from %s on: %s", r.Local.End, r.NoWAL)
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("all it has is a part of the primary's WAL, which the primary has from %s on", r.Local.End)
	}
	return rung
}

func (r Return) rewind() Rung {
	parted := r.parted()
	rung := Rung{Method: MethodRewind, Bytes: parted.BytesTo(r.Primary.Flushed) + parted.BytesTo(r.Local.End)}
	switch {
	case r.otherSystem() != "":
		rung.Why = r.otherSystem()
	case r.Begun != "":
		rung.Why = fmt.Sprintf("a %s was begun here and not finished: pg_rewind must not be run on what it left", r.Begun)
	case r.onlyAhead():
		rung.Why = "the timelines have not parted: pg_rewind would do nothing"
	case parted == r.Local.End:
		rung.Why = "its WAL has not parted from the primary's: pg_rewind would do nothing"
	case parted == 0:
		rung.Why = "it shares no timeline with the primary"
	case r.Local.NoRewind != "":
		rung.Why = r.Local.NoRewind
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("its WAL parted from the primary's at %s: what was written here since is given up", parted)
	}
	return rung
}

func (r Return) copied() Rung {
	rung := Rung{Method: MethodCopy, Possible: true, Bytes: r.Local.Bytes, Why: "always possible; the old data are kept until the copy is whole"}
	switch {
	case r.Local.NoCopy != "":
		rung.Possible, rung.Why = false, r.Local.NoCopy
	case r.Local.Free < r.Local.Bytes:
		rung.Possible = false
		rung.Why = fmt.Sprintf("%s are free, but the copy beside the old data needs about %s: make room, or copy by hand",
			model.FormatBytes(r.Local.Free), model.FormatBytes(r.Local.Bytes))
	}
	return rung
}

func (r Return) otherSystem() string {
	if r.Local.SystemID == r.Primary.SystemID {
		return ""
	}
	return fmt.Sprintf("its data are of another database: the system identifier is %s, the primary's %s", r.Local.SystemID, r.Primary.SystemID)
}
