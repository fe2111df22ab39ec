package cib

import (
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// attributes are name=value pairs as they result from several attribute sets.
type attributes struct {
	values map[string]string
	// conditional are the values that sets with a rule would give, were the rule to hold. A name that a set of higher
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
func (w *workingSet) sets(owners []*etree.Element, tag, first string) []attributeSet {
	var sets []attributeSet
	for rank, owner := range owners {
		for el := range w.children(owner, tag) {
			if el = w.follow(el); el == nil {
				continue
			}
			sets = append(sets, attributeSet{
				el:          el,
				score:       score(attr(el, "score")),
				rank:        rank,
				first:       first != "" && strings.EqualFold(attr(el, "id"), first),
				conditional: w.child(el, "rule") != nil,
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
// not nil, tells which names are of interest.
func (w *workingSet) add(a *attributes, owners []*etree.Element, tag, first string, want func(string) bool) {
	sets := w.sets(owners, tag, first)
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
					w.addSet(a, s, want)
				}
			}
		}
		sets = sets[n:]
	}
}

func (w *workingSet) addSet(a *attributes, s attributeSet, want func(string) bool) {
	for name, value := range w.pairs(s.el) {
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

// pairs gives the names and values of a set (populate_hash). An <nvpair> may refer to another one for either. A set may
// wrap its pairs in <attributes>, as it did before Pacemaker 1.0.
func (w *workingSet) pairs(set *etree.Element) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		if wrapped := w.child(set, "attributes"); wrapped != nil {
			set = wrapped
		}
		for pair := range w.children(set, "nvpair") {
			target := w.follow(pair)
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

// follow is what e's id-ref refers to, or e when it has none, or nil when there is no such element (expand_idref).
// References of what is referred to are not followed in turn, so there are no cycles.
func (w *workingSet) follow(e *etree.Element) *etree.Element {
	ref, ok := lookupAttr(e, "id-ref")
	if !ok { // or there is no e
		return e
	}
	if w.targets == nil {
		w.targets = map[target]*etree.Element{}
		w.index(w.root)
	}
	to := w.targets[target{e.Tag, ref}]
	if to != nil {
		w.spend(size(to))
	}
	return to
}

// target is what an id-ref names: an element of the same tag with that id.
type target struct{ tag, id string }

// index enters e and what it holds; the depth is limited by maxDepth. The first of a tag with an id counts.
func (w *workingSet) index(e *etree.Element) {
	if id, ok := lookupAttr(e, "id"); ok {
		key := target{e.Tag, id}
		if _, taken := w.targets[key]; !taken {
			w.targets[key] = e
		}
	}
	for c := range w.children(e) {
		w.index(c)
	}
}

// options are the cluster options that decide about nodes and roles (unpack_config).
type options struct {
	stonith        bool // stonith-enabled
	startupFencing bool // nodes that were never seen are unclean
	maintenance    bool // maintenance-mode
	shutdownLock   bool // the history of offline nodes counts without fencing, too
	keepOrphans    bool // stop-orphan-resources=false
	ignoreQuorum   bool // no-quorum-policy=ignore
	suicide        bool // there is no quorum any more, and every node is to be fenced for it
	// maybeMaintenance: a rule may switch maintenance-mode on. What is out of Pacemaker's hands at times must be left
	// alone at all times, because pgrex does not know when.
	maybeMaintenance bool
}

func (w *workingSet) readOptions() {
	w.add(&w.properties, []*etree.Element{w.child(w.configuration, "crm_config")}, "cluster_property_set", "cib-bootstrap-options", nil)
	option := func(name string, fallback bool) bool {
		if v, known := model.ParseBool(w.properties.values[name]); known {
			return v
		}
		return fallback
	}
	o := &w.options
	o.stonith = option("stonith-enabled", true)
	o.startupFencing = o.stonith && option("startup-fencing", true)
	o.maintenance = option("maintenance-mode", false)
	o.maybeMaintenance = slices.ContainsFunc(w.properties.conditional["maintenance-mode"], isTrue)
	w.hasFencing = option("have-watchdog", false)
	o.shutdownLock = option("shutdown-lock", false)
	o.keepOrphans = !option("stop-orphan-resources", true)
	policy := strings.ToLower(w.properties.values["no-quorum-policy"])
	o.ignoreQuorum = policy == "ignore"
	o.suicide = policy == "suicide" && o.stonith && !w.quorate && integer(attr(w.root, "no-quorum-panic"), 0) != 0
}
