package cib

import (
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// onFail is what to do about a failure, the graver the higher (enum action_fail_response, cmp_on_fail).
type onFail int

const (
	failIgnore onFail = iota
	failDemote
	failRecover
	failResetRemote
	failRestartContainer
	failMigrate
	failBlock
	failStop
	failStandby
	failFence
)

// outlastsSuccess tells whether a later success does not mend it (update_resource_state).
func (f onFail) outlastsSuccess() bool {
	return f == failStop || f == failFence || f == failMigrate || f == failStandby
}

// policy is what the configuration says about a failure of the operation (unpack_operation, unpack_operation_on_fail).
func (i *instance) policy(o *op) onFail {
	failed := failedOp{nameInterval(i.h.id, o.key), o.task, o.isProbe(), i.managed}
	if p, ok := i.r.policies[failed]; ok {
		return p
	}
	if i.r.policies == nil {
		i.r.policies = map[failedOp]onFail{}
	}
	p := i.w.policy(i, o)
	i.r.policies[failed] = p
	return p
}

// failedOp is what the policy about a resource's failure depends on.
type failedOp struct {
	nameInterval string
	task         string
	probe        bool
	managed      bool
}

// nameInterval is what follows the resource in an operation's key, resource_name_interval; "" in a key of another one.
func nameInterval(historyID, key string) string {
	n := len(historyID)
	if len(key) <= n || key[n] != '_' || !strings.EqualFold(key[:n], historyID) {
		return ""
	}
	return strings.ToLower(key[n+1:])
}

func (w *workingSet) policy(i *instance, o *op) onFail {
	r := i.r
	if r.container == nil && !i.managed && w.connects(r) && !o.isProbe() && o.task != "start" {
		return failStop // what connects to a remote node and is left alone stays down, whatever is configured
	}
	w.spend(len(r.id)) // by which its node is looked up
	entry := w.operation(r, nameInterval(i.h.id, o.key))
	switch value := strings.ToLower(w.onFailValue(r, entry, o)); value {
	case "block":
		return failBlock
	case "fence":
		if w.options.stonith {
			return failFence
		}
		return failStop
	case "standby":
		return failStandby
	case "ignore", "nothing":
		return failIgnore
	case "migrate":
		return failMigrate
	case "stop":
		return failStop
	case "restart":
		return failRecover
	case "demote":
		return failDemote
	case "restart-container":
		if r.container != nil {
			return failRestartContainer
		}
	}
	return w.defaultPolicy(r, o)
}

// defaultPolicy is what is done where nothing is configured.
func (w *workingSet) defaultPolicy(r *resource, o *op) onFail {
	switch {
	case r.container != nil:
		return failRestartContainer
	case w.connects(r) && !o.isProbe() && o.task != "start":
		return failResetRemote
	case o.task == "stop" && w.options.stonith:
		return failFence
	case o.task == "stop":
		return failBlock
	}
	return failRecover
}

// connects tells whether r connects to a remote node, and not to a guest node (pe__resource_is_remote_conn).
func (w *workingSet) connects(r *resource) bool {
	n := w.nodeNamed[fold(r.id)]
	return r.isConnection() && n != nil && n.isRemote() && !n.isGuest()
}

// onFailValue is the on-fail that applies, "" for the default.
func (w *workingSet) onFailValue(r *resource, entry *etree.Element, o *op) string {
	value := w.configuredOnFail(entry)
	switch {
	case o.task == "stop":
		if value == "standby" || value == "demote" || value == "stop" {
			return "" // not allowed for a stop
		}
	case o.task == "demote" && value == "":
		return w.promotedMonitorOnFail(r)
	case value == "demote" && attr(entry, "name") != "promote" && !isPromotedMonitor(entry):
		return "" // allowed where there is a promoted role to lose
	}
	return value
}

// configuredOnFail: the <op>'s own attribute goes before its meta attributes, and those before op_defaults.
func (w *workingSet) configuredOnFail(entry *etree.Element) string {
	if value, ok := lookupAttr(entry, "on-fail"); ok {
		return strings.ToLower(value)
	}
	var meta attributes
	only := func(name string) bool { return name == "on-fail" }
	w.add(&meta, []*etree.Element{entry}, "meta_attributes", "", only)
	w.add(&meta, []*etree.Element{w.opDefaults}, "meta_attributes", "", only)
	return strings.ToLower(meta.values["on-fail"])
}

// promotedMonitorOnFail: a demote that has no on-fail of its own takes that of the promoted role's monitor.
func (w *workingSet) promotedMonitorOnFail(r *resource) string {
	for _, entry := range r.operations {
		if !w.spend(size(entry)) {
			break
		}
		enabled, known := model.ParseBool(attr(entry, "enabled"))
		value := strings.ToLower(attr(entry, "on-fail"))
		if value != "" && value != "demote" && (enabled || !known) && isPromotedMonitor(entry) {
			return value
		}
	}
	return ""
}

// isPromotedMonitor tells whether an <op> is a recurring monitor of the promoted role.
func isPromotedMonitor(entry *etree.Element) bool {
	role := strings.ToLower(attr(entry, "role"))
	return attr(entry, "name") == "monitor" && (role == "promoted" || role == "master") &&
		milliseconds(attr(entry, "interval")) > 0
}

// operation finds the <op> that configures an operation (find_rsc_op_entry_helper). migrate_to and migrate_from may be
// configured together as migrate.
func (w *workingSet) operation(r *resource, wanted string) *etree.Element {
	migrates := strings.HasPrefix(wanted, "migrate_")
	var both *etree.Element
	for _, entry := range r.operations {
		if !w.spend(size(entry)) {
			return nil
		}
		name, interval, found := cutLast(wanted, "_")
		if !found || milliseconds(attr(entry, "interval")) != integer(interval, -1) {
			continue
		}
		switch configured := strings.ToLower(attr(entry, "name")); {
		case configured == name:
			return entry
		case migrates && configured == "migrate" && both == nil:
			both = entry
		}
	}
	return both
}

// cutLast cuts s around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
