package cib

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// document is a CIB as it is written. What it means is crm_mon's to say.
type document struct {
	root, configuration, status *etree.Element

	version    model.Version
	properties attributes

	templates map[string]*etree.Element // by id
	targets   map[target]*etree.Element // of id-ref; made when first needed
	left      int                       // elements that may still be read: maxRead
}

// parse reads what is written in a CIB, as `cibadmin --query` prints it. Its errors are ErrUnparseable, one line each.
func parse(data []byte) (*document, error) {
	root, err := readDocument(data)
	if err != nil {
		return nil, err
	}
	d := &document{
		root: root, configuration: child(root, "configuration"), status: child(root, "status"),
		templates: map[string]*etree.Element{}, left: maxRead,
	}
	if d.configuration == nil {
		return nil, unparseable("it has no <configuration>; query the whole CIB with cibadmin --query")
	}
	for key, to := range map[string]*int64{
		"admin_epoch": &d.version.AdminEpoch, "epoch": &d.version.Epoch, "num_updates": &d.version.NumUpdates,
	} {
		text, ok := lookupAttr(root, key)
		if !ok {
			continue // Pacemaker takes it as 0
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, unparseable("its %s is %q and not a number; check the CIB with crm_verify --live-check", key, text)
		}
		*to = n
	}
	options := []*etree.Element{child(d.configuration, "crm_config")}
	d.add(&d.properties, options, "cluster_property_set", bootstrapSet, nil)
	for t := range children(child(d.configuration, "resources"), "template") {
		if _, taken := d.templates[attr(t, "id")]; !taken {
			d.templates[attr(t, "id")] = t
		}
	}
	return d, nil
}

// maintenance reports whether maintenance-mode is on, or whether a rule may switch it on: pgrex does not know when.
func (d *document) maintenance() bool {
	return isTrue(d.properties.values[maintenanceOption]) ||
		slices.ContainsFunc(d.properties.conditional[maintenanceOption], isTrue)
}

// stopsAll reports whether stop-all-resources is on, or whether a rule may switch it on.
func (d *document) stopsAll() bool {
	return isTrue(d.properties.values[stopAllOption]) || slices.ContainsFunc(d.properties.conditional[stopAllOption], isTrue)
}

const stopAllOption = "stop-all-resources"

// cluster joins what is written with what crm_mon says of it.
func (d *document) cluster(r report) (model.Cluster, error) {
	c := model.Cluster{
		Version:       d.version,
		Quorate:       isTrue(attr(d.root, "have-quorum")),
		DC:            r.dc,
		Maintenance:   r.maintenance || d.maintenance(),
		StopAll:       d.stopsAll(),
		Properties:    d.properties.values,
		MaintenanceAt: d.optionAt(maintenanceOption),
		Nodes:         d.nodes(r),
		Clones:        d.clones(r, d.histories()),
	}
	if d.left < 0 {
		return model.Cluster{}, unparseable("its parts refer to each other too often; " +
			"look for attribute sets or templates that very many resources share")
	}
	return c, Validate(c)
}

// nodes are those that crm_mon lists, with their attributes.
func (d *document) nodes(r report) []model.Node {
	permanent, transient := map[string]attributes{}, map[string]attributes{} // by folded name
	for el := range children(child(d.configuration, "nodes"), "node") {
		var a attributes
		d.add(&a, []*etree.Element{el}, "instance_attributes", "", nil)
		permanent[model.FoldNode(attr(el, "uname"))] = a
	}
	for state := range children(d.status, "node_state") {
		var a attributes
		d.addTransient(&a, child(state, "transient_attributes"))
		transient[model.FoldNode(attr(state, "uname"))] = a
	}
	nodes := make([]model.Node, 0, len(r.nodes))
	for _, n := range r.nodes {
		key := model.FoldNode(n.Name)
		n.Permanent, n.Transient = permanent[key].values, transient[key].values
		nodes = append(nodes, n)
	}
	slices.SortStableFunc(nodes, func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

// addTransient reads transient attributes. Pacemaker lets a later set overwrite an earlier one here, so that of several
// the lowest score wins (add_node_attrs with overwrite).
func (d *document) addTransient(a *attributes, owner *etree.Element) {
	sets := d.sets([]*etree.Element{owner}, "instance_attributes", "")
	slices.Reverse(sets)
	for _, s := range sets {
		d.addSet(a, s, nil)
	}
}

// histories reports on which nodes, by primitive and folded name, an operation has ended: without one, nobody knows
// what is there. What the operations did is crm_mon's to say.
func (d *document) histories() map[string]map[string]bool {
	const pending = "-1" // op-status of an operation under way
	all := map[string]map[string]bool{}
	for state := range children(d.status, "node_state") {
		for history := range children(child(child(state, "lrm"), "lrm_resources"), "lrm_resource") {
			for op := range children(history, "lrm_rsc_op") {
				if attr(op, "op-status") == pending || attr(op, "rc-code") == unknown {
					continue
				}
				primitive := instanceOf(attr(history, "id"))
				if all[primitive] == nil {
					all[primitive] = map[string]bool{}
				}
				all[primitive][model.FoldNode(attr(state, "uname"))] = true
			}
		}
	}
	return all
}

// locations are the location constraints of a clone, or of its primitive, without their rules. Those whose rules only
// prefer nodes are left out. Tags are not looked into.
func (d *document) locations(clone, primitive string) (all []model.Location) {
	for e := range children(child(d.configuration, "constraints"), "rsc_location") {
		for _, l := range d.constrained(e, clone, primitive) {
			if l.Node != "" || l.ByTool() || mayBar(e) {
				all = append(all, l)
			}
		}
	}
	return all
}

// constrained is what a location constraint says about a clone or its primitive; empty if it is about other resources. A
// constraint names one resource (rsc), a pattern of ids, or sets of resources.
func (d *document) constrained(location *etree.Element, clone, primitive string) (all []model.Location) {
	l := model.Location{ID: attr(location, "id"), Node: attr(location, "node"), Score: attr(location, "score"), Role: attr(location, "role")}
	for rule := range children(location, "rule") { // a rule may have the role instead
		l.Role = cmp.Or(l.Role, attr(rule, "role"))
	}
	if rsc := attr(location, "rsc"); rsc == clone || rsc == primitive || matches(attr(location, "rsc-pattern"), clone) {
		all = append(all, l)
	}
	for set := range children(location, "resource_set") {
		for ref := range children(set, "resource_ref") {
			if id := attr(ref, "id"); id == clone || id == primitive {
				one := l
				one.Role, one.Score = cmp.Or(attr(set, "role"), l.Role), cmp.Or(attr(set, "score"), l.Score)
				all = append(all, one)
			}
		}
	}
	return all
}

// matches reports whether a pattern of Pacemaker's, an extended regular expression or ! and one that must not match,
// matches the id of a resource that is in no other one. Pacemaker ignores a pattern that it cannot read.
func matches(pattern, id string) bool {
	if pattern == "" {
		return false
	}
	expression, inverted := strings.CutPrefix(pattern, "!")
	r, err := regexp.CompilePOSIX(expression)
	return err == nil && r.MatchString(id) != inverted
}

// mayBar reports whether a rule of a location constraint may be somebody's order to keep the resource away from a node: its
// score is below zero, or not known, as where a node attribute has it. A rule about node attributes alone, such as that of
// a ping, is none: Pacemaker follows what it measures.
func mayBar(location *etree.Element) bool {
	for rule := range children(location, "rule") {
		score := attr(rule, "score")
		n, err := strconv.Atoi(strings.TrimPrefix(score, "+"))
		prefers := strings.EqualFold(strings.TrimPrefix(score, "+"), "INFINITY") || err == nil && n >= 0
		if !prefers && !onlyMeasures(rule) {
			return true
		}
	}
	return false
}

// onlyMeasures reports whether a rule is about node attributes alone, and not about a node's name (#uname), the time, or
// a rule elsewhere.
func onlyMeasures(rule *etree.Element) bool {
	for _, part := range rule.ChildElements() {
		switch {
		case part.Tag == "rule" && onlyMeasures(part):
		case part.Tag != "expression" || strings.HasPrefix(attr(part, "attribute"), "#"):
			return false
		}
	}
	return len(rule.ChildElements()) > 0
}

// instanceOf is the primitive that an instance's id belongs to: "pgsql:1" is one of pgsql (clone_strip).
func instanceOf(id string) string {
	base, number, numbered := strings.Cut(id, ":")
	if numbered && strings.Trim(number, "0123456789") == "" {
		return base
	}
	return id
}
