package cib

import (
	"slices"
	"strings"
)

// A resource that moves without being stopped leaves a migrate_to on the source and a migrate_from on the target,
// then a stop on the source. Clones never migrate; connections to remote nodes do, and so decide about their nodes.

// migrated takes a migrate_to that succeeded into account (unpack_migrate_to_success).
func (i *instance) migrated(o *op) {
	if o.source == "" || o.target == "" || o.source != i.n.name || i.pure {
		return
	}
	from := i.w.findOp(i.r, o.target, "migrate_from", func(f *op) bool { return f.source == o.source })
	leftSource := i.w.changedAfter(i.r, o.source, o, true)
	if leftSource && from != nil {
		return
	}
	atTarget := i.w.newerState(i.r, o.target, o, from)
	if leftSource && atTarget {
		return
	}
	i.role = roleStarted
	target := i.w.nodeNamed[fold(o.target)]
	reachable := !atTarget && target != nil && target.online
	switch {
	case from != nil && from.rc == rcOK && from.status == execDone:
		i.role = roleStopped // it only remains to be stopped here
	case (from == nil || from.status == execPending) && target != nil && target.online && i.w.unknownOn(i.r, o.target):
		// Its history there was deleted; a probe will tell.
	case reachable:
		i.runs(target)
		if source := i.w.nodeNamed[fold(o.source)]; (from == nil || from.status == execPending) && source != nil && source.online {
			i.r.migration = [2]*node{source, target}
		}
	case from != nil && from.status != execPending, !leftSource:
		i.r.failed = true
	}
}

// migrateToFailed: it has to be assumed to run on both nodes (unpack_migrate_to_failure).
func (i *instance) migrateToFailed(o *op) {
	if o.source == "" || o.target == "" || o.source != i.n.name || i.pure {
		return
	}
	i.role = roleStarted
	from := i.w.findOp(i.r, o.target, "migrate_from", func(f *op) bool {
		return f.source == o.source && f.rc == rcOK && f.status == execDone
	})
	i.runsOn(o.target, o, from)
}

// migrateFromFailed: likewise (unpack_migrate_from_failure).
func (i *instance) migrateFromFailed(o *op) {
	if o.source == "" || o.target == "" || o.target != i.n.name || i.pure {
		return
	}
	i.role = roleStarted
	to := i.w.findOp(i.r, o.source, "migrate_to", func(t *op) bool {
		return t.target == o.target && t.rc == rcOK && t.status == execDone
	})
	i.runsOn(o.source, to, o)
}

// runsOn notes that the resource runs on the other node as well, unless that one knows better.
func (i *instance) runsOn(name string, to, from *op) {
	n := i.w.nodeNamed[fold(name)]
	if n != nil && n.online && n.historyOf[i.r.id] != nil && !i.w.newerState(i.r, name, to, from) {
		i.runs(n)
	}
}

// runs notes that the resource runs on another node, too. What runs on a node in maintenance is left alone.
func (i *instance) runs(n *node) {
	i.w.run(i.r, n)
	i.managed = i.managed && !n.maintenance
}

// findOp finds the first entry, in the document's order, of the resource's history on a node (find_lrm_op).
func (w *workingSet) findOp(r *resource, nodeName, task string, match func(*op) bool) *op {
	for _, o := range w.opsOn(r, nodeName) {
		if w.spend(o.size) && o.task == task && match(o) {
			return o
		}
	}
	return nil
}

func (w *workingSet) opsOn(r *resource, nodeName string) []*op {
	n := w.nodeNamed[fold(nodeName)]
	if w.spend(len(r.id)); n == nil || n.historyOf[r.id] == nil {
		return nil
	}
	return w.sorted(n.historyOf[r.id])
}

// changedAfter tells whether the resource was started, stopped or moved on the node after o (non_monitor_after).
func (w *workingSet) changedAfter(r *resource, nodeName string, o *op, sameNode bool) bool {
	for _, other := range w.opsOn(r, nodeName) {
		if !w.spend(other.size) {
			return false
		}
		switch other.task {
		case "start", "stop", "migrate_to", "migrate_from":
			if other != o && compareOps(other, o, sameNode) > 0 {
				return true
			}
		}
	}
	return false
}

// unknownOn tells whether a node has no result of any of the resource's operations (unknown_on_node).
func (w *workingSet) unknownOn(r *resource, nodeName string) bool {
	return !slices.ContainsFunc(w.opsOn(r, nodeName), func(o *op) bool { return w.spend(o.size) && o.rc != rcUnknown })
}

// newerState tells whether the node knows something newer than the migration (newer_state_after_migrate).
func (w *workingSet) newerState(r *resource, nodeName string, to, from *op) bool {
	o := to
	if from != nil {
		o = from
	}
	if o == nil {
		return false
	}
	sameNode := false
	switch {
	case strings.EqualFold(nodeName, o.target):
		sameNode = from != nil
	case strings.EqualFold(nodeName, o.source) && to != nil:
		o, sameNode = to, true
	}
	if w.changedAfter(r, nodeName, o, sameNode) {
		return true
	}
	gone := w.findOp(r, nodeName, "monitor", func(m *op) bool { return m.rc == rcNotRunning && m.status == execDone })
	return gone != nil && compareOps(gone, o, sameNode) > 0
}
