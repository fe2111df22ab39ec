package cib

import (
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// remoteNodes enters the nodes that resources of the first level imply, and returns the connections that guest nodes
// imply in turn (unpack_remote_nodes, expand_remote_rsc_meta).
func (w *workingSet) remoteNodes(section *etree.Element) []*resource {
	var guests []*resource
	guest := func(el *etree.Element) {
		if g := w.guestConnection(el); g != nil {
			guests = append(guests, g)
			w.remoteNode(g.id)
		}
	}
	for el := range w.children(section) {
		switch el.Tag {
		case "primitive":
			if r := (resource{class: attr(el, "class"), provider: attr(el, "provider"), agent: attr(el, "type")}); r.isConnection() {
				w.remoteNode(attr(el, "id"))
				continue
			}
			guest(el)
		case "group":
			for member := range w.children(el) {
				guest(member)
			}
		}
	}
	return guests
}

func (w *workingSet) remoteNode(name string) *node {
	if n := w.nodeNamed[fold(name)]; n != nil || name == "" {
		return n
	}
	return w.addNode(name, name, "remote")
}

// guestConnection is the connection resource that a primitive with the meta attribute remote-node implies, or nil.
func (w *workingSet) guestConnection(el *etree.Element) *resource {
	meta := map[string]string{}
	for set := range w.children(el, "meta_attributes") {
		for pair := range w.children(set, "nvpair") {
			meta[strings.ToLower(attr(pair, "name"))] = attr(pair, "value")
		}
	}
	name := meta["remote-node"]
	if name == "" {
		return nil
	}
	g := newConnection(name, attr(el, "id"))
	if v, ok := meta["is-managed"]; ok {
		g.meta.values = map[string]string{"is-managed": v}
	}
	return g
}

// newConnection makes up the connection to a guest node (pe_create_remote_xml).
func newConnection(id, container string) *resource {
	return &resource{
		id: id, kind: "primitive", class: "ocf", provider: "pacemaker", agent: "remote", containerID: container,
	}
}

// linkContainers finds what r, or what it holds, runs in (setup_container).
func (w *workingSet) linkContainers(r *resource) {
	for _, c := range r.children {
		w.linkContainers(c)
	}
	if len(r.children) > 0 || r.containerID == "" || r.containerID == r.id {
		return
	}
	r.container = w.byID[r.containerID]
}

// linkNode joins the connection to a remote or guest node with its node (link_rsc2remotenode).
func (w *workingSet) linkNode(r *resource) {
	n := w.nodeNamed[fold(r.id)]
	if r.kind != "primitive" || !r.isConnection() || n == nil {
		return
	}
	n.connection = r
	if r.container == nil {
		w.presume(n)
	}
}

// readBundle enters a bundle's replicas: for each a container, and when there is something to run in it, a node and the
// connection to it (pe__unpack_bundle).
func (w *workingSet) readBundle(r *resource, el *etree.Element) error {
	var technology *etree.Element
	for _, tag := range []string{"docker", "rkt", "podman"} {
		if technology = w.child(el, tag); technology != nil {
			break
		}
	}
	network := w.child(el, "network")
	primitive := w.child(el, "primitive")
	reachable := attr(network, "control-port") != "" || attr(network, "ip-range-start") != ""
	if technology == nil || primitive != nil && !reachable {
		delete(w.byID, r.id)
		return nil
	}
	promotedMax := attr(technology, "promoted-max")
	if promotedMax == "" {
		promotedMax = attr(technology, "masters")
	}
	replicas := max(1, integer(attr(technology, "replicas"), integer(promotedMax, 1)))
	if replicas > maxReplicas {
		return unparseable("the bundle %q has %d replicas, more than the limit of %d", r.id, replicas, maxReplicas)
	}
	if primitive != nil {
		inner := &resource{id: r.id + "-clone", kind: "clone", parent: r}
		if integer(promotedMax, 0) > 0 {
			inner.id, inner.promotable = r.id+"-master", true
		}
		if integer(attr(technology, "replicas-per-host"), 1) > 1 {
			inner.meta.values = map[string]string{"globally-unique": "true"}
		}
		w.enter(inner)
		member, err := w.readResource(primitive, inner)
		if err != nil || member == nil {
			return err
		}
		inner.children = append(inner.children, member)
		r.children = append(r.children, inner)
	}
	for i := range replicas {
		if !w.spend(effortReplica + 8*len(r.id)) { // its names all begin with the bundle's
			break
		}
		w.addReplica(r, technology.Tag, i, primitive != nil)
	}
	return nil
}

func (w *workingSet) addReplica(bundle *resource, technology string, number int, withNode bool) {
	suffix := strconv.Itoa(number)
	container := w.enter(&resource{
		id: bundle.id + "-" + technology + "-" + suffix, kind: "primitive", parent: bundle,
		class: "ocf", provider: "heartbeat", agent: technology,
	})
	bundle.children = append(bundle.children, container)
	if !withNode {
		return
	}
	connection := newConnection(bundle.id+"-"+suffix, container.id)
	connection.parent = bundle
	w.enter(connection).container = container
	bundle.children = append(bundle.children, connection)
	w.remoteNode(connection.id).connection = connection
}

// readHistories reads the histories of all nodes of which enough is known, and tells whether any was
// (unpack_node_history). all means that no more will be known.
func (w *workingSet) readHistories(all bool) bool {
	any := false
	for state := range w.children(w.status, "node_state") {
		n := w.nodeOf(state)
		if n == nil || n.unpacked || !all && !w.ready(n) {
			continue
		}
		if n.isRemote() {
			n.determineRemote()
			n.readRemoteState()
		}
		n.unpacked, any = true, true
		for _, h := range n.histories {
			w.readHistory(n, h)
		}
	}
	return any
}

// ready tells whether a node's history can be read: that of an offline node says nothing where nobody fences, and
// that of a remote or guest node only counts while its connection is up.
func (w *workingSet) ready(n *node) bool {
	switch c := n.connection; {
	case n.isGuest():
		return c.role == roleStarted && c.container.role == roleStarted
	case n.isRemote():
		return c != nil && (w.options.shutdownLock || c.role == roleStarted)
	}
	return n.online || w.options.stonith || w.options.shutdownLock
}

// determineRemote concludes a remote or guest node's state from its connection (determine_remote_online_status).
func (n *node) determineRemote() {
	c := n.connection
	if c == nil {
		n.online = false
		return
	}
	if c.role == roleStarted {
		n.online = true
	}
	switch container := c.container; {
	case container != nil && container.failed:
		n.online, n.needsReset = false, true
	case c.failed:
		n.online = false
	case c.role == roleStopped, container != nil && container.role == roleStopped:
		n.online, n.needsReset = false, false
	case container != nil && len(c.running) == 1 && !c.running[0].online && c.running[0].unclean:
		n.online, n.needsReset = false, true
	}
}

// readRemoteState reads the rest of a remote or guest node's state (unpack_handle_remote_attrs).
func (n *node) readRemoteState() {
	if !n.needsReset {
		n.unclean = false
	}
	if _, requested := n.attribute("shutdown"); requested {
		v, _ := n.attribute("shutdown")
		n.shutdown = v != "0"
	}
	n.standby = n.standby || n.isSet("standby")
	n.maintenance = n.maintenance || n.isSet("maintenance") || n.connection != nil && !n.connection.managed
}
