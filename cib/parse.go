package cib

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// MaxSize is the largest CIB that is read, in bytes. A CIB of a hundred nodes and a thousand resources has about 10 MiB.
const MaxSize = 16 << 20

// Further limits of what is read. Real CIBs stay far below: 9 levels, an element every 130 bytes.
const (
	maxDepth    = 64
	maxTags     = 1_000_000 // start and end tags, comments
	maxEquals   = 1_500_000 // attributes, and "=" within values
	maxVisits   = 2_000_000 // attributes and operations looked at, each time they are
	maxReplicas = 1000
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
	w, err := newWorkingSet(root)
	if err != nil {
		return model.Cluster{}, err
	}
	w.readOptions()
	w.readNodes()
	if err := w.readResources(); err != nil {
		return model.Cluster{}, err
	}
	w.readStatus()
	cluster := w.cluster()
	if w.visits > maxVisits {
		return model.Cluster{}, unparseable("attribute sets or operations refer to each other more than %d times; "+
			"look for sets that are shared by very many resources", maxVisits)
	}
	return cluster, Validate(cluster)
}

// readDocument checks the limits before any memory is spent, then reads the XML.
func readDocument(data []byte) (*etree.Element, error) {
	const again = "query it again with cibadmin --query"
	switch {
	case len(data) > MaxSize:
		return nil, unparseable("it has %d bytes, more than the limit of %d; is this a CIB?", len(data), MaxSize)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, unparseable("it is empty; %s", again)
	case bytes.Count(data, []byte("<")) > maxTags, bytes.Count(data, []byte("=")) > maxEquals:
		return nil, unparseable("it has more than %d tags or %d attributes; is this a CIB?", maxTags, maxEquals)
	}
	doc := etree.NewDocument()
	doc.ReadSettings.MaxDepth = maxDepth
	doc.ReadSettings.CharsetReader = onlyUTF8
	if err := doc.ReadFromBytes(data); err != nil {
		switch {
		case errors.Is(err, etree.ErrMaxDepth):
			return nil, unparseable("its elements are nested more than %d deep; is this a CIB?", maxDepth)
		case errors.Is(err, etree.ErrXML), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "unexpected EOF"):
			return nil, unparseable("it is cut off, or its tags do not match; %s", again)
		}
		return nil, unparseable("it is not XML (%s); %s", oneLine(err.Error()), again)
	}
	root := doc.Root()
	switch {
	case root == nil:
		return nil, unparseable("it is not XML; %s", again)
	case root.Tag != "cib" || root.Space != "":
		return nil, unparseable("its root element is <%s> and not <cib>; query the whole CIB with cibadmin --query", root.FullTag())
	case len(doc.ChildElements()) > 1:
		return nil, unparseable("more follows after </cib>; %s", again)
	}
	for _, token := range doc.Child {
		if text, ok := token.(*etree.CharData); ok && strings.TrimSpace(text.Data) != "" {
			return nil, unparseable("there is text beside <cib>; %s", again)
		}
	}
	return root, nil
}

// onlyUTF8 refuses other encodings: names that were decoded wrongly would match no host.
func onlyUTF8(charset string, input io.Reader) (io.Reader, error) {
	if strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii") {
		return input, nil
	}
	return nil, errors.New("its encoding is not UTF-8")
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

	resources []*resource          // of the first level, in document order
	byID      map[string]*resource // every resource; an instance of a clone under the id of what is cloned
	// hasFencing: there is something that can fence.
	hasFencing bool

	templates map[string]*etree.Element // by id; made when first needed
	targets   map[target]*etree.Element // of id-ref; made when first needed
	visits    int                       // see maxVisits
}

func newWorkingSet(root *etree.Element) (*workingSet, error) {
	w := &workingSet{
		root:          root,
		configuration: child(root, "configuration"),
		status:        child(root, "status"),
		quorate:       isTrue(attr(root, "have-quorum")),
		nodeByID:      map[string]*node{},
		nodeNamed:     map[string]*node{},
		byID:          map[string]*resource{},
	}
	if w.configuration == nil {
		return nil, unparseable("it has no <configuration>; query the whole CIB with cibadmin --query")
	}
	w.rscDefaults = child(w.configuration, "rsc_defaults")
	w.opDefaults = child(w.configuration, "op_defaults")
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

// visit counts work and tells whether there may be more of it. Parse fails once there may not.
func (w *workingSet) visit() bool {
	w.visits++
	return w.visits <= maxVisits
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
