package world

import (
	"maps"
	"slices"

	"github.com/pgrex/pgrex/model"
)

// role is what a host's PostgreSQL is.
type role int

const (
	down role = iota
	standby
	primary
)

func (r role) String() string { return []string{"down", "standby", "primary"}[r] }

// slot is a physical slot, or a foreign one.
type slot struct {
	restart model.LSN // none: it reserves nothing
	lost    bool
	xmin    bool
	logical bool
	user    string // the host that is attached
	gone    bool   // the host is not there any more, but its walsender still is
}

func (s slot) reserved() bool { return s.restart.IsValid() && !s.lost }

// host is one machine: its power, its network, its PostgreSQL's data and its pgrex.
type host struct {
	name   string
	on     bool
	cut    bool // off the network, but running
	server role
	led    bool // the server was the primary when it ran last

	wal          wal
	redo         model.LSN  // of the last checkpoint or restartpoint
	began        checkpoint // whose restartpoint is under way: slots reserve from its redo on
	redoTimeline uint32
	slots        map[string]slot
	saved        map[string]slot // as on disk: slots are saved at checkpoints
	setting      string          // primary_slot_name
	lock         bool            // PGSQL.lock: the agent does not start the server while it is there
	upstream     *host           // what it streams from
	through      string          // the slot that it streams through

	// spoiled is how far on the slots for this host may stand though it needs more, because somebody else moved its slot, or
	// because it was copied from, or rewound to, one that was behind it.
	spoiled model.LSN
	pgrex   pgrex
}

// start is the agent's start: always as a standby.
func (w *world) start(h *host) {
	h.server, h.led = standby, false
	h.slots = maps.Clone(h.saved)
	if w.agentSlots {
		h.setting = w.names[h.name]
		for _, other := range w.others(h) {
			delete(h.slots, w.names[other.name])
		}
	}
	h.save()
}

// stop ends the server at once. A clean stop has saved the slots; after a crash they are as of the last checkpoint.
func (w *world) stop(h *host, clean bool) {
	if h.server == down {
		return
	}
	if clean {
		w.checkpoint(h, 0)
		for _, o := range w.hosts { // a clean stop waits until the standbys have the shutdown checkpoint
			if o.upstream == h {
				w.stream(o, 1)
			}
		}
		h.save()
	}
	h.server = down
	h.forget()
	w.detach(h, false)
	for _, o := range w.hosts {
		if o.upstream == h {
			w.detach(o, false)
		}
	}
	h.slots = nil
}

// promote ends recovery: the server writes, on a timeline of its own.
func (w *world) promote(h *host) {
	w.detach(h, false)
	w.timelines++
	h.server, h.led = primary, true
	h.forget()
	h.wal.history = append(slices.Clone(h.wal.history), branch{w.timelines, h.wal.end})
	w.count.promotions++
}

// save writes the slots to disk.
func (h *host) save() {
	h.saved = make(map[string]slot, len(h.slots))
	for name, s := range h.slots {
		s.user, s.gone = "", false
		h.saved[name] = s
	}
}

// write makes a primary write WAL. In synchronous replication the attached standbys have it, too, before it counts.
func (w *world) write(h *host, bytes model.LSN) {
	h.wal.end += bytes
	if !w.synchronous {
		return
	}
	for _, o := range w.hosts {
		if o.upstream == h {
			w.stream(o, 1)
		}
	}
}

// checkpoint is a checkpoint of a primary, during which it writes some bytes, or a restartpoint of a standby, at the last
// checkpoint it has replayed. Then whole segments go that nobody needs, but for what slots hold within the budget.
func (w *world) checkpoint(h *host, bytes model.LSN) {
	if h.server == primary {
		c := checkpoint{redo: h.wal.end, record: h.wal.end + bytes, timeline: h.wal.timeline()}
		h.wal.end = c.record + 128
		h.wal.checkpoints = append(h.wal.checkpoints, c)
		h.redo, h.redoTimeline = c.redo, c.timeline
	} else {
		w.beginRestartpoint(h)
		c := h.began
		h.began = checkpoint{}
		if c.redo <= h.redo {
			return
		}
		h.redo, h.redoTimeline = c.redo, c.timeline
	}
	keep := h.redo
	for name, s := range h.slots {
		if !s.reserved() {
			continue
		}
		if w.budget > 0 && startOfSegment(h.wal.end)-startOfSegment(s.restart) > w.budget {
			w.invalidate(h, name)
			continue
		}
		keep = min(keep, s.restart)
	}
	h.save()
	h.wal.recycle(min(keep, h.wal.end-min(h.wal.end, w.keepSize)))
}

// beginRestartpoint begins a standby's restartpoint, which ends with the next checkpoint.
func (w *world) beginRestartpoint(h *host) {
	if h.server == standby && h.began == (checkpoint{}) {
		if c := h.wal.lastCheckpointBefore(h.wal.end); c.redo > h.redo {
			h.began = c
		}
	}
}

// reserves is from where on PostgreSQL reserves for a slot that is made now.
func (h *host) reserves() model.LSN { return max(h.redo, h.began.redo) }

// forget is what a server's end, and its promotion, do to a restartpoint under way, and to what pgrex knows of it.
func (h *host) forget() { h.began, h.pgrex.reserves = checkpoint{}, 0 }

// invalidate is what max_slot_wal_keep_size does: the walsender is ended, the slot is lost.
func (w *world) invalidate(h *host, name string) {
	s := h.slots[name]
	for _, o := range w.hosts {
		if o.upstream == h && o.through == name {
			w.detach(o, false)
			s = h.slots[name]
		}
	}
	s.lost, s.restart, s.user, s.gone = true, 0, "", false
	h.slots[name] = s
	w.count.lost++
	if owner := w.owner(name); owner != nil && owner != h {
		w.excuse(h, owner, "the WAL budget was spent")
	}
}

// detach ends a host's streaming. Where the host or the network is gone, the walsender stays until its timeout.
func (w *world) detach(h *host, silently bool) {
	if h.upstream == nil {
		return
	}
	if s, ok := h.upstream.slots[h.through]; ok && s.user == h.name {
		s.gone = silently
		if !silently {
			s.user = ""
		}
		h.upstream.slots[h.through] = s
	}
	h.upstream, h.through = nil, ""
}

// stream lets a standby attach to the primary, if it can, and receive a share of what it lacks.
func (w *world) stream(h *host, share float64) {
	p := w.reachablePrimary(h)
	if h.server != standby || p == nil || !w.attach(h, p) {
		return
	}
	behind := p.wal.end - h.wal.end
	h.wal.receive(p.wal, h.wal.end+model.LSN(float64(behind)*share))
	if s, ok := p.slots[h.through]; ok {
		s.restart, s.xmin = h.wal.end, w.feedback
		p.slots[h.through] = s
		if owner := w.owner(h.through); owner != nil && owner != h {
			owner.spoiled = max(owner.spoiled, h.wal.end)
		}
	}
}

// attach is the walreceiver's attempt to begin. It asks for WAL from the start of a segment.
func (w *world) attach(h, p *host) bool {
	if h.upstream == p {
		return true
	}
	w.detach(h, false)
	if h.wal.comeBackTo(p.wal) != byStreaming {
		return false
	}
	if h.setting != "" {
		s, ok := p.slots[h.setting]
		if !ok || s.logical || s.user != "" || s.lost && w.version >= 180000 {
			return false
		}
		if s.lost { // up to 17 such a slot moves again; up to 15 it even looks whole
			s.lost = w.version >= 160000
		}
		s.user = h.name
		p.slots[h.setting] = s
	}
	h.upstream, h.through = p, h.setting
	w.judgeSharing(h)
	return true
}

// rewind is pg_rewind with the primary as its source: the host gets the source's WAL and settings, and loses its slots. A
// careful operator puts primary_slot_name right before the first start.
func (w *world) rewind(h, from *host, careful bool) {
	back := h.wal.lastCheckpointBefore(h.wal.common(from.wal))
	if w.newest(from) != from { // of two primaries this is the older one, and the other's slot stands where the host was
		h.spoiled = max(h.spoiled, h.wal.end)
	}
	h.wal, h.redo, h.redoTimeline = from.wal.clone(), back.redo, back.timeline
	w.count.rewinds++
	w.replaceData(h, from, careful)
}

// copyFrom is pg_basebackup.
func (w *world) copyFrom(h, from *host, careful bool) {
	h.spoiled = max(h.spoiled, h.wal.end)
	h.wal, h.redo, h.redoTimeline = from.wal.clone(), from.redo, from.redoTimeline
	h.wal.recycle(from.redo)
	w.count.copies++
	w.replaceData(h, from, careful)
}

func (w *world) replaceData(h, from *host, careful bool) {
	h.saved, h.lock, h.setting = map[string]slot{}, false, from.setting
	if careful {
		h.setting = w.names[h.name]
	}
	h.pgrex.settled, h.led = false, false
	for _, o := range w.others(h) {
		w.excuse(h, o, "the holder's data were replaced, and with them its slots")
	}
}
