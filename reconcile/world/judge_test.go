package world

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// hold is what one host's slot does for another: whether it holds all that the other would need to come back to it.
type hold struct {
	whole bool
	led   bool   // when last looked at, the holder was, or had last been, the primary
	why   string // if it is not whole: what took it away, that no slot can prevent
}

// because keeps the first reason until the hold is whole again.
func (h *hold) because(why string) {
	if h.why == "" {
		h.why = why
	}
}

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure, w.broken = fmt.Errorf(format, args...), format
	}
}

func (w *world) hold(s, n *host) *hold { return w.holds[[2]string{s.name, n.name}] }

// excuse says that a hold is not whole any more for a reason that is not pgrex's.
func (w *world) excuse(s, n *host, why string) { *w.hold(s, n) = hold{why: why} }

// owner is the host that a slot's name belongs to.
func (w *world) owner(name string) *host {
	for _, h := range w.hosts {
		if w.names[h.name] == name {
			return h
		}
	}
	return nil
}

// isWhole tells whether s has, and will keep, the WAL that n needs to come back to it.
func (w *world) isWhole(s, n *host) bool {
	slots := s.slots
	if s.server == down {
		slots = s.saved
	}
	need := startOfSegment(n.wal.need(s.wal))
	held := slots[w.names[n.name]]
	return held.reserved() && !held.logical && startOfSegment(held.restart) <= need && s.wal.start <= need
}

// judge holds what must be so after every event.
func (w *world) judge() {
	for _, h := range w.hosts {
		if p := w.newest(h); h.wal.end >= h.spoiled && h.wal.follows(p.wal) && p.server == primary {
			h.spoiled = 0
		}
	}
	for _, h := range w.hosts {
		for _, n := range w.others(h) {
			w.judgeHold(h, n)
		}
	}
}

// judgeSharing: no host streams through another's slot, but one whose data, and with them the setting, came from another
// host and whose pgrex has not been able to look yet.
func (w *world) judgeSharing(h *host) {
	owner := w.owner(h.setting)
	if owner == nil || owner == h {
		return
	}
	if h.pgrex.settled {
		w.fail("%s streams through %s, which is not its own", h.name, h.setting)
	}
	w.count.misled++
}

// judgeHold: what a host once held for another it keeps holding, and no need for a copy comes without a reason.
func (w *world) judgeHold(s, n *host) {
	if w.agentSlots || !w.standbySlots {
		return // no slots are held on standbys
	}
	h := w.hold(s, n)
	was := *h
	h.led, h.whole = s.led, w.isWhole(s, n)
	way := n.wal.comeBackTo(s.wal)
	switch {
	case h.whole && n.spoiled == 0:
		h.why = ""
	case n.spoiled > 0:
		h.whole = false
		h.because("its slots were moved by another host, or it was copied from one that was behind")
	case way == byCopyTarget:
		h.because("its own WAL back to the last common checkpoint is gone")
	case was.led && !s.led, s.led && (s.server != primary || w.newest(s) != s):
		// A primary's slots stand where their owners are, and hold nothing for a rewind before it is a standby.
		h.because("the holder was the primary before")
	case w.parted(s):
		h.because("the holder has parted from the primary, and is to be rewound itself")
	case was.whole:
		w.fail("%s held all that %s needs to come back (%s), and does not any more: %s", s.name, n.name, way, w.show(s, n))
	case way == byCopySource && h.why == "" && s == w.address:
		w.fail("%s needs a copy of %s, for no good reason: %s", n.name, s.name, w.show(s, n))
	}
}

// newest is the primary on the newest timeline, or the host itself if there is none on a newer one.
func (w *world) newest(h *host) *host {
	for _, o := range w.hosts {
		if o.server == primary && o.wal.timeline() > h.wal.timeline() {
			h = o
		}
	}
	return h
}

// parted tells whether a host holds WAL that some primary does not have. The newest primary is never taken for that.
func (w *world) parted(h *host) bool {
	if h.server == primary && w.newest(h) == h {
		return false
	}
	return slices.ContainsFunc(w.hosts, func(p *host) bool { return p.server == primary && !h.wal.follows(p.wal) })
}

func (w *world) show(s, n *host) string {
	return fmt.Sprintf("%s has WAL from %s, slot %+v, is %s; %s needs %s, is %s at %s",
		s.name, s.wal.start, s.slots[w.names[n.name]], s.server, n.name, n.wal.need(s.wal), n.server, n.wal.end)
}

// judgeStep: a step has changed no slot but a physical one of our names, and on a primary it has let go of no WAL
// that is held for a member. A plan that is late may remake a slot where it stands (seed 38124).
func (w *world) judgeStep(h *host, step model.Step, s slot) {
	w.count.kinds[step.Kind()]++
	name := stepSlot(step)
	if name == "" {
		return
	}
	owner := w.owner(name)
	if owner == nil || s.logical {
		w.fail("%s: %s %s, which is not ours", h.name, step.Kind(), name)
		return
	}
	now, there := h.slots[name]
	destroys := (step.Kind() == "ResetSlot" || step.Kind() == "DropSlot") && (!there || now.restart > s.restart)
	if destroys && h.server == primary && owner != h && s.reserved() {
		w.fail("%s: %s %s, which holds WAL for %s", h.name, step.Kind(), name, owner.name)
	}
}

// judgePass: after a whole pass of pgrex nothing is left to do, and there is a slot for every other member.
func (w *world) judgePass(h *host) {
	if !h.on || !h.pgrex.up {
		return
	}
	done := h.pgrex.plan
	w.observe(h, 0)
	w.decide(h)
	again := h.pgrex.plan
	if len(again.Steps) > 0 {
		w.fail("after a whole pass of\n%s\nthere is more to do:\n%s", describe(done), describe(again))
	}
	blind := slices.ContainsFunc(again.Findings, func(f model.Finding) bool { return f.Code == model.CodeUpstreamUnknown })
	if again.Standing == model.InTransition || blind {
		return
	}
	w.judgeForecast(h, again)
	if again.Standing == model.Standby {
		h.pgrex.settled = true
	}
	if again.Standing == model.Standby && (w.agentSlots || !w.standbySlots) {
		return
	}
	for _, o := range w.others(h) {
		if _, ok := h.slots[w.names[o.name]]; !ok {
			w.fail("%s has no slot for %s after a whole pass: %s", h.name, o.name, describe(again))
		}
	}
}

// converge ends the faults, and lets Pacemaker, the agent, an operator and pgrex do their work until nothing is left to do.
// Then every host streams through its own slot, and every slot stands where it should.
func (w *world) converge() {
	const patience = 30
	for range patience {
		w.recover()
		if w.failure != nil || w.settled() {
			w.judgeEnd()
			return
		}
	}
	w.fail("it does not come to rest: %s", w)
}

// recover is one round of everybody doing what is due.
func (w *world) recover() {
	w.maintain(w.main, false)
	for _, h := range w.hosts {
		if h.cut {
			w.heal(h)
		}
		w.fence(h)
		if !h.on {
			w.powerOn(h)
		}
		h.pgrex.up = true
		w.timeout(h)
	}
	w.resolve()
	w.each(w.monitor)
	w.each(w.startServer)
	w.agents(10)
	w.each(func(h *host) { w.repair(h, true) })
	w.each(w.startServer)
	w.each(func(h *host) { w.stream(h, 1) })
	w.advance(segment / 3)
	w.each(w.monitor)
	w.each(w.pass)
	w.judge()
}

// advance writes, and makes everybody's checkpoint or restartpoint.
func (w *world) advance(bytes model.LSN) {
	if w.address != nil && w.address.server == primary {
		w.write(w.address, bytes)
		w.checkpoint(w.address, 0)
	}
	w.each(func(h *host) { w.stream(h, 1) })
	w.each(func(h *host) {
		switch {
		case h.server == standby && h.began == (checkpoint{}) && w.count.events%3 == 0:
			w.beginRestartpoint(h) // the next time ends it
		case h.server == standby:
			w.checkpoint(h, 0)
		}
	})
}

// settled: there is one primary, everybody else streams from it through the slot that is its own, and every pgrex has
// made
// a plan, without a step.
func (w *world) settled() bool {
	for _, h := range w.hosts {
		if h.server == primary && h != w.address || h.pgrex.plan.Standing == "" { // of a pass that was cut short
			return false
		}
		if h.server == down || h.server == standby && (h.upstream == nil || h.through != w.names[h.name]) || len(h.pgrex.plan.Steps) > 0 {
			return false
		}
	}
	return true
}

// judgeEnd: as time goes by, what the slots hold moves along, and nobody holds more than a failover would need.
func (w *world) judgeEnd() {
	for range 2 {
		w.advance(3 * segment)
		w.each(w.monitor)
		w.each(w.pass)
	}
	before := w.count.steps
	w.each(w.pass)
	if w.count.steps != before {
		w.fail("at rest pgrex still does steps: %s", w)
	}
	for _, h := range w.hosts {
		if _, own := h.slots[w.names[h.name]]; !w.agentSlots && (own || h == w.address && h.setting != "") {
			w.fail("at rest %s has a slot for itself, or is a primary with the primary_slot_name %q", h.name, h.setting)
		}
		if h.server != standby || w.agentSlots || !w.standbySlots {
			continue
		}
		for _, o := range w.others(h) {
			want := h.redo
			if o != w.address {
				want = min(want, w.address.slots[w.names[o.name]].restart)
			}
			if s := h.slots[w.names[o.name]]; !s.reserved() || startOfSegment(s.restart) != startOfSegment(want) || s.xmin {
				w.fail("at rest the slot on %s for %s is %+v, not at %s", h.name, o.name, s, want)
			}
		}
	}
}

// String shows the state of the world.
func (w *world) String() string {
	var b strings.Builder
	for _, h := range w.hosts {
		fmt.Fprintf(&b, "\n  %s on=%t cut=%t %s lock=%t wal %s..%s timelines %v redo %s/%d setting %q through %q",
			h.name, h.on, h.cut, h.server, h.lock, h.wal.start, h.wal.end, h.wal.history, h.redo, h.redoTimeline, h.setting, h.through)
		for _, name := range sortedNames(h.slots) {
			fmt.Fprintf(&b, "\n    %s %+v", name, h.slots[name])
		}
		fmt.Fprintf(&b, "\n    %s", strings.ReplaceAll(describe(h.pgrex.plan), "\n", "\n    "))
	}
	return b.String()
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
