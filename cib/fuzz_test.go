package cib

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// FuzzParse looks for a CIB that makes the reader panic, take long or much memory, give an error of more than a line,
// or a cluster that cannot be relied on.
func FuzzParse(f *testing.F) {
	own, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range own {
		f.Add(readFile(f, file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		var err error
		memory := allocated(func() { _, err = written(data) })
		// Hundred times what it takes; a machine may be slow, and have other things to do.
		if took, limit := time.Since(start), 2*time.Second+time.Duration(len(data))*5*time.Microsecond; took > limit {
			t.Errorf("%d bytes took %v, more than %v", len(data), took, limit)
		}
		if limit := 64<<20 + 100*uint64(len(data)); memory > limit {
			t.Errorf("%d bytes took %d bytes of memory, more than %d", len(data), memory, limit)
		}
		if err != nil {
			if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\r\x00\x1b") {
				t.Errorf("error %q", text)
			}
			return
		}
		checkReliable(t, data)
	})
}

// checkReliable checks what everybody relies on in what is made of data.
func checkReliable(t *testing.T, data []byte) {
	t.Helper()
	first, err := written(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := Validate(first); err != nil {
		t.Error(err)
	}
	again, err := written(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("read again:\n%s", diff)
	}
	if _, err := json.Marshal(first); err != nil {
		t.Error(err)
	}
}

// FuzzReport looks for an answer of crm_mon that makes readReport panic, or roles that nobody may rely on: one that
// is settled on a node that is not online, or "stopped" where something is astray.
func FuzzReport(f *testing.F) {
	f.Add([]byte(reportOf(`<resource id="p:0" role="Promoted" managed="true"><node name="n1"/></resource><resource id="p:1" role="Starting"/>`)))
	f.Add([]byte(reportOf(`<group id="g"><resource id="p" role="Slave" orphaned="true" blocked="true"><node name="n2"/></resource></group>`)))
	f.Add([]byte(`<pacemaker-result api-version="2.25"><status code="78"><errors><error>no</error></errors></status></pacemaker-result>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readReport(data)
		if err != nil {
			if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\r\x00\x1b") {
				t.Errorf("error %q", text)
			}
			return
		}
		for id, c := range r.clones {
			roles, unsettled := r.roles(id, "p", map[string]bool{"n1": true, "n2": true})
			astray := slices.ContainsFunc(c.instances, func(i instance) bool {
				why := i.unsettled()
				return instanceOf(i.ID) == "p" && len(i.Nodes) == 0 && why != "" && why != model.UnsettledOrphaned
			})
			for node, role := range roles {
				if !slices.ContainsFunc(r.nodes, func(n model.Node) bool { return n.Name == node && n.Online }) {
					t.Errorf("%s on %q, which is not online", role, node)
				}
			}
			for node, role := range roles {
				has := slices.ContainsFunc(c.instances, func(i instance) bool {
					return slices.ContainsFunc(i.Nodes, func(n struct {
						Name string `xml:"name,attr"`
					}) bool {
						return model.SameNode(n.Name, node)
					})
				})
				if role == model.RoleStopped && astray && !has {
					t.Errorf("%q is stopped, though something is astray", node)
				}
			}
			for node, why := range unsettled {
				if why == "" {
					t.Errorf("%q is unsettled for no reason", node)
				}
			}
		}
	})
}
