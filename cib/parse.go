package cib

import (
	"strconv"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// Parse turns a CIB, as `cibadmin --query` prints it, into what it says about the cluster. The same bytes always give
// the same cluster, with nodes in order of name and clones in order of id, then primitive.
//
// Its errors are ErrUnparseable, one line each.
func Parse(data []byte) (model.Cluster, error) {
	root, err := readDocument(data)
	if err != nil {
		return model.Cluster{}, err
	}
	w, err := newWorkingSet(root, effortBase+effortPerByte*len(data))
	if err != nil {
		return model.Cluster{}, err
	}
	cluster, err := w.understand()
	if err != nil {
		return model.Cluster{}, err
	}
	return cluster, Validate(cluster)
}

// understand reads the sections in the order in which they depend on each other.
func (w *workingSet) understand() (model.Cluster, error) {
	w.readOptions()
	w.readNodes()
	if err := w.readResources(); err != nil {
		return model.Cluster{}, err
	}
	w.readStatus()
	w.readLocations()
	cluster := w.cluster()
	if w.effort < 0 {
		return model.Cluster{}, unparseable("its parts refer to each other too often for its size; " +
			"look for attribute sets, templates or operations that very many resources share")
	}
	return cluster, nil
}

// workingSet is a CIB while it is being understood; Pacemaker's pe_working_set_t.
type workingSet struct {
	root, configuration *etree.Element
	status              *etree.Element
	rscDefaults         *etree.Element
	opDefaults          *etree.Element

	version    model.Version
	quorate    bool
	properties attributes
	options    options

	nodes     []*node
	nodeByID  map[string]*node // keys folded
	nodeNamed map[string]*node

	resources []*resource                 // of the first level, in document order
	byID      map[string]*resource        // every resource; an instance of a clone under the id of what is cloned
	orphans   map[string]*resource        // by id
	locations map[string][]model.Location // by the resource that they name
	// hasFencing: there is something that can fence.
	hasFencing bool

	templates map[string]*etree.Element // by id; made when first needed
	targets   map[target]*etree.Element // of id-ref; made when first needed
	effort    int                       // that may still be made
}

func newWorkingSet(root *etree.Element, effort int) (*workingSet, error) {
	w := &workingSet{
		root:      root,
		quorate:   isTrue(attr(root, "have-quorum")),
		nodeByID:  map[string]*node{},
		nodeNamed: map[string]*node{},
		byID:      map[string]*resource{},
		orphans:   map[string]*resource{},
		locations: map[string][]model.Location{},
		effort:    effort,
	}
	w.configuration, w.status = w.child(root, "configuration"), w.child(root, "status")
	if w.configuration == nil {
		return nil, unparseable("it has no <configuration>; query the whole CIB with cibadmin --query")
	}
	w.rscDefaults = w.child(w.configuration, "rsc_defaults")
	w.opDefaults = w.child(w.configuration, "op_defaults")
	for key, to := range map[string]*int64{
		"admin_epoch": &w.version.AdminEpoch, "epoch": &w.version.Epoch, "num_updates": &w.version.NumUpdates,
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
	return w, nil
}

// cluster puts together the result.
func (w *workingSet) cluster() model.Cluster {
	c := model.Cluster{
		Version:     w.version,
		Quorate:     w.quorate,
		Maintenance: w.options.maintenance || w.options.maybeMaintenance,
		Properties:  w.properties.values,
		Nodes:       make([]model.Node, 0, len(w.nodes)),
		Clones:      w.clones(),
	}
	if dc := attr(w.root, "dc-uuid"); dc != "" {
		if n := w.nodeByID[fold(dc)]; n != nil {
			c.DC = n.name
		}
	}
	for _, n := range w.nodes {
		c.Nodes = append(c.Nodes, n.model())
	}
	return c
}
