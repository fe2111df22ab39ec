package world

import (
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// crash ends a server without a clean stop. Where pgrex runs, it may tell Pacemaker, which then demotes the database at
// once.
func (w *world) crash(h *host, prompt bool) {
	was := h.server
	w.stop(h, false)
	if was == down || !h.on || !h.pgrex.up || !prompt {
		return
	}
	end := model.PostmasterEnd{State: model.InProduction}
	if was == standby {
		end.State = "in archive recovery"
	}
	who, err := reconcile.ResolveCluster(reconcile.Input{Node: h.name, Cluster: w.read(h, 0), Newest: h.pgrex.newest})
	switch {
	case err != nil:
		w.fail("%s: the cluster is not understood: %v", h.name, err)
	case !who.Hint(reconcile.Crash{End: end}).OK:
		w.count.unhinted++
	default:
		w.count.hints++
		w.judgeHint(h, was)
		w.cibOf(h).change(h.name, func(n *node) { n.role, n.status, n.score = model.RoleUnpromoted, "STOP", noScore })
	}
}

// judgeHint is I11: only the primary's crash is told, where Pacemaker reacts to it and another host can take over.
func (w *world) judgeHint(h *host, was role) {
	c := w.cibOf(h)
	n := c.nodes[h.name]
	heirs := 0
	for _, o := range w.others(h) {
		if heir := c.nodes[o.name]; heir.online && !heir.unclean && heir.doubt == "" && heir.role == model.RoleUnpromoted && heir.score == "100" && heir.status != "STOP" {
			heirs++
		}
	}
	if was != primary || n.role != model.RolePromoted || n.doubt != "" || c.maintenance || !w.quorate(h) || heirs == 0 {
		w.fail("%s gives a crash hint: it was %s, to Pacemaker %s %s; maintenance %t, quorum %t, %d others may be promoted",
			h.name, was, n.role, n.doubt, c.maintenance, w.quorate(h), heirs)
	}
}
