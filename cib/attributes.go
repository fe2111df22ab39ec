package cib

import (
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// maxRead is how many elements within attribute sets and templates are read of one CIB, those that several resources
// refer to counted each time. It bounds the time that references can cost; a real CIB of MaxSize has fewer.
const maxRead = 1_000_000

// spend counts elements that are read, and reports whether they were within the limit.
func (d *document) spend(elements int) bool {
	d.left -= elements
	return d.left >= 0
}

// attributes are name=value pairs as they result from several attribute sets.
type attributes struct {
	values map[string]string
	// conditional are the values that sets with a rule would set, were the rule to hold. A name that a set of higher
	// precedence decides without a rule is not among them.
	conditional map[string][]string
}

// attributeSet is one <instance_attributes>, <meta_attributes> or <cluster_property_set>, with its id-ref followed.
type attributeSet struct {
	el          *etree.Element
	score       int
	rank        int // which owner it comes from: the resource itself goes before its template
	first       bool
	conditional bool
}

// sets lists the attribute sets of owners in falling precedence (make_pairs, sort_pairs): the set whose id is first,
// then by score, and of equal scores the last one in the document. That is why a resource's own sets, which Pacemaker
// puts after its template's, win.
func (d *document) sets(owners []*etree.Element, tag, first string) []attributeSet {
	var sets []attributeSet
	for rank, owner := range owners {
		for el := range children(owner, tag) {
			if el = d.follow(el); el == nil {
				continue
			}
			sets = append(sets, attributeSet{
				el:          el,
				score:       score(attr(el, "score")),
				rank:        rank,
				first:       first != "" && strings.EqualFold(attr(el, "id"), first),
				conditional: child(el, "rule") != nil,
			})
		}
	}
	slices.Reverse(sets)
	slices.SortStableFunc(sets, func(a, b attributeSet) int {
		switch {
		case a.first != b.first && a.first:
			return -1
		case a.first != b.first:
			return 1
		}
		return b.score - a.score
	})
	return sets
}

// add takes over what the sets of owners decide and a does not have yet (populate_hash without overwriting). want, if
// not nil, reports which names are of interest.
func (d *document) add(a *attributes, owners []*etree.Element, tag, first string, want func(string) bool) {
	sets := d.sets(owners, tag, first)
	for len(sets) > 0 {
		// Whether the rules of one score hold or not is not known: they may decide against each other and against
		// the set without a rule, so of equals those with a rule count first.
		n := slices.IndexFunc(sets, func(s attributeSet) bool {
			return s.score != sets[0].score || s.rank != sets[0].rank || s.first != sets[0].first
		})
		if n < 0 {
			n = len(sets)
		}
		for _, conditional := range []bool{true, false} {
			for _, s := range sets[:n] {
				if s.conditional == conditional {
					d.addSet(a, s, want)
				}
			}
		}
		sets = sets[n:]
	}
}

func (d *document) addSet(a *attributes, s attributeSet, want func(string) bool) {
	for name, value := range d.pairs(s.el) {
		if want != nil && !want(name) {
			continue
		}
		_, decided := a.values[name]
		switch {
		case s.conditional && !decided:
			if a.conditional == nil {
				a.conditional = map[string][]string{}
			}
			a.conditional[name] = append(a.conditional[name], value)
		case s.conditional:
		case strings.EqualFold(value, "#default"):
			delete(a.values, name)
		case !decided:
			if a.values == nil {
				a.values = map[string]string{}
			}
			a.values[name] = value
		}
	}
}

// pairs yields the names and values of a set (populate_hash). An <nvpair> may refer to another one for either. A set
// may wrap its pairs in <attributes>, as it did before Pacemaker 1.0.
func (d *document) pairs(set *etree.Element) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		if wrapped := child(set, "attributes"); wrapped != nil {
			set = wrapped
		}
		for pair := range children(set, "nvpair") {
			if !d.spend(1) {
				return
			}
			target := d.follow(pair)
			name, ok := lookupAttr(pair, "name")
			if !ok {
				name, ok = lookupAttr(target, "name")
			}
			value, valued := lookupAttr(pair, "value")
			if !valued {
				value, valued = lookupAttr(target, "value")
			}
			if ok && valued && !yield(name, value) {
				return
			}
		}
	}
}

// follow is what e's id-ref refers to, or e when it has none; nil when there is no such element (expand_idref), or
// too much was read. References of what is referred to are not followed in turn, so there are no cycles.
func (d *document) follow(e *etree.Element) *etree.Element {
	ref, ok := lookupAttr(e, "id-ref")
	if !ok { // or there is no e
		return e
	}
	if d.targets == nil {
		d.targets = map[target]*etree.Element{}
		d.index(d.root)
	}
	to := d.targets[target{e.Tag, ref}]
	if to == nil || !d.spend(len(to.Child)) {
		return nil
	}
	return to
}

// target is what an id-ref names: an element of the same tag with that id.
type target struct{ tag, id string }

// index enters e and what it holds; the depth is limited by maxDepth. The first of a tag with an id counts.
func (d *document) index(e *etree.Element) {
	if id, ok := lookupAttr(e, "id"); ok {
		key := target{e.Tag, id}
		if _, taken := d.targets[key]; !taken {
			d.targets[key] = e
		}
	}
	for c := range children(e) {
		d.index(c)
	}
}
