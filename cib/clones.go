package cib

import (
	"maps"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// policyPrefix is what the names of pgrex's own meta attributes begin with.
const policyPrefix = "pgrex-"

// clones lists the primitives of promotable clones.
func (w *workingSet) clones() []model.Clone {
	clones := []model.Clone{}
	for _, r := range w.resources {
		if r.kind != "clone" || !r.promotable {
			continue
		}
		for _, c := range r.children {
			switch c.kind {
			case "primitive":
				clones = append(clones, w.clone(r, c))
			case "group":
				for _, member := range c.children {
					clones = append(clones, w.clone(r, member))
				}
			}
		}
	}
	slices.SortStableFunc(clones, compareClones)
	return clones
}

func (w *workingSet) clone(clone, primitive *resource) model.Clone {
	var parameters, meta attributes
	w.addParameters(primitive, &parameters, func(name string) bool { return slices.Contains(model.AgentParameters, name) })
	w.addMeta(primitive, &meta, nil)
	conditional := slices.Collect(maps.Keys(parameters.conditional))
	for name := range meta.conditional {
		// A rule that may pause pgrex, or change what it does, is as doubtful as one about the agent.
		if strings.HasPrefix(name, policyPrefix) {
			conditional = append(conditional, name)
		}
	}
	slices.Sort(conditional)
	c := model.Clone{
		ID: clone.id, Primitive: primitive.id, Agent: primitive.agentName(),
		Managed:    primitive.managed && !primitive.maybeManual,
		Parameters: parameters.values, Conditional: conditional, Meta: meta.values,
		Locations: slices.Concat(w.locations[clone.id], w.locations[primitive.id]),
		Roles:     map[string]model.Role{},
	}
	for _, n := range w.nodes {
		if !w.spend(effortRole) {
			break
		}
		if role, known := w.roleOn(primitive, n); known {
			c.Roles[n.name] = role
		}
	}
	return c
}

// readLocations reads the location constraints that can be told without their rules.
func (w *workingSet) readLocations() {
	for e := range w.children(w.child(w.configuration, "constraints"), "rsc_location") {
		l := model.Location{ID: attr(e, "id"), Node: attr(e, "node"), Score: attr(e, "score"), Role: attr(e, "role")}
		if l.Node != "" || l.ByTool() {
			w.locations[attr(e, "rsc")] = append(w.locations[attr(e, "rsc")], l)
		}
	}
}

// roleOn concludes what a clone's instance does on a node. A node that is cleanly offline runs nothing, whatever its
// history says; but of one that is among the members and has not joined yet nothing is known. An unclean one
// still may run what it ran: there the history counts, and where it is silent nothing is known either.
func (w *workingSet) roleOn(primitive *resource, n *node) (model.Role, bool) {
	if !n.online && !n.unclean {
		return model.RoleStopped, !n.joining
	}
	highest, said := roleStopped, false
	for _, h := range n.historyNamed[primitive.id] {
		if w.spend(effortStep+len(h.id)) && w.lookup(n, h.id) == primitive {
			said = true
			highest = max(highest, w.replay(primitive, n, h, true).role)
		}
	}
	switch {
	case highest == rolePromoted:
		return model.RolePromoted, true
	case highest > roleStopped:
		return model.RoleUnpromoted, true
	}
	return model.RoleStopped, said || n.online
}
