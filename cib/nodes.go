package cib

import (
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// node is a cluster, remote or guest node (pe_node_t).
type node struct {
	name, id string
	kind     string // "member", "remote" (guest nodes, too) or "ping"

	permanent, transient attributes

	online, standby, maintenance, pending, unclean bool

	joining      bool      // it is among the members, but not yet or no more part of the cluster
	shutdown     bool      // it asked for its shutdown
	expectedUp   bool      // Pacemaker counts on it
	unpacked     bool      // its history has been read
	connection   *resource // of a remote or guest node: the resource that connects to it
	wasFenced    bool      // a remote node that has been fenced since its connection was lost
	needsReset   bool      // a remote or guest node that must be fenced before it counts as clean
	histories    []*history
	historyOf    map[string]*history   // by id
	historyNamed map[string][]*history // by id without the number of an instance
}

func (n *node) model() model.Node {
	return model.Node{
		Name: n.name, ID: n.id,
		Online: n.online, Standby: n.standby, Maintenance: n.maintenance, Pending: n.pending, Unclean: n.unclean,
		Permanent: n.permanent.values, Transient: n.transient.values,
	}
}

// attribute is the value that Pacemaker uses; the transient one wins (pe_node_attribute_raw).
func (n *node) attribute(name string) (value string, ok bool) {
	if v, ok := n.transient.values[name]; ok {
		return v, true
	}
	value, ok = n.permanent.values[name]
	return value, ok
}

func (n *node) isSet(name string) bool {
	v, _ := n.attribute(name)
	return isTrue(v)
}

func (n *node) isRemote() bool { return n.kind == "remote" }
func (n *node) isGuest() bool {
	return n.isRemote() && n.connection != nil && n.connection.container != nil
}

// readNodes enters the configured nodes (unpack_nodes).
func (w *workingSet) readNodes() {
	for el := range w.children(w.child(w.configuration, "nodes"), "node") {
		id, ok := lookupAttr(el, "id")
		if !ok {
			continue
		}
		kind := "member"
		if t, typed := lookupAttr(el, "type"); typed {
			switch kind = strings.ToLower(t); kind {
			case "member", "remote":
			default:
				kind = "ping" // as Pacemaker does with every type that it does not know
			}
		}
		n := w.addNode(id, attr(el, "uname"), kind)
		w.presume(n)
		w.add(&n.permanent, []*etree.Element{el}, "instance_attributes", "", nil)
	}
}

// addNode enters a node (pe_create_node). Of two with one name the first is found by name; Validate refuses them.
func (w *workingSet) addNode(id, name, kind string) *node {
	n := &node{id: id, name: name, kind: kind}
	w.nodes = append(w.nodes, n)
	if w.nodeByID[fold(id)] == nil {
		w.nodeByID[fold(id)] = n
	}
	if w.nodeNamed[fold(name)] == nil {
		w.nodeNamed[fold(name)] = n
	}
	return n
}

// presume gives a node the state that it has until the status section speaks of it (handle_startup_fencing).
func (w *workingSet) presume(n *node) {
	if n.isRemote() && n.connection == nil {
		return
	}
	n.unclean = w.options.startupFencing
}

// nodeOf finds the node of a <node_state> (pe_find_node_any). Pacemaker ignores a state whose node is not configured.
func (w *workingSet) nodeOf(state *etree.Element) *node {
	id, identified := lookupAttr(state, "id")
	name, named := lookupAttr(state, "uname")
	if !identified || !named {
		return nil
	}
	if n := w.nodeByID[fold(id)]; n != nil {
		return n
	}
	return w.nodeNamed[fold(name)]
}

// readStatus reads the status section in Pacemaker's order (unpack_status): first every cluster node's own state, then
// the histories, those of remote and guest nodes as soon as their connections are known to be up.
func (w *workingSet) readStatus() {
	for state := range w.children(w.status, "node_state") {
		if n := w.nodeOf(state); n != nil {
			w.readNodeState(n, state)
		}
	}
	for w.readHistories(false) {
		// a history may tell that the connection to another node is up
	}
	w.readHistories(w.options.stonith)
	for _, n := range w.nodes {
		if n.isRemote() && !n.unpacked {
			n.determineRemote()
		}
	}
	slices.SortStableFunc(w.nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
}

// readNodeState reads one node's state without its history (unpack_node_state).
func (w *workingSet) readNodeState(n *node, state *etree.Element) {
	w.addTransient(&n.transient, w.child(state, "transient_attributes"))
	w.indexHistory(n, state)
	if n.isRemote() {
		n.wasFenced = integer(attr(state, "node_fenced"), 0) != 0
		return // known only once the history of its connection has been read
	}
	n.standby = n.standby || n.isSet("standby")
	n.maintenance = n.maintenance || n.isSet("maintenance")
	n.unclean = false
	w.determine(n, state)
	if n.online && w.options.suicide {
		w.fence(n)
	}
}

// addTransient reads transient attributes. Pacemaker lets a later set overwrite an earlier one here, so that of several
// the lowest score wins (add_node_attrs with overwrite).
func (w *workingSet) addTransient(a *attributes, owner *etree.Element) {
	sets := w.sets([]*etree.Element{owner}, "instance_attributes", "")
	slices.Reverse(sets)
	for _, s := range sets {
		w.addSet(a, s, nil)
	}
}

// The states of <node_state>, written by Pacemaker's controller.
const (
	stateMember  = "member"
	stateDown    = "down"
	statePending = "pending"
	stateBanned  = "banned"
)

// peerState is what the controller wrote about a node.
type peerState struct {
	seen      bool // it was in the membership at some time
	inCluster bool // in_ccm: it is in the membership
	peer      bool // crmd: its controller is in the process group
	join      string
	expected  string
}

// determine concludes a cluster node's state (determine_online_status).
func (w *workingSet) determine(n *node, state *etree.Element) {
	inCCM, seen := lookupAttr(state, "in_ccm")
	s := peerState{
		seen:      seen,
		inCluster: isTrue(inCCM),
		peer:      strings.EqualFold(attr(state, "crmd"), "online"),
		join:      strings.ToLower(attr(state, "join")),
		expected:  strings.ToLower(attr(state, "expected")),
	}
	shutdown, requested := n.attribute("shutdown") // a time, or 0
	n.shutdown = requested && shutdown != "0"
	n.expectedUp = !n.shutdown && s.expected == stateMember
	switch {
	case n.kind == "ping":
		n.unclean = false
	case w.options.stonith:
		w.determineFencing(n, s)
	case !s.inCluster:
	case s.peer:
		n.online = s.join == stateMember
	case n.expectedUp: // determine_online_status_no_fencing
		w.fence(n)
	}
	n.joining = !n.online && s.inCluster && s.peer
}

// determineFencing concludes a node's state where fencing is enabled (determine_online_status_fencing).
func (w *workingSet) determineFencing(n *node, s peerState) {
	terminate, _ := n.attribute("terminate") // a boolean, or a time
	doomed := isTrue(terminate) || terminate != "" && terminate[0] >= '1' && terminate[0] <= '9'
	n.online = s.inCluster
	switch {
	case n.shutdown:
		n.online = s.peer // a dead peer cannot be shut down
	case !s.seen, s.join == stateBanned:
		w.fence(n)
	case !doomed && (s.expected == stateDown || s.expected == ""):
		if s.inCluster || s.peer {
			n.standby, n.pending = true, true
		}
	case doomed && s.join == stateDown && !s.inCluster && !s.peer: // it was just shot
	case !s.inCluster, !s.peer, doomed:
		w.fence(n)
	case s.join == stateMember:
	case s.join == statePending, s.join == stateDown:
		n.standby, n.pending = true, true
	default:
		w.fence(n)
	}
}

// fence marks a node as unclean (pe_fence_node). A guest node is fenced by recovering the resource that it runs in.
func (w *workingSet) fence(n *node) {
	switch {
	case n.isGuest():
		if c := n.connection.container; !c.failed && c.managed {
			n.needsReset = true
			c.failed = true
		}
	case n.isRemote() && n.connection != nil && n.connection.orphan && n.connection.containerID != "":
		n.connection.failed = true // the guest is gone for good
	case n.isRemote():
		if n.connection == nil || n.connection.managed {
			n.needsReset = true
		}
		n.unclean = true
	default:
		n.unclean = true
	}
}
