package world

import (
	"slices"

	"github.com/pgrex/pgrex/model"
)

const segment = 16 << 20 // bytes of a WAL segment

// branch is one line of a timeline history: from where on the timeline's WAL is its own.
type branch struct {
	timeline uint32
	begin    model.LSN
}

// checkpoint is a checkpoint record in the WAL: a standby can make its restartpoint there once it has replayed it.
type checkpoint struct {
	redo, record model.LSN
	timeline     uint32
}

// wal is the write-ahead log that a host has. It starts at a segment's start; everything before was recycled.
type wal struct {
	history     []branch
	start, end  model.LSN
	checkpoints []checkpoint // in order of position
}

func (w wal) timeline() uint32 { return w.history[len(w.history)-1].timeline }

func startOfSegment(l model.LSN) model.LSN { return l - l%segment }

// branchEnd is where branch i gives way to the next one, or where the log ends.
func (w wal) branchEnd(i int) model.LSN {
	if i+1 < len(w.history) {
		return w.history[i+1].begin
	}
	return w.end
}

// common is the position up to which two logs are the same.
func (w wal) common(o wal) model.LSN {
	var end model.LSN
	for i := range min(len(w.history), len(o.history)) {
		if w.history[i] != o.history[i] {
			break
		}
		end = min(w.branchEnd(i), o.branchEnd(i))
	}
	return end
}

// follows tells whether all of w is also in o, so that a server with w can go on with o.
func (w wal) follows(o wal) bool { return len(w.history) <= len(o.history) && w.common(o) == w.end }

// lastCheckpointBefore is the last checkpoint whose record is before a position: where pg_rewind goes back to, if the
// position is where two logs part.
func (w wal) lastCheckpointBefore(l model.LSN) checkpoint {
	for _, c := range slices.Backward(w.checkpoints) {
		if c.record < l {
			return c
		}
	}
	return checkpoint{}
}

// receive takes over the part of a log up to a position that w has not yet, and with it the history.
func (w *wal) receive(from wal, to model.LSN) {
	for _, c := range from.checkpoints {
		if c.record >= w.end && c.record < to {
			w.checkpoints = append(w.checkpoints, c)
		}
	}
	w.end = max(w.end, to)
	w.history = slices.DeleteFunc(slices.Clone(from.history), func(b branch) bool { return b.begin > w.end })
}

// recycle lets go of whole segments before a position.
func (w *wal) recycle(before model.LSN) {
	w.start = max(w.start, startOfSegment(before))
	w.checkpoints = slices.DeleteFunc(w.checkpoints, func(c checkpoint) bool { return c.record < w.start })
}

func (w wal) clone() wal {
	w.history, w.checkpoints = slices.Clone(w.history), slices.Clone(w.checkpoints)
	return w
}

// comeback is how a host can come back to a primary.
type comeback string

const (
	byStreaming comeback = "stream"
	byRewind    comeback = "rewind"
	// The host lacks its own WAL back to the last common checkpoint: slots on others cannot help.
	byCopyTarget comeback = "copy: its own WAL is gone"
	// The primary lacks WAL that the host needs: that is what slots are for.
	byCopySource comeback = "copy: the primary's WAL is gone"
)

// need is the position from which a host with w would need the log o to come back to its server.
func (w wal) need(o wal) model.LSN {
	if w.follows(o) {
		return w.end
	}
	return w.lastCheckpointBefore(w.common(o)).redo
}

// comeBackTo tells how a host with w can come back to a server with the log o.
func (w wal) comeBackTo(o wal) comeback {
	way := byStreaming
	if !w.follows(o) {
		way = byRewind
		if c := w.lastCheckpointBefore(w.common(o)); c == (checkpoint{}) {
			return byCopyTarget
		}
	}
	if o.start > startOfSegment(w.need(o)) {
		return byCopySource
	}
	return way
}
