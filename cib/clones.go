package cib

import (
	"maps"
	"slices"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// resource is a primitive of a clone as it is configured.
type resource struct {
	id string
	// sources are what configures it, nearest first: itself, its group, its clone; of each its template, then itself.
	sources [][]*etree.Element
}

// clones are the primitives of those clones that crm_mon lists as promotable.
func (d *document) clones(r report, ran map[string]map[string]bool) []model.Clone {
	clones := []model.Clone{}
	for el := range children(child(d.configuration, "resources"), "clone", "master") {
		reported, listed := r.clones[attr(el, "id")]
		if !listed || !reported.promotable {
			continue
		}
		for _, primitive := range d.primitives(el) {
			c := d.clone(attr(el, "id"), primitive)
			c.Managed = c.Managed && reported.managed(primitive.id, r.nodes)
			c.Roles, c.Unsettled = r.roles(c.ID, primitive.id, ran[primitive.id])
			c.Locations = d.locations(c.ID, c.Primitive)
			clones = append(clones, c)
		}
	}
	slices.SortStableFunc(clones, compareClones)
	return clones
}

// primitives lists what a clone holds: one primitive, or those of one group. Whatever follows is ignored, as by
// Pacemaker.
func (d *document) primitives(clone *etree.Element) (primitives []resource) {
	for held := range children(clone, "primitive", "group") {
		if held.Tag == "primitive" {
			return append(primitives, resource{attr(held, "id"), [][]*etree.Element{d.withTemplate(held), {clone}}})
		}
		for p := range children(held, "primitive") {
			primitives = append(primitives, resource{attr(p, "id"), [][]*etree.Element{d.withTemplate(p), {held}, {clone}}})
		}
		return primitives
	}
	return nil
}

// withTemplate is a primitive's template, if it has one, and the primitive. Templates of templates do not exist
// (unpack_template).
func (d *document) withTemplate(primitive *etree.Element) []*etree.Element {
	if template := d.templates[attr(primitive, "template")]; template != nil && d.spend(len(template.Child)) {
		return []*etree.Element{template, primitive}
	}
	return []*etree.Element{primitive}
}

// clone is what is written about a primitive of a clone.
func (d *document) clone(id string, primitive resource) model.Clone {
	var parameters, meta attributes
	d.addInherited(&parameters, primitive, "instance_attributes", func(name string) bool {
		return slices.Contains(model.AgentParameters, name)
	})
	d.addInherited(&meta, primitive, "meta_attributes", nil)
	conditional := slices.Collect(maps.Keys(parameters.conditional))
	for name := range meta.conditional {
		// A rule that may pause pgrex, or change what it does, is as doubtful as one about the agent.
		if model.IsPolicy(name) {
			conditional = append(conditional, name)
		}
	}
	slices.Sort(conditional)
	return model.Clone{
		ID: id, Primitive: primitive.id, Agent: agentOf(primitive.sources[0][0]), Managed: !d.maybeUnmanaged(meta),
		Parameters: parameters.values, Conditional: conditional, Meta: meta.values,
		Watched: d.watched(primitive.sources[0]),
	}
}

// addInherited works out attributes: the resource's own, then those of what holds it, nearest first, then the defaults
// (get_meta_attributes, get_rsc_attributes).
func (d *document) addInherited(a *attributes, r resource, tag string, want func(string) bool) {
	for _, sources := range r.sources {
		d.add(a, sources, tag, "", want)
	}
	d.add(a, []*etree.Element{child(d.configuration, "rsc_defaults")}, tag, "", want)
}

// maybeUnmanaged reports whether a rule may take the resource out of Pacemaker's hands. It must be left alone at all
// times then, because pgrex does not evaluate rules.
func (d *document) maybeUnmanaged(meta attributes) bool {
	return slices.ContainsFunc(d.properties.conditional["maintenance-mode"], isTrue) ||
		slices.ContainsFunc(meta.conditional["maintenance"], isTrue) ||
		slices.ContainsFunc(meta.conditional["is-managed"], func(v string) bool { return !isTrue(v) })
}

// agentOf is the agent as Pacemaker writes it, class:provider:type. A template has it for its primitives.
func agentOf(el *etree.Element) string {
	if provider := attr(el, "provider"); provider != "" {
		return attr(el, "class") + ":" + provider + ":" + attr(el, "type")
	}
	return attr(el, "class") + ":" + attr(el, "type")
}
