package world

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

const systemID = "7000000000000000001"

// pgrex is the daemon of one host: what it has seen, and the plan it is about to carry out.
type pgrex struct {
	up      bool
	newest  model.Version
	cluster *model.Cluster // the CIB as it was last read: it is never older the next time
	seen    reconcile.Input
	plan    model.Plan
	next    int // of the plan's steps
	// reserves is where a slot stood that was made last, while this server runs.
	reserves model.LSN
	settled  bool // it has once found nothing more to do as a standby, since the host has these data
}

// observe reads the CIB, which may be late, and the local server.
func (w *world) observe(h *host, late int) {
	p := &h.pgrex
	if !h.on || !p.up {
		return
	}
	cluster := w.read(h, late)
	if p.cluster != nil && cluster.Version.ConfigurationOlder(p.cluster.Version) && late > 0 {
		cluster = p.cluster
	}
	p.cluster = cluster
	if p.newest.ConfigurationOlder(cluster.Version) {
		p.newest = cluster.Version
	}
	p.plan, p.next = model.Plan{}, 0
	p.seen = reconcile.Input{Node: h.name, Cluster: cluster, Newest: p.newest, Instance: w.instance(h)}
}

// decide asks the upstream, and plans with what was observed before.
func (w *world) decide(h *host) {
	p := &h.pgrex
	if !h.on || !p.up || p.seen.Cluster == nil {
		return
	}
	in := p.seen
	if in.Instance.InRecovery && h.server == standby {
		in.Upstream, in.UpstreamProblem = w.askUpstream(h)
	}
	plan, err := reconcile.Plan(in)
	if err != nil {
		w.fail("%s: no plan: %v", h.name, err)
	}
	w.count.plans++
	if why := in.Cluster.Clones[0].Unsettled[h.name]; why != "" && plan.Standing == model.Primary {
		w.fail("%s takes itself for the primary, though Pacemaker says %s", h.name, why)
	}
	p.plan, p.next = plan, 0
}

// step carries out the plan's next step. What it was planned on may have changed since.
func (w *world) step(h *host) {
	p := &h.pgrex
	if !h.on || !p.up || p.next >= len(p.plan.Steps) {
		return
	}
	step := p.plan.Steps[p.next]
	p.next++
	before := h.slots[stepSlot(step)]
	if !w.apply(h, step) {
		w.count.changed++
		p.plan, p.next = model.Plan{}, 0
		return
	}
	w.count.steps++
	w.judgeStep(h, step, before)
}

// pass is a whole pass that nothing interrupts.
func (w *world) pass(h *host) {
	w.observe(h, 0)
	w.decide(h)
	before := w.count.changed
	for range h.pgrex.plan.Steps {
		w.step(h)
	}
	if w.count.changed == before {
		w.judgePass(h)
	}
}

// instance is what the local server says of itself.
func (w *world) instance(h *host) model.Instance {
	if h.server == down {
		return model.Instance{State: model.ServerDown, Problem: "nothing listens"}
	}
	i := model.Instance{
		State: model.ServerUp, Version: w.version, SystemID: systemID, InRecovery: h.server == standby,
		Redo: h.redo, RedoTimeline: h.redoTimeline, Current: h.wal.end, Received: h.wal.end, WALSegmentSize: segment,
		MaxSlots: w.maxSlots, PrimarySlotName: h.setting,
	}
	if h.pgrex.reserves > h.redo {
		i.Reserves = h.pgrex.reserves
	}
	for _, name := range sortedNames(h.slots) {
		s := h.slots[name]
		slot := model.Slot{Name: name, Type: model.SlotPhysical, RestartLSN: s.restart, Active: s.user != "", WALStatus: "reserved"}
		switch {
		case s.lost:
			slot.WALStatus = "lost"
		case !s.restart.IsValid():
			slot.WALStatus = ""
		}
		if s.logical {
			slot.Type = model.SlotLogical
		}
		if slot.Active {
			slot.ActivePID = w.pid(s.user)
		}
		if s.xmin {
			slot.XMin = 700
		}
		i.Slots = append(i.Slots, slot)
	}
	for _, o := range w.hosts {
		if o.upstream == h {
			i.Senders = append(i.Senders, model.WALSender{ApplicationName: o.name, PID: w.pid(o.name), State: "streaming"})
		}
	}
	if h.upstream != nil {
		i.Receiver = &model.WALReceiver{Status: "streaming", SlotName: h.through, Timeline: h.wal.timeline()}
	}
	return i
}

func (w *world) pid(name string) int {
	return 100 + slices.IndexFunc(w.hosts, func(h *host) bool { return h.name == name })
}

// askUpstream is IDENTIFY_SYSTEM and READ_REPLICATION_SLOT at the virtual IP.
func (w *world) askUpstream(h *host) (*model.Upstream, string) {
	p := w.reachablePrimary(h)
	if p == nil {
		return nil, "nobody answers"
	}
	u := &model.Upstream{Address: "192.0.2.100:5432", SystemID: systemID, Timeline: p.wal.timeline(), Flushed: p.wal.end}
	for _, o := range w.hosts {
		name := w.names[o.name]
		s, ok := p.slots[name]
		answer := model.UpstreamSlot{Name: name, Exists: ok}
		if ok && !s.logical {
			answer.RestartLSN = s.restart // also that of a lost slot that moves again: nothing here tells it from a good one
		}
		u.Slots = append(u.Slots, answer)
	}
	return u, ""
}

// apply does to the simulated server what the step's SQL does to a real one, with the same precondition. False: the
// precondition did not hold, and nothing was done.
func (w *world) apply(h *host, step model.Step) bool {
	asPlanned := func(g model.Guard) bool {
		return h.server != down && g.SystemID == systemID && g.InRecovery == (h.server == standby) && g.RedoTimeline == h.redoTimeline
	}
	idle := func(name string, from model.LSN, g model.Guard) bool {
		s, ok := h.slots[name]
		return ok && asPlanned(g) && !s.logical && s.user == "" && s.restart == from
	}
	reserved := slot{restart: h.reserves()}
	// further reports whether a slot was made further on than pgrex could know, and has it know.
	further := func() bool {
		known := max(h.redo, h.pgrex.reserves)
		h.pgrex.reserves = reserved.restart
		if reserved.restart <= known {
			return false
		}
		w.count.further++
		return true
	}
	ok := false
	switch s := step.(type) {
	case model.CreateSlot:
		if _, there := h.slots[s.Slot]; asPlanned(s.Guard) && !there && len(h.slots) < w.maxSlots {
			h.slots[s.Slot] = reserved
			h.saveSlot(s.Slot)
			ok = !further()
		}
	case model.AdvanceSlot:
		if idle(s.Slot, s.From, s.Guard) && s.From <= s.To && s.To <= h.redo {
			ok, h.slots[s.Slot] = true, slot{restart: s.To, xmin: h.slots[s.Slot].xmin}
		}
		return ok // it is on disk with the next checkpoint
	case model.ReleaseXMin:
		if ok = idle(s.Slot, s.From, s.Guard); ok {
			h.slots[s.Slot] = slot{restart: s.From}
		}
		return ok
	case model.TouchSlot:
		return idle(s.Slot, s.From, s.Guard)
	case model.ResetSlot:
		old := h.slots[s.Slot]
		switch {
		case !idle(s.Slot, s.From, s.Guard):
		case old.reserved() && reserved.restart >= old.restart: // the trial slot says so: nothing is done
			further()
			return false
		default:
			h.slots[s.Slot] = reserved
			h.saveSlot(s.Slot)
			ok = !further()
		}
	case model.DropSlot:
		if ok = idle(s.Slot, s.From, s.Guard); ok {
			delete(h.slots, s.Slot)
		}
	case model.SetPrimarySlotName:
		if ok = asPlanned(s.Guard) && h.setting == s.From; ok {
			h.setting = s.To
			w.detach(h, false) // the walreceiver starts again
		}
		return ok
	case model.PublishAttribute:
		w.cibOf(h).change(h.name, func(n *node) { n.forecast = s.To })
		return true
	default:
		w.fail("unknown step %T", step)
	}
	if ok {
		h.saveSlot(stepSlot(step))
	}
	return ok
}

// saveSlot is on disk at once what a create, a drop or a reset did.
func (h *host) saveSlot(name string) {
	if s, ok := h.slots[name]; ok {
		h.saved[name] = s
	} else {
		delete(h.saved, name)
	}
}

func stepSlot(step model.Step) string {
	switch s := step.(type) {
	case model.CreateSlot:
		return s.Slot
	case model.ReleaseXMin:
		return s.Slot
	case model.TouchSlot:
		return s.Slot
	case model.AdvanceSlot:
		return s.Slot
	case model.ResetSlot:
		return s.Slot
	case model.DropSlot:
		return s.Slot
	case model.SetPrimarySlotName, model.SetWALBudget, model.PublishAttribute: // change none
	}
	return ""
}

func describe(plan model.Plan) string { return strings.TrimSpace(fmt.Sprint(plan)) }
