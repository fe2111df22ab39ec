package world

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/pgrex/pgrex/model"
)

// event is one thing that happens in the world. Where it cannot happen, nothing does: so any part of a schedule is one.
type event struct {
	kind string
	host int
	arg  uint32
}

func (e event) String() string { return fmt.Sprintf("{%q, %d, %d}", e.kind, e.host, e.arg) }

type kind struct {
	name   string
	weight int
	happen func(w *world, h *host, arg uint32)
}

// kinds are the events, with how often each happens, relative to the others.
var kinds = append(slices.Clone(simple), kind{"race", 30, race})

// simple are those that are not a mixture of others.
var simple = []kind{
	{"write", 6, func(w *world, _ *host, arg uint32) {
		for _, h := range w.hosts {
			if h.server == primary {
				w.write(h, model.LSN(arg%(2*segment)))
			}
		}
	}},
	{"stream", 14, func(w *world, h *host, arg uint32) { w.stream(h, []float64{0, 0.3, 0.9, 1}[arg%4]) }},
	{"checkpoint", 6, func(w *world, h *host, arg uint32) {
		switch {
		case h.server == standby && h.began == (checkpoint{}) && arg%4 > 0:
			w.beginRestartpoint(h) // the next one ends it
		case h.server != down:
			w.checkpoint(h, model.LSN(arg%segment))
		}
	}},
	{"time passes", 16, func(w *world, _ *host, arg uint32) {
		w.each(w.startServer)
		w.advance(model.LSN(arg % (3 * segment)))
		w.each(w.monitor)
	}},
	{"observe", 9, func(w *world, h *host, arg uint32) { w.observe(h, int(arg%4)) }},
	{"decide", 9, func(w *world, h *host, _ uint32) { w.decide(h) }},
	{"step", 20, func(w *world, h *host, _ uint32) { w.step(h) }},
	{"pass", 4, func(w *world, h *host, _ uint32) { w.pass(h) }},
	{"monitor", 8, func(w *world, h *host, _ uint32) { w.monitor(h) }},
	{"agent", 14, func(w *world, _ *host, arg uint32) { w.agents(int(arg%4) + 1) }},
	{"start", 6, func(w *world, h *host, _ uint32) { w.startServer(h) }},
	{"crash", 2, func(w *world, h *host, arg uint32) { w.crash(h, arg%4 > 0) }},
	{"stop", 2, func(w *world, h *host, _ uint32) { w.switchover(h) }},
	{"power off", 2, func(w *world, h *host, _ uint32) { w.powerOff(h) }},
	{"power on", 5, func(w *world, h *host, _ uint32) {
		if !h.on {
			w.powerOn(h)
		}
	}},
	{"cut", 2, func(w *world, h *host, _ uint32) {
		if h.on && !h.cut {
			w.count.cuts++
			w.cutOff(h)
		}
	}},
	{"heal", 3, func(w *world, h *host, _ uint32) {
		if h.cut {
			w.heal(h)
		}
	}},
	{"fence", 4, func(w *world, h *host, _ uint32) { w.fence(h) }},
	{"disturb", 4, func(w *world, h *host, arg uint32) { w.disturb(h, arg) }},
	{"resolve", 2, func(w *world, _ *host, _ uint32) { w.resolve() }},
	{"timeout", 5, func(w *world, h *host, _ uint32) { w.timeout(h) }},
	{"kill pgrex", 1, func(_ *world, h *host, _ uint32) {
		h.pgrex = pgrex{settled: h.pgrex.settled}
	}},
	{"run pgrex", 4, func(_ *world, h *host, _ uint32) { h.pgrex.up = h.on }},
	{"maintenance", 1, func(w *world, h *host, _ uint32) {
		c := w.cibOf(h)
		w.maintain(c, !c.maintenance)
	}},
	{"foreign slot", 1, func(w *world, h *host, arg uint32) {
		name := []string{"barman", w.names[h.name]}[arg%2] // the second is one that nobody needs: the host's own
		if _, there := h.slots[name]; h.server != down && !there {
			h.slots[name] = slot{restart: h.redo, logical: arg%4 == 0}
			h.saveSlot(name)
		}
	}},
	{"a slot is dropped by hand", 2, func(w *world, h *host, arg uint32) {
		others := w.others(h)
		owner := others[int(arg)%len(others)]
		name := w.names[owner.name]
		if s, there := h.slots[name]; there && h.server == standby && !s.logical && s.user == "" {
			delete(h.slots, name)
			h.saveSlot(name)
			w.excuse(h, owner, "the holder's slot was dropped by hand")
		}
	}},
	{"repair", 5, func(w *world, h *host, arg uint32) { w.repair(h, arg%2 == 0) }},
	{"copy", 1, func(w *world, h *host, arg uint32) {
		if from := w.hosts[int(arg/2)%len(w.hosts)]; from != h && h.on && h.server != primary && from.server != down && !from.cut && !h.cut {
			w.stop(h, false)
			w.copyFrom(h, from, arg%2 == 0)
		}
	}},
}

// race is a pass of pgrex in the middle of which something else happens, anywhere.
func race(w *world, h *host, arg uint32) {
	w.observe(h, int(arg%4))
	w.decide(h)
	plan := h.pgrex.plan
	at := int(arg/4) % (len(plan.Steps) + 1)
	for i := range plan.Steps {
		if i == at {
			what := simple[int(arg/64)%len(simple)]
			what.happen(w, w.hosts[int(arg/8192)%len(w.hosts)], arg)
			w.count.races++
		}
		w.step(h)
	}
	if len(plan.Steps) > 0 && (!h.pgrex.up || h.pgrex.next < len(plan.Steps)) {
		w.count.interruptions++
	}
}

func (w *world) maintain(c *cib, on bool) {
	if c.maintenance != on {
		c.maintenance = on
		c.versions = append(c.versions, nil)
	}
}

// timeout is wal_sender_timeout: walsenders of hosts that are gone end.
func (w *world) timeout(h *host) {
	for name, s := range h.slots {
		if s.gone {
			s.user, s.gone = "", false
			h.slots[name] = s
		}
	}
}

// switchover stops a server in order: the agent removes PGSQL.lock of a primary that ended cleanly.
func (w *world) switchover(h *host) {
	if h.server == down || w.promoting != nil && w.promoting.host == h {
		return
	}
	if h.server == primary {
		w.count.switchovers++
	}
	w.stop(h, true)
	h.lock = false
	w.monitor(h)
}

// repair is what an operator does about a host that does not come back by itself, when there is a primary: nothing if its
// data are a part of the primary's, else the cheapest way. Where nobody can be promoted, the newest data are let start.
func (w *world) repair(h *host, careful bool) {
	p := w.reachablePrimary(h)
	switch {
	case p == nil:
		w.release(h)
		return
	case p == h || !h.on || h.server == primary || h.upstream != nil:
		return
	}
	switch h.wal.comeBackTo(p.wal) {
	case byStreaming:
		h.lock = false
	case byRewind:
		w.stop(h, false)
		if p.redoTimeline != p.wal.timeline() {
			w.checkpoint(p, 0) // pg_rewind reads the source's timeline from its control file
		}
		if h.wal.comeBackTo(p.wal) == byRewind {
			w.rewind(h, p, careful)
		}
	case byCopySource, byCopyTarget:
		w.judge()
		w.stop(h, false)
		w.count.why[w.hold(p, h).why]++
		w.copyFrom(h, p, careful)
	}
}

// release removes PGSQL.lock from the newest data when all hosts are there and none of them is primary, or can be.
func (w *world) release(h *host) {
	newest := h
	for _, o := range w.hosts {
		if !o.on || o.cut || o.server == primary || o.server == standby && !o.lock {
			return
		}
		if o.wal.timeline() > newest.wal.timeline() || o.wal.timeline() == newest.wal.timeline() && o.wal.end > newest.wal.end {
			newest = o
		}
	}
	newest.lock = false
}

// randomSchedule is what a seed stands for. Things tend to happen to one host for a while, so that more of what is seen,
// planned and done there meets something that has changed.
func randomSchedule(r *rand.Rand, hosts, length int) []event {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	schedule := make([]event, length)
	host := 0
	for i := range schedule {
		if r.IntN(3) == 0 {
			host = r.IntN(hosts)
		}
		at := r.IntN(total)
		for _, k := range kinds {
			if at -= k.weight; at < 0 {
				schedule[i] = event{k.name, host, r.Uint32()}
				break
			}
		}
	}
	return schedule
}
