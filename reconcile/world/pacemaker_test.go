package world

import (
	"cmp"
	"maps"
	"slices"

	"github.com/pgrex/pgrex/model"
)

const resource = "pgsql"

// cib is what Pacemaker says in one partition: in the main one, or to a host that is cut off.
type cib struct {
	epoch       int64
	maintenance bool
	nodes       map[string]node
	versions    []*model.Cluster // all there were, the newest last: who reads late gets an older one
}

type node struct {
	online, unclean bool
	role            model.Role
	doubt           model.Unsettled // what Pacemaker is doing to the instance, or has seen wrong with it; "" when it is settled
	status, data    string          // the agent's attributes <primitive>-status and <primitive>-data-status
	forecast        string          // pgrex's own
	score           string          // the promotion score
}

// noScore is the promotion score of a host that is not to be promoted.
const noScore = "-INFINITY"

// change alters one node's state in a partition.
func (c *cib) change(name string, f func(*node)) {
	n := c.nodes[name]
	before := n
	f(&n)
	if n != before {
		c.nodes[name] = n
		c.versions = append(c.versions, nil) // made when somebody reads it
	}
}

// fork is the same for a host that is cut off, or that comes back.
func (c *cib) fork() *cib {
	return &cib{epoch: c.epoch + 1, maintenance: c.maintenance, nodes: maps.Clone(c.nodes), versions: []*model.Cluster{nil}}
}

// cibOf is the CIB of a host's partition.
func (w *world) cibOf(h *host) *cib {
	if own, ok := w.apart[h.name]; ok {
		return own
	}
	return w.main
}

// read gives the CIB of a host's partition, as of up to late changes ago.
func (w *world) read(h *host, late int) *model.Cluster {
	c := w.cibOf(h)
	if c.versions[len(c.versions)-1] == nil {
		c.versions[len(c.versions)-1] = w.cluster(c, w.quorate(h))
	}
	known := slices.DeleteFunc(slices.Clone(c.versions[max(0, len(c.versions)-8):]), func(v *model.Cluster) bool { return v == nil })
	return known[max(0, len(known)-1-late)]
}

// quorate: two hosts have quorum each by itself (two_node), more need the majority.
func (w *world) quorate(h *host) bool {
	n := len(w.hosts)
	if n == 2 {
		return true
	}
	together := 0
	for _, o := range w.hosts {
		if o.on && !o.cut {
			together++
		}
	}
	return !h.cut && together*2 > n
}

func (w *world) cluster(c *cib, quorate bool) *model.Cluster {
	clone := model.Clone{
		ID: "ms", Primitive: resource, Agent: "ocf:heartbeat:pgsql", Managed: !c.maintenance,
		Parameters: w.parameters, Meta: w.meta, Roles: map[string]model.Role{}, Unsettled: map[string]model.Unsettled{},
	}
	cluster := &model.Cluster{
		Quorate: quorate, DC: w.hosts[0].name, Maintenance: c.maintenance,
		Version: model.Version{Epoch: c.epoch + int64(len(c.versions))},
	}
	for _, h := range w.hosts {
		n := c.nodes[h.name]
		n.say(h.name, &clone)
		cluster.Nodes = append(cluster.Nodes, model.Node{
			Name: h.name, Online: n.online, Unclean: n.unclean,
			Transient: map[string]string{
				resource + "-status": n.status, model.ForecastAttribute(resource): n.forecast, "master-" + resource: n.score,
			},
			Permanent: map[string]string{resource + "-data-status": n.data},
		})
	}
	cluster.Clones = []model.Clone{clone}
	return cluster
}

// say enters an instance as Pacemaker shows it: no role on a node that is not online, an action in place of the role,
// and what is wrong beside it.
func (n node) say(name string, clone *model.Clone) {
	unclean := map[model.Role]model.Unsettled{model.RolePromoted: model.UnsettledPromoted, model.RoleUnpromoted: model.UnsettledUnpromoted}
	doubt := n.doubt
	switch {
	case !n.online && !n.unclean:
		return
	case !n.online:
		doubt = unclean[n.role]
	case n.role != "" && (doubt == "" || doubt == model.UnsettledFailed || doubt == model.UnsettledBlocked):
		clone.Roles[name] = n.role
	}
	if doubt != "" {
		clone.Unsettled[name] = doubt
	}
}

// disturb lets Pacemaker see a failure, or begin an action, that the next monitor finds ended.
func (w *world) disturb(h *host, arg uint32) {
	doubts := []model.Unsettled{model.UnsettledFailed, model.UnsettledBlocked, model.UnsettledPending, model.UnsettledStopping}
	c := w.cibOf(h)
	if n := c.nodes[h.name]; n.role == model.RolePromoted {
		doubts = append(doubts, model.UnsettledDemoting)
	} else if n.role != model.RoleUnpromoted {
		return
	}
	w.count.disturbances++
	c.change(h.name, func(n *node) { n.doubt = doubts[int(arg)%len(doubts)] })
}

// reachablePrimary is the server behind the virtual IP, if the host's network reaches it.
func (w *world) reachablePrimary(h *host) *host {
	p := w.address
	if p == nil || p.server != primary || p != h && (p.cut || h.cut) {
		return nil
	}
	return p
}

// leave is what the others see when a host is gone without a word: unclean until it is fenced.
func (w *world) leave(h *host) {
	w.main.change(h.name, func(n *node) {
		n.online, n.unclean, n.status, n.forecast, n.doubt, n.score = false, w.fencing && n.role != model.RoleStopped, "", "", "", ""
		if !n.unclean {
			n.role = model.RoleStopped
		}
	})
}

// cutOff takes a host off the network. It goes on by itself, and sees the others gone.
func (w *world) cutOff(h *host) {
	own := w.main.fork()
	for _, o := range w.others(h) {
		own.change(o.name, func(n *node) { *n = node{unclean: w.fencing, role: model.RoleStopped, status: n.status, data: n.data} })
	}
	w.apart[h.name] = own
	h.cut = true
	w.detach(h, true)
	for _, o := range w.hosts {
		if o.upstream == h {
			w.detach(o, true)
		}
	}
	w.leave(h)
}

// heal brings it back, with what it has become meanwhile.
func (w *world) heal(h *host) {
	own := w.apart[h.name]
	delete(w.apart, h.name)
	h.cut = false
	w.main.epoch = max(w.main.epoch, own.epoch+int64(len(own.versions))) + 1
	w.main.change(h.name, func(n *node) { *n = own.nodes[h.name] })
}

// fence ends a host that the main partition takes for unclean.
func (w *world) fence(h *host) {
	if !w.main.nodes[h.name].unclean {
		return
	}
	w.powerOff(h)
	w.main.change(h.name, func(n *node) { n.unclean, n.role = false, model.RoleStopped })
}

func (w *world) powerOff(h *host) {
	for _, o := range w.hosts {
		if o.upstream == h {
			w.detach(o, false)
		}
	}
	w.detach(h, true)
	w.stop(h, false)
	h.on, h.cut = false, false
	h.pgrex = pgrex{}
	delete(w.apart, h.name)
	w.leave(h)
}

func (w *world) powerOn(h *host) {
	h.on = true
	h.pgrex.up = true
	w.main.change(h.name, func(n *node) {
		*n = node{online: true, role: model.RoleStopped, status: "STOP", data: n.data, forecast: n.forecast}
	})
}

// promotion is the agent's promote under way, whose parts others can see before it is done.
type promotion struct {
	host  *host
	stage int
}

// elect is Pacemaker's choice of a host to promote: with quorum, nobody unclean, nobody promoted, and the newest data.
func (w *world) elect() *host {
	var best *host
	for _, h := range w.hosts {
		n := w.main.nodes[h.name]
		if n.unclean || n.role == model.RolePromoted {
			return nil
		}
		if h.cut || !n.online || n.role != model.RoleUnpromoted || n.doubt != "" || h.server != standby {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(h.wal.timeline(), best.wal.timeline()), cmp.Compare(h.wal.end, best.wal.end)) > 0 {
			best = h
		}
	}
	if best == nil || !w.quorate(best) || w.main.maintenance {
		return nil
	}
	return best
}

// agents lets the promotion under way get on by some parts.
func (w *world) agents(parts int) {
	for range parts {
		w.agent()
	}
}

// agent does the next part of the promotion under way, in the agent's order.
func (w *world) agent() {
	if w.promoting == nil {
		if h := w.elect(); h != nil {
			w.promoting = &promotion{host: h}
		}
		return
	}
	h := w.promoting.host
	if h.cut || w.promoting.stage <= 1 && h.server != standby || w.promoting.stage > 1 && h.server != primary {
		w.promoting = nil
		return
	}
	switch w.promoting.stage {
	case 0:
		w.main.change(h.name, func(n *node) { n.doubt = model.UnsettledPromoting })
		for _, o := range w.others(h) {
			w.main.change(o.name, func(n *node) { n.data = "DISCONNECT" })
		}
	case 1:
		h.lock = true
		w.promote(h)
	case 2:
		w.remakeAgentSlots(h)
	case 3:
		w.main.change(h.name, func(n *node) { n.data = "LATEST" })
	case 4:
		w.main.change(h.name, func(n *node) { n.status = "PRI" })
	case 5:
		w.main.change(h.name, func(n *node) { n.role, n.doubt = model.RolePromoted, "" })
	default:
		w.address = h
		w.promoting = nil
		return
	}
	w.promoting.stage++
}

// remakeAgentSlots is what the agent does at promote where it has replication_slot_name.
func (w *world) remakeAgentSlots(h *host) {
	if !w.agentSlots {
		return
	}
	for _, o := range w.others(h) {
		if h.slots[w.names[o.name]].user == "" {
			h.slots[w.names[o.name]] = slot{}
		}
	}
	h.save()
}

// monitor is the agent's look at its server, and Pacemaker's answer to what it finds.
func (w *world) monitor(h *host) {
	c := w.cibOf(h)
	if c.maintenance || !h.on || w.promoting != nil && w.promoting.host == h {
		return
	}
	c.change(h.name, func(n *node) { n.doubt = "" })
	switch n := c.nodes[h.name]; {
	case h.server == down:
		c.change(h.name, func(n *node) { n.role, n.status, n.score = model.RoleStopped, "STOP", noScore })
	case h.server == primary && n.role == model.RolePromoted:
		if p := w.address; c == w.main && (p == nil || p.server != primary || p.cut) {
			w.address = h
		}
		c.change(h.name, func(n *node) { n.status, n.data, n.score = "PRI", "LATEST", "1000" })
		for _, o := range w.others(h) {
			if o.upstream == h {
				c.change(o.name, func(n *node) { n.status, n.data, n.score = "HS:async", "STREAMING|ASYNC", "100" })
			} else if !o.cut || c == w.main {
				c.change(o.name, func(n *node) { n.data, n.score = "DISCONNECT", noScore })
			}
		}
	case h.server == primary: // of a promotion that was not finished, or after a heal
		w.stop(h, false)
	}
}

// resolve is Pacemaker's answer to two promoted hosts in one partition: the one on the older timeline is stopped.
func (w *world) resolve() {
	var promoted []*host
	for _, h := range w.hosts {
		if !h.cut && h.server == primary {
			promoted = append(promoted, h)
		}
	}
	if len(promoted) < 2 {
		return
	}
	oldest := slices.MinFunc(promoted, func(a, b *host) int { return cmp.Compare(a.wal.timeline(), b.wal.timeline()) })
	w.stop(oldest, false)
	w.monitor(oldest)
}

// startServer is Pacemaker's start of a stopped instance.
func (w *world) startServer(h *host) {
	if !h.on || h.cut || h.server != down || h.lock || w.main.maintenance || !w.quorate(h) {
		return
	}
	w.start(h)
	w.main.change(h.name, func(n *node) {
		n.role, n.status, n.doubt, n.score = model.RoleUnpromoted, "HS:alone", model.UnsettledStarting, noScore
	})
}
