package world

import (
	"slices"

	"github.com/pgrex/pgrex/model"
)

// judgeForecast holds what a host's plan foretells against what would happen, were it promoted now. A forecast may be worse
// than what would happen, where pgrex cannot know better; it is never better, but for reasons that no slot can prevent.
func (w *world) judgeForecast(h *host, plan model.Plan) {
	if w.newest(h) != h && h.server == primary {
		return // the others have a newer primary, and it does not know
	}
	for _, f := range plan.Forecast {
		n := w.host(f.Host)
		if f.Way == model.WayUnknown || n == h {
			w.count.forecasts["unknown"]++
			continue
		}
		promoted := h.wal.clone()
		if h.server == standby {
			promoted.history = append(promoted.history, branch{w.timelines + 1, promoted.end})
		}
		truth := n.wal.comeBackTo(promoted)
		if !w.agentSlots && w.standbySlots {
			w.count.forecasts[foretold(f.Way, truth)]++
		}
		ahead := n.wal.end > promoted.end && (n.wal.end-promoted.end < 2*segment || w.unseen(n, promoted.end))
		switch {
		case n.spoiled > 0, truth == byCopyTarget, w.hold(h, n).why != "":
		case h.server == primary && truth == byRewind: // another one was primary in between, and pgrex here has not looked
		case h.server == standby && truth == byRewind && w.primarySaysStream(n): // nor there, and it is taken at its word
		case f.Way == model.WayStream && truth == byRewind && !ahead, f.Way != model.WayCopy && truth == byCopySource:
			w.fail("%s foretells %s for %s (%s), but it would %s: %s", h.name, f.Way, n.name, f.Why, truth, w.show(h, n))
		}
	}
}

// unseen tells whether a host is on the primary's history, but its slot there does not show that it is ahead of a position: it
// streams without.
func (w *world) unseen(n *host, end model.LSN) bool {
	p := w.address
	return p != nil && p.server == primary && n.wal.follows(p.wal) && p.slots[w.names[n.name]].restart < end+2*segment
}

// primarySaysStream tells whether a primary has published that a host streams, though that has parted from it.
func (w *world) primarySaysStream(n *host) bool {
	return slices.ContainsFunc(w.hosts, func(p *host) bool {
		return p.server == primary && model.ForecastIn(w.cibOf(p).nodes[p.name].forecast, n.name) == model.WayStream && n.wal.comeBackTo(p.wal) == byRewind
	})
}

func foretold(way model.Way, truth comeback) string {
	return string(way) + ", and it would " + string(truth)
}

func (w *world) host(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}
