package reconcile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
)

// SnapshotFormat is the version of the snapshot's layout. It grows with every change that an older pgrex would
// misread.
const SnapshotFormat = 1

// Snapshot is everything that a plan is made from, as one JSON document. Encode leaves out what may hold a secret of
// others: node attributes that are neither the database's nor pgrex's, and of start_opt everything but the port.
type Snapshot struct {
	Format int       `json:"pgrex_snapshot"`
	Taken  time.Time `json:"taken"`
	Input  Input     `json:"input"`
}

// Encode writes the document, indented, with a newline at its end.
func (s Snapshot) Encode() ([]byte, error) {
	s.Format = SnapshotFormat
	s.Input = withoutOthers(s.Input)
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return append(model.PrintableJSON(data), '\n'), nil
}

// withoutOthers is an input without what is others'. It gives the same plan.
func withoutOthers(in Input) Input {
	if in.Cluster == nil {
		return in
	}
	c := *in.Cluster
	c.Nodes, c.Clones = slices.Clone(c.Nodes), slices.Clone(c.Clones)
	for i, n := range c.Nodes {
		c.Nodes[i].Permanent, c.Nodes[i].Transient = databases(c, n.Permanent), databases(c, n.Transient)
	}
	for i, clone := range c.Clones {
		if options, ok := clone.Parameters["start_opt"]; ok {
			c.Clones[i].Parameters = maps.Clone(clone.Parameters)
			c.Clones[i].Parameters["start_opt"] = portOption.FindString(options)
		}
	}
	in.Cluster = &c
	return in
}

// portOption is the port among PostgreSQL's options.
var portOption = regexp.MustCompile(`(?:^|\s)-p\s*['"]?[0-9]+['"]?`)

// databases are the attributes that the databases' agents and pgrex set.
func databases(c model.Cluster, attributes map[string]string) map[string]string {
	if attributes == nil {
		return nil
	}
	kept := map[string]string{}
	for name, value := range attributes {
		of := func(clone model.Clone) bool {
			return strings.HasPrefix(name, clone.Primitive+"-") || name == "master-"+clone.Primitive ||
				isFailCount(name, clone.Primitive)
		}
		if strings.HasPrefix(name, "pgrex-") || slices.ContainsFunc(c.Clones, of) {
			kept[name] = value
		}
	}
	return kept
}

// DecodeSnapshot reads a document. It refuses formats it does not know, unknown fields, and anything behind the
// document: a snapshot half understood would give another plan than on its host.
func DecodeSnapshot(data []byte) (Snapshot, error) {
	var head struct {
		Format int `json:"pgrex_snapshot"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Snapshot{}, fmt.Errorf("not a snapshot, or cut off: %w; take a new one with 'pgrex snapshot'", err)
	}
	switch {
	case head.Format == 0:
		return Snapshot{}, fmt.Errorf("not a snapshot: it has no pgrex_snapshot; take one with 'pgrex snapshot'")
	case head.Format != SnapshotFormat:
		return Snapshot{}, fmt.Errorf("snapshot format %d, but this pgrex reads %d only: use the pgrex that wrote it",
			head.Format, SnapshotFormat)
	}
	var s Snapshot
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w; take a new one with 'pgrex snapshot'", err)
	}
	return s, nil
}
