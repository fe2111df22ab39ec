package cib

import (
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// role is what an instance does, in rising order (enum rsc_role_e).
type role int

const (
	roleUnknown role = iota
	roleStopped
	roleStarted
	roleUnpromoted
	rolePromoted
)

// The exit codes of resource agents that matter (enum ocf_exitcode).
const (
	rcOK               = 0
	rcInvalidParam     = 2
	rcUnimplemented    = 3
	rcNotPermitted     = 4
	rcNotInstalled     = 5
	rcNotConfigured    = 6
	rcNotRunning       = 7
	rcPromoted         = 8
	rcFailedPromoted   = 9
	rcDegraded         = 190
	rcDegradedPromoted = 191
	rcUnknown          = 193 // of an operation that is under way
)

// The execution states of operations (enum pcmk_exec_status).
const (
	execPending      = -1
	execDone         = 0
	execCancelled    = 1
	execError        = 4
	execNotInstalled = 7
	execNotConnected = 8
	execMax          = 11
)

// op is an entry of a resource's history on a node, <lrm_rsc_op>.
type op struct {
	id, key, task string
	host          string // on_node
	call          int    // -1 while it is pending
	rc, expected  int    // exit code, and the one that the scheduler counted on
	status        int
	interval      int   // ms
	changed       int64 // last-rc-change, seconds since the epoch, -1 if unknown

	controller string // which controller instance's transitions are numbered; "" when transition-magic is not valid
	transition int

	source, target string // of migrate_to and migrate_from

	size int // the effort of looking at it
}

func (o *op) isProbe() bool { return o.task == "monitor" && o.interval == 0 }

// masked tells whether it is a probe that failed only because nothing is installed where nothing should run
// (pcmk_xe_mask_probe_failure).
func (o *op) masked() bool {
	return o.isProbe() && (o.rc == rcNotInstalled || o.rc == rcInvalidParam || o.status == execNotInstalled)
}

// understood tells whether the scheduler looks at it at all (unpack_rsc_op).
func (o *op) understood() bool {
	switch o.task {
	case "", "notify", "meta-data":
		return false
	}
	return o.status >= execPending && o.status <= execMax
}

func readOp(el *etree.Element) *op {
	o := &op{
		id: attr(el, "id"), key: attr(el, "operation_key"), task: attr(el, "operation"), host: attr(el, "on_node"),
		call:     integer(attr(el, "call-id"), -1),
		rc:       integer(attr(el, "rc-code"), rcOK),
		status:   integer(attr(el, "op-status"), -2),
		interval: max(0, integer(attr(el, "interval"), 0)),
		changed:  int64(integer(attr(el, "last-rc-change"), -1)),
		expected: -1,
		source:   attr(el, "migrate_source"), target: attr(el, "migrate_target"),
		size: size(el),
	}
	if o.key == "" {
		o.key = o.id
	}
	if _, _, expected, ok := splitTransitionKey(attr(el, "transition-key")); ok {
		o.expected = expected
	}
	if _, key, ok := strings.Cut(attr(el, "transition-magic"), ";"); ok {
		if controller, transition, _, ok := splitTransitionKey(key); ok {
			o.controller, o.transition = controller, transition
		}
	}
	return o
}

// splitTransitionKey reads action:transition:expected:controller (decode_transition_key).
func splitTransitionKey(key string) (controller string, transition, expected int, ok bool) {
	parts := strings.SplitN(key, ":", 4)
	if len(parts) != 4 || parts[3] == "" {
		return "", 0, -1, false
	}
	transition, err := strconv.Atoi(parts[1])
	expected, err2 := strconv.Atoi(parts[2])
	return parts[3], transition, expected, err == nil && err2 == nil
}

// compareOps orders operations by age, the older first (sort_op_by_callid, pe__is_newer_op). sameNode counts where one
// of them does not name its node.
func compareOps(a, b *op, sameNode bool) int {
	if a.host != "" && b.host != "" {
		sameNode = strings.EqualFold(a.host, b.host)
	}
	switch {
	case sameNode && a.id == b.id, a.call == -1 && b.call == -1:
		return 0
	case sameNode && a.call >= 0 && a.call < b.call:
		return -1
	case sameNode && b.call >= 0 && a.call > b.call:
		return 1
	case a.call >= 0 && b.call >= 0:
		return compareKnown(a.changed, b.changed)
	case a.controller == "" || b.controller == "":
		return 0
	}
	// One of them is pending. Transitions of one controller are numbered; -1 is a shutdown, which comes last.
	if !strings.EqualFold(a.controller, b.controller) || a.transition == b.transition {
		if b.call == -1 {
			return -1
		}
		return 1
	}
	switch {
	case a.transition >= 0 && a.transition < b.transition, b.transition == -1:
		return -1
	case b.transition >= 0 && a.transition > b.transition, a.transition == -1:
		return 1
	}
	return 0
}

// compareKnown compares two times of which a negative one is not known.
func compareKnown(a, b int64) int {
	switch {
	case a >= 0 && a < b:
		return -1
	case b >= 0 && a > b:
		return 1
	}
	return 0
}

// history is what a node remembers of one resource, <lrm_resource>.
type history struct {
	id  string
	el  *etree.Element
	ops []*op // in order of age, once sorted
}

// indexHistory finds a node's histories. Those without operations say nothing.
func (w *workingSet) indexHistory(n *node, state *etree.Element) {
	if n.historyOf != nil {
		return // a second state of one node; Pacemaker reads the history of the first
	}
	n.historyOf, n.historyNamed = map[string]*history{}, map[string][]*history{}
	for el := range w.children(w.child(w.child(state, "lrm"), "lrm_resources"), "lrm_resource") {
		h := &history{id: attr(el, "id"), el: el}
		if h.id == "" || w.child(el, "lrm_rsc_op") == nil {
			continue
		}
		n.histories = append(n.histories, h)
		if n.historyOf[h.id] == nil {
			n.historyOf[h.id] = h
		}
		base, _ := splitInstance(h.id)
		n.historyNamed[base] = append(n.historyNamed[base], h)
	}
}

// sorted gives the operations in order of age. Pacemaker starts from the reverse order of the document and sorts with
// GLib's merge sort; as the order of pending operations is not always transitive, the very same steps are taken here.
func (w *workingSet) sorted(h *history) []*op {
	if h.ops == nil {
		for el := range w.children(h.el, "lrm_rsc_op") {
			h.ops = append(h.ops, readOp(el))
		}
		slices.Reverse(h.ops)
		h.ops = mergeSort(h.ops)
	}
	return h.ops
}

func mergeSort(ops []*op) []*op {
	if len(ops) < 2 {
		return ops
	}
	a, b := mergeSort(ops[:len(ops)/2]), mergeSort(ops[len(ops)/2:])
	merged := make([]*op, 0, len(ops))
	for len(a) > 0 && len(b) > 0 {
		if compareOps(a[0], b[0], true) <= 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	return append(append(merged, a...), b...)
}
