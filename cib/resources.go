package cib

import (
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// resource is a configured primitive, group, clone or bundle, or an orphan that only histories know (pe_resource_t).
// The instances of a clone share one resource: what differs from host to host is in the histories.
type resource struct {
	id       string
	kind     string           // "primitive", "group", "clone" or "bundle"
	sources  []*etree.Element // what configures it: its template, if any, then itself
	meta     attributes       // those in which the status is interested; fixed ones of made-up resources
	parent   *resource
	children []*resource

	class, provider, agent string

	managed     bool   // as far as the configuration goes; what an operation changes comes on top
	maybeManual bool   // a rule may take it out of Pacemaker's hands
	unique      bool   // an instance can be told by its number
	promotable  bool   // a clone with promoted instances
	cloneMax    int    // how many instances a clone may have; 0 where nothing says so
	orphan      bool   // only a history knows it
	containerID string // of a connection to a guest node: what the guest runs in
	container   *resource

	operations []*etree.Element    // its <op>s, own ones first
	policies   map[failedOp]onFail // what to do about failures

	// What the histories say, of resources that are no clones.
	role      role
	failed    bool
	running   []*node
	migration [2]*node // source and target while it is half done
}

// top is the clone, bundled clone or group that a resource belongs to, or itself (uber_parent).
func (r *resource) top() *resource {
	for r.parent != nil && r.parent.kind != "bundle" {
		r = r.parent
	}
	return r
}

func (r *resource) isCloned() bool  { return r.top().kind == "clone" }
func (r *resource) isBundled() bool { return r.top().parent != nil }

// isConnection tells whether it connects to a remote or guest node (xml_contains_remote_node).
func (r *resource) isConnection() bool {
	return strings.EqualFold(r.class, "ocf") && strings.EqualFold(r.provider, "pacemaker") && strings.EqualFold(r.agent, "remote")
}

// agentName is the agent as Pacemaker writes it, class:provider:type.
func (r *resource) agentName() string {
	if r.provider == "" {
		return r.class + ":" + r.agent
	}
	return r.class + ":" + r.provider + ":" + r.agent
}

// readResources enters the configured resources, and the remote and guest nodes that they imply (unpack_resources,
// unpack_remote_nodes).
func (w *workingSet) readResources() error {
	section := w.child(w.configuration, "resources")
	guests := w.remoteNodes(section)
	for el := range w.children(section) {
		if attr(el, "id") == "" || el.Tag == "template" {
			continue
		}
		r, err := w.readResource(el, nil)
		if err != nil {
			return err
		}
		if r != nil {
			w.resources = append(w.resources, r)
		}
	}
	for _, g := range guests {
		w.resources = append(w.resources, w.enter(g))
	}
	for _, r := range w.resources {
		w.linkContainers(r)
		w.linkNode(r)
	}
	return nil
}

// readResource enters one resource and what it holds (pe__unpack_resource). Nil when Pacemaker ignores it, too.
func (w *workingSet) readResource(el *etree.Element, parent *resource) (*resource, error) {
	r := &resource{id: attr(el, "id"), kind: el.Tag, parent: parent, sources: []*etree.Element{el}}
	switch {
	case r.id == "":
		return nil, nil
	case r.kind == "master":
		r.kind = "clone"
	case !slices.Contains([]string{"primitive", "group", "clone", "bundle"}, r.kind):
		return nil, nil
	}
	if ref, ok := lookupAttr(el, "template"); ok {
		template := w.template(ref)
		if template == nil || ref == r.id {
			return nil, nil
		}
		r.sources = []*etree.Element{template, el}
	}
	r.class, r.provider, r.agent = attr(r.sources[0], "class"), attr(r.sources[0], "provider"), attr(r.sources[0], "type")
	w.enter(r)
	switch r.kind {
	case "bundle":
		return r, w.readBundle(r, el)
	case "group", "clone":
		return w.readMembers(r, el)
	}
	return r, nil
}

// readMembers reads what a group or clone holds. A clone holds one primitive or group; a second one is ignored.
func (w *workingSet) readMembers(r *resource, el *etree.Element) (*resource, error) {
	if r.kind == "clone" {
		r.promotable = isTrue(r.meta.values["promotable"]) || el.Tag == "master" // detect_promotable
	}
	tags := map[string][]string{"group": {"primitive"}, "clone": {"primitive", "group"}}[r.kind]
	for c := range w.children(el, tags...) {
		m, err := w.readResource(c, r)
		if err != nil {
			return nil, err
		}
		if m != nil {
			r.children = append(r.children, m)
		}
		if r.kind == "clone" {
			break
		}
	}
	if r.kind == "clone" && len(r.children) == 0 {
		delete(w.byID, r.id)
		return nil, nil
	}
	return r, nil
}

// template finds a resource template. Templates of templates do not exist (unpack_template).
func (w *workingSet) template(id string) *etree.Element {
	if w.templates == nil {
		w.templates = map[string]*etree.Element{}
		for t := range w.children(w.child(w.configuration, "resources"), "template") {
			if _, taken := w.templates[attr(t, "id")]; !taken {
				w.templates[attr(t, "id")] = t
			}
		}
	}
	return w.templates[id]
}

// statusMeta are the meta attributes that decide about what the status section means.
var statusMeta = []string{"clone-max", "container", "globally-unique", "is-managed", "maintenance", "promotable"}

// enter adds r to what is found by id, and works out its meta attributes, operations, and whether it is managed.
func (w *workingSet) enter(r *resource) *resource {
	if w.byID[r.id] == nil {
		w.byID[r.id] = r
	}
	r.role = roleStopped
	w.hasFencing = w.hasFencing || strings.EqualFold(r.class, "stonith")
	w.addMeta(r, &r.meta, func(name string) bool { return slices.Contains(statusMeta, name) })
	if limit, ok := r.meta.values["clone-max"]; ok {
		r.cloneMax = max(1, integer(limit, 0))
	}
	r.unique = !r.isCloned() || isTrue(r.meta.values["globally-unique"])
	if r.containerID == "" {
		r.containerID = r.meta.values["container"]
	}
	isManaged, explicit := r.meta.values["is-managed"]
	r.managed = !w.options.maintenance && !isTrue(r.meta.values["maintenance"])
	if r.managed && explicit && !strings.EqualFold(isManaged, "default") {
		r.managed = isTrue(isManaged)
	}
	// What a rule may take out of Pacemaker's hands must be left alone, because pgrex does not know when it is.
	r.maybeManual = w.options.maybeMaintenance || slices.ContainsFunc(r.meta.conditional["maintenance"], isTrue) ||
		slices.ContainsFunc(r.meta.conditional["is-managed"], func(v string) bool { return !isTrue(v) })
	r.operations = w.operationsOf(r)
	return r
}

// addMeta works out meta attributes: the resource's own, then those of what holds it, nearest first, then the
// defaults (get_meta_attributes).
func (w *workingSet) addMeta(r *resource, a *attributes, want func(string) bool) {
	for p := r; p != nil; p = p.parent {
		w.add(a, p.sources, "meta_attributes", "", want)
	}
	w.add(a, []*etree.Element{w.rscDefaults}, "meta_attributes", "", want)
}

// addParameters works out instance attributes, in the same order (get_rsc_attributes).
func (w *workingSet) addParameters(r *resource, a *attributes, want func(string) bool) {
	for p := r; p != nil; p = p.parent {
		w.add(a, p.sources, "instance_attributes", "", want)
	}
	w.add(a, []*etree.Element{w.rscDefaults}, "instance_attributes", "", want)
}

// operationsOf lists a resource's operations: its own, then those of its template that it does not have itself. Two
// are the same when name and role are (template_op_key).
func (w *workingSet) operationsOf(r *resource) []*etree.Element {
	var ops []*etree.Element
	seen := map[string]bool{}
	for _, source := range slices.Backward(r.sources) {
		var added []string
		for op := range w.children(w.follow(w.child(source, "operations")), "op") {
			key := strings.ToLower(attr(op, "name") + "-" + operationRole(op))
			if seen[key] {
				continue
			}
			ops, added = append(ops, op), append(added, key)
		}
		for _, key := range added {
			seen[key] = true
		}
	}
	return ops
}

func operationRole(op *etree.Element) string {
	switch role := strings.ToLower(attr(op, "role")); role {
	case "started", "unpromoted", "slave":
		return ""
	default:
		return role
	}
}

// splitInstance splits the number of an instance off the id of a history entry (clone_strip): "pgsql:1" is pgsql, 1. The
// number is -1 when there is none.
func splitInstance(id string) (base string, number int) {
	i := strings.LastIndexByte(id, ':')
	if i <= 0 {
		return id, -1
	}
	if id[i+1:] == "" {
		return id[:i], -1
	}
	n, err := strconv.ParseUint(id[i+1:], 10, 31)
	if err != nil {
		return id, -1
	}
	return id[:i], int(n)
}
