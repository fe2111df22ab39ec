package cib

import (
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// The options of an operation that tell whether Pacemaker may be given a crash hint.
const (
	onFailOption        = "on-fail"
	recordPendingOption = "record-pending"
	enabledOption       = "enabled"
)

// watched reads the operations of a primitive, and of its template. An operation of the primitive may replace one of the
// template; both count here, since only what none of them says otherwise is sure.
func (d *document) watched(sources []*etree.Element) model.Watched {
	var w model.Watched
	defaults := child(d.configuration, "op_defaults")
	promoted := false
	for _, source := range sources {
		for operations := range children(source, "operations") {
			for op := range children(d.follow(operations), "op") {
				if attr(op, "name") == "monitor" {
					d.addOnFail(&w, op, defaults)
					promoted = d.addPromoted(&w, op, defaults) || promoted
				}
				d.addRecording(&w, op, defaults)
			}
		}
	}
	w.Unmonitored = w.Unmonitored || !promoted
	d.addRecording(&w, nil, defaults)
	slices.Sort(w.OnFail)
	w.OnFail = slices.Compact(w.OnFail)
	return w
}

// addOnFail counts a monitor, of whatever role: after a crash hint not the promoted instance fails, but the demoted one.
func (d *document) addOnFail(w *model.Watched, op, defaults *etree.Element) {
	value, byRule := d.option(op, defaults, onFailOption)
	if value != "" {
		w.OnFail = append(w.OnFail, strings.ToLower(value))
	}
	w.ByRule = w.ByRule || byRule
}

// addPromoted reports whether a monitor is the promoted instance's, and counts that it may be disabled.
func (d *document) addPromoted(w *model.Watched, op, defaults *etree.Element) bool {
	if role := strings.ToLower(attr(op, "role")); role != "promoted" && role != "master" {
		return false
	}
	value, byRule := d.option(op, defaults, enabledOption)
	w.Unmonitored = w.Unmonitored || byRule || value != "" && !isTrue(value)
	return true
}

func (d *document) addRecording(w *model.Watched, op, defaults *etree.Element) {
	value, byRule := d.option(op, defaults, recordPendingOption)
	w.Unrecorded = w.Unrecorded || byRule || value != "" && !isTrue(value)
}

// option is the value of an operation's option, and whether a rule may set it (unpack_operation): as an XML attribute of
// the operation, or else in its meta attributes, or else in op_defaults. Releases before 2.1 take it from the
// operation's instance attributes, too.
func (d *document) option(op, defaults *etree.Element, name string) (value string, byRule bool) {
	if value, ok := lookupAttr(op, name); ok {
		return value, false
	}
	var a attributes
	want := func(n string) bool { return n == name }
	d.add(&a, []*etree.Element{op}, "meta_attributes", "", want)
	d.add(&a, []*etree.Element{op}, "instance_attributes", "", want)
	d.add(&a, []*etree.Element{defaults}, "meta_attributes", "", want)
	return a.values[name], len(a.conditional[name]) > 0
}
