package cib

import (
	"slices"
	"strings"
)

// instance is one resource on one node while its history is replayed there.
type instance struct {
	w       *workingSet
	r       *resource
	n       *node
	h       *history
	pure    bool // look only: what was concluded about other nodes and resources stays as it is
	role    role
	managed bool
	onFail  onFail // the gravest thing to be done about what failed
	failure *op    // the last that failed
}

// replay goes through a resource's history on a node and concludes what it does there (unpack_lrm_resource).
func (w *workingSet) replay(r *resource, n *node, h *history, pure bool) *instance {
	i := &instance{w: w, r: r, n: n, h: h, pure: pure, managed: r.managed}
	for _, o := range w.sorted(h) {
		if w.spend(o.size) && o.understood() {
			i.apply(o)
		}
	}
	return i
}

// apply takes one operation into account (unpack_rsc_op).
func (i *instance) apply(o *op) {
	rc, status := i.remap(o)
	switch {
	case o.masked() && !i.r.isBundled():
		i.succeed(o, o.expected)
		return
	case status == execCancelled:
		return
	case status == execPending:
		i.begin(o)
		return
	case status == execDone:
		i.succeed(o, rc)
		return
	case status == execNotInstalled:
		if i.policy(o) == failIgnore {
			i.onFail = failMigrate
		}
		i.fail(o, rc)
		return
	case status == execNotConnected && i.n.connection != nil && i.n.connection.managed && !i.pure:
		i.n.connection.failed = true
	}
	policy := i.policy(o)
	if policy == failIgnore || policy == failRestartContainer && o.task == "stop" {
		i.succeed(o, o.expected)
		if policy == failRestartContainer && i.onFail <= failRecover {
			i.onFail = policy
		}
		return
	}
	i.fail(o, rc)
}

// remap concludes from an exit code whether an operation failed: the executor that reported it does not know what
// was expected (remap_operation).
func (i *instance) remap(o *op) (rc, status int) {
	rc, status = o.rc, o.status
	if o.task == "monitor" {
		switch rc {
		case rcDegraded:
			rc = rcOK
		case rcDegradedPromoted:
			rc = rcPromoted
		}
	}
	if !i.r.isBundled() && o.masked() {
		rc, status = rcNotRunning, execDone
	}
	if status != execDone && status != execError {
		return rc, status
	}
	status = execDone
	if o.expected != rc {
		status = execError
	}
	switch rc {
	case rcOK:
		if o.isProbe() && o.expected == rcNotRunning {
			status = execDone
		}
	case rcNotRunning:
		if o.isProbe() || o.expected == rc || !i.managed {
			status = execDone
			i.role = roleStopped
			i.onFail = failIgnore
		}
	case rcPromoted:
		if o.isProbe() {
			status = execDone
		}
		i.role = rolePromoted
	case rcDegradedPromoted, rcFailedPromoted:
		i.role = rolePromoted
		status = execError
	case rcUnimplemented:
		status = execError
		if o.interval == 0 {
			i.checkRecoverable(o)
		}
	case rcInvalidParam, rcNotPermitted, rcNotInstalled:
		i.checkRecoverable(o)
		status = execError
	default:
		status = execError
	}
	return rc, status
}

// checkRecoverable gives up on a resource that could not be stopped where nobody can fence (check_recoverable).
func (i *instance) checkRecoverable(o *op) {
	if o.task == "stop" && !i.w.canFence(i.n) {
		i.managed = false
	}
}

// begin takes an operation into account that is under way. It counts as what it may be already, or may be still.
// Pacemaker itself lets a demote or stop change nothing here; but where they have replaced the operation from
// which the role was known, that would mean an instance that still runs does not.
func (i *instance) begin(o *op) {
	switch o.task {
	case "start":
		i.activate()
	case "promote":
		i.role = rolePromoted
	case "migrate_to":
		if target := i.w.nodeNamed[fold(o.target)]; i.n.unclean && target != nil && !i.pure {
			i.w.stop(target, i.managed)
		}
	case "demote":
		if i.pure {
			i.role = rolePromoted
		}
	case "stop":
		if i.pure && i.role < roleStarted {
			i.activate()
		}
	}
}

// activate: it runs, in the lowest role in which it can (set_active).
func (i *instance) activate() {
	i.role = roleStarted
	if i.r.top().promotable {
		i.role = roleUnpromoted
	}
}

// succeed takes an operation into account that did what it should (update_resource_state).
func (i *instance) succeed(o *op, rc int) {
	clears := false // earlier failures are over
	switch {
	case rc == rcNotInstalled, !i.r.isBundled() && o.masked():
		i.role = roleStopped
	case rc == rcNotRunning:
		clears = true
	case o.task == "monitor":
		clears = i.failure != nil && strings.EqualFold(i.failure.key, o.key)
		if i.role < roleStarted {
			i.activate()
		}
	case o.task == "start", o.task == "migrate_from":
		i.role, clears = roleStarted, true
	case o.task == "stop":
		i.role, clears = roleStopped, true
	case o.task == "promote":
		i.role, clears = rolePromoted, true
	case o.task == "demote":
		i.role, clears = roleUnpromoted, i.onFail == failDemote
	case o.task == "migrate_to":
		i.migrated(o)
	case i.role < roleStarted:
		i.activate()
	}
	if clears && !i.onFail.outlastsSuccess() {
		i.onFail = failIgnore
	}
}

// fail takes an operation into account that failed (unpack_rsc_op_failure).
func (i *instance) fail(o *op, rc int) {
	i.failure = o
	policy := i.policy(o)
	i.onFail = max(i.onFail, policy)
	switch o.task {
	case "migrate_to":
		i.migrateToFailed(o)
	case "migrate_from":
		i.migrateFromFailed(o)
	case "promote":
		i.role = rolePromoted
	case "demote":
		switch {
		case policy == failBlock:
			i.role = rolePromoted
		case rc == rcNotRunning:
			i.role = roleStopped
		default:
			i.role = roleUnpromoted
		}
	}
	switch {
	case o.isProbe() && rc == rcNotInstalled:
		i.role = roleStopped
	case i.role < roleStarted:
		i.activate()
	}
}

// readHistory replays one history and draws the conclusions for the node and for what else depends on the resource
// (unpack_lrm_resource, process_rsc_state).
func (w *workingSet) readHistory(n *node, h *history) {
	r := w.resourceOf(n, h)
	before := r.role
	i := w.replay(r, n, h, false)
	r.role = i.role
	w.settle(i)
	if before > r.role && !r.isCloned() {
		r.role = before // it still runs on another node
	}
}

// settle draws the conclusions from what a resource does on a node (process_rsc_state).
func (w *workingSet) settle(i *instance) {
	r, n := i.r, i.n
	if !r.isCloned() {
		r.managed = i.managed // as fence looks at it
	}
	if i.role > roleStopped && !n.online && !n.maintenance && i.managed {
		switch {
		case n.isGuest():
			r.failed = true
			w.fence(n)
		case w.options.stonith:
			w.fence(n)
		}
	}
	problem := i.onFail
	if n.unclean {
		problem = failIgnore // fencing settles it
	}
	w.actOn(i, problem)
	switch {
	case i.role > roleStopped:
		w.run(r, n)
		i.managed = i.managed && !n.maintenance
		r.failed = r.failed || problem != failIgnore
	case i.role == roleStopped && r.migration[0] == n && r.migration[1] != nil && len(r.running) > 0:
		r.role = roleStarted // stopped where it came from, but not where it went
	}
	if !r.isCloned() {
		r.managed = i.managed // what is left alone on one node is left alone on the next
	}
}

// actOn does what is to be done about a failure as far as it changes what is thought of nodes.
func (w *workingSet) actOn(i *instance, problem onFail) {
	r, n := i.r, i.n
	switch problem {
	case failFence:
		w.fence(n)
	case failStandby:
		n.standby = true
	case failIgnore, failMigrate, failStop: // matters of where it may run next
	case failBlock:
		i.managed = false
	case failDemote:
		r.failed = true
	case failRecover:
		if i.role > roleStopped {
			w.stop(n, i.managed)
		}
	case failRestartContainer:
		r.failed = true
		switch {
		case r.container != nil && !r.isBundled():
			w.stop(n, r.container.managed)
		case r.container == nil && i.role > roleStopped:
			w.stop(n, i.managed)
		}
	case failResetRemote:
		r.failed = true
		if c := w.nodeNamed[fold(r.id)]; w.options.stonith && w.connects(r) && !c.wasFenced {
			w.fence(c)
		}
		if i.role > roleStopped {
			w.stop(n, i.managed)
		}
	}
}

// stop plans a stop. Where the node is offline it cannot be carried out, which takes fencing
// (update_resource_action_runnable).
func (w *workingSet) stop(n *node, managed bool) {
	if managed && !n.online && !n.unclean && (!n.isGuest() || n.needsReset) {
		w.fence(n)
	}
}

// run notes that a resource runs on a node (native_add_running).
func (w *workingSet) run(r *resource, n *node) {
	if !w.spend(len(r.running)) || slices.Contains(r.running, n) {
		return
	}
	if !r.isCloned() { // what an instance does elsewhere is no matter of this one
		r.running = append(r.running, n)
	}
}

// resourceOf finds the resource that a history speaks of, or makes up an orphan (unpack_find_resource,
// process_orphan_resource).
func (w *workingSet) resourceOf(n *node, h *history) *resource {
	if r := w.lookup(n, h.id); r != nil {
		return r
	}
	orphan := &resource{
		id: h.id, kind: "primitive", orphan: true, containerID: attr(h.el, "container"),
		class: attr(h.el, "class"), provider: attr(h.el, "provider"), agent: attr(h.el, "type"),
	}
	w.enter(orphan)
	w.orphans[orphan.id] = orphan
	if orphan.managed = orphan.managed && !w.options.keepOrphans; orphan.isConnection() {
		w.remoteNode(orphan.id)
		w.linkNode(orphan)
	}
	w.linkContainers(orphan)
	return orphan
}

func (w *workingSet) lookup(n *node, id string) *resource {
	base, number := splitInstance(id)
	r := w.byID[id]
	if r == nil || r.isCloned() {
		r = w.byID[base]
	}
	switch {
	case r == nil, r.kind != "primitive":
		return nil
	case !r.isCloned():
		if r.id != id {
			return nil
		}
	case r.isBundled() && w.replicaOf(r, n) == nil:
		return nil
	case r.unique && (number < 0 || number >= w.clonedTimes(r)):
		return w.orphans[id] // as it was found on another node
	}
	return r
}

// replicaOf is the connection to the bundle node n when it belongs to the bundle of r (pe__find_bundle_replica).
func (w *workingSet) replicaOf(r *resource, n *node) *resource {
	if c := n.connection; c != nil && c.parent != nil && c.parent == r.top().parent {
		return c
	}
	return nil
}

// clonedTimes is how many numbered instances a clone has (clone_unpack).
func (w *workingSet) clonedTimes(r *resource) int {
	if limit := r.top().cloneMax; limit > 0 {
		return limit
	}
	return max(1, len(w.nodes))
}

// canFence tells whether a node can be fenced at all (pe_can_fence): a guest node if every host can that it runs on and
// that is not online. Histories may say that guests run within each other in a circle; no one is asked twice.
func (w *workingSet) canFence(n *node) bool {
	nodes := []*node{n}
	for i := 0; i < len(nodes); i++ {
		switch n := nodes[i]; {
		case n.isGuest():
			for _, host := range n.connection.container.running {
				if !host.online && w.spend(effortStep+len(nodes)) && !slices.Contains(nodes, host) {
					nodes = append(nodes, host)
				}
			}
		case !w.options.stonith || !w.hasFencing, !w.quorate && !w.options.ignoreQuorum && !n.online:
			return false
		}
	}
	return true
}
