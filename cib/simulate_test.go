package cib

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ran is the entry that Pacemaker's controller writes into the CIB once a resource is active on a node.
func ran(node, resource, operation string) string {
	const noParameters = "f2317cad3d54cec5d7d7aa7d0bf35cf8" // as a digest; with another one Pacemaker would restart it
	const transition = "1:1:0:4fe152cd-0709-489f-be86-f616ea064e34"
	return fmt.Sprintf(`<lrm_resource id="%[1]s" class="ocf" provider="pacemaker" type="Stateful"><lrm_rsc_op id="%[1]s_last_0"`+
		` operation_key="%[1]s_%[2]s_0" operation="%[2]s" on_node="%[3]s" call-id="1" interval="0" op-status="0" rc-code="0"`+
		` transition-key="%[4]s" transition-magic="0:0;%[4]s" crm_feature_set="3.16.1" op-digest="%[5]s"/></lrm_resource>`,
		resource, operation, node, transition, noParameters)
}

// dependents makes the CIB of two nodes with a database, and with other resources, all active on pm01.
func dependents(clone, constraints string, resources ...string) string {
	var primitives, pm01 strings.Builder
	for _, id := range resources {
		fmt.Fprintf(&primitives, `<primitive id="%s" class="ocf" provider="pacemaker" type="Stateful"/>`, id)
		pm01.WriteString(ran("pm01", id, "start"))
	}
	node := func(id int, resources string) string {
		return fmt.Sprintf(`<node_state id="%[1]d" uname="pm0%[1]d" in_ccm="true" crmd="online" join="member" expected="member">`+
			`<lrm id="%[1]d"><lrm_resources>%[2]s</lrm_resources></lrm><transient_attributes id="%[1]d"><instance_attributes id="s%[1]d">`+
			`<nvpair id="s%[1]d-1" name="master-pgsql" value="%[3]d"/></instance_attributes></transient_attributes></node_state>`,
			id, resources, 1000/id)
	}
	return `<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0" have-quorum="1" dc-uuid="1">` +
		`<configuration><crm_config><cluster_property_set id="options"><nvpair id="fencing" name="stonith-enabled" value="false"/>` +
		`</cluster_property_set></crm_config><nodes><node id="1" uname="pm01"/><node id="2" uname="pm02"/></nodes><resources>` +
		`<clone id="ms"><meta_attributes id="meta"><nvpair id="meta-1" name="promotable" value="true"/></meta_attributes>` + clone +
		`</clone>` + primitives.String() + `</resources><constraints>` + constraints + `</constraints><rsc_defaults>` +
		`<meta_attributes id="defaults"><nvpair id="defaults-1" name="resource-stickiness" value="1000"/></meta_attributes></rsc_defaults></configuration><status>` +
		node(1, ran("pm01", "pgsql", "promote")+pm01.String()) + node(2, ran("pm02", "pgsql", "start")) + `</status></cib>`
}

// Pacemaker says which resources stop with a database on its node, and which go on. A resource depends on the database
// in a group with it, colocated with it, also through another resource, or ordered after it.
func TestAlsoStops(t *testing.T) {
	const database = `<primitive id="pgsql" class="ocf" provider="pacemaker" type="Stateful"/>`
	group := `<group id="both">` + database + `<primitive id="beside" class="ocf" provider="pacemaker" type="Stateful"/></group>`
	stays := `<rsc_location id="stays-there" rsc="there" node="pm02" score="-INFINITY"/>`
	for name, test := range map[string]struct {
		cib  string
		node string
		want []string
	}{
		"nothing depends on it": {dependents(database, "", "there"), "pm01", nil},
		"a little":              {dependents(database, `<rsc_colocation id="c" rsc="there" with-rsc="ms" score="100"/>`, "there"), "pm01", nil},
		"the primary needs it": {
			dependents(database, `<rsc_colocation id="c" rsc="ms" with-rsc="there" score="INFINITY"/>`, "there"), "pm01",
			[]string{"there on pm01: move to pm02"},
		},
		"colocated, and on another node": {
			dependents(database, `<rsc_colocation id="c" rsc="there" with-rsc="ms" score="INFINITY"/>`, "there"), "pm02", nil,
		},
		"colocated, also by way of another": {
			dependents(database, `<rsc_colocation id="c" rsc="there" with-rsc="ms" with-rsc-role="Master" score="INFINITY"/>`+
				`<rsc_colocation id="d" rsc="more" with-rsc="there" score="INFINITY"/>`, "there", "more", "other"), "pm01",
			[]string{"there on pm01: move to pm02", "more on pm01: move to pm02"},
		},
		"in a set, and nowhere else": {
			dependents(database, stays+`<rsc_colocation id="c" score="INFINITY"><resource_set id="s"><resource_ref id="ms"/>`+
				`<resource_ref id="there"/></resource_set></rsc_colocation>`, "there", "other"), "pm01",
			[]string{"there on pm01: stop"},
		},
		"ordered after it": {
			dependents(database, stays+`<rsc_location id="ms-there" rsc="ms" node="pm02" score="-INFINITY"/>`+
				`<rsc_order id="o" first="ms" then="there" kind="Mandatory"/>`, "there", "other"), "pm01",
			[]string{"there on pm01: stop"},
		},
		"in its group": {
			strings.Replace(dependents(group, ""), "<lrm_resources>", "<lrm_resources>"+ran("pm01", "beside", "promote"), 1), "pm01",
			[]string{"beside on pm01: stop"},
		},
		"kept away already": {
			dependents(database, stays+`<rsc_colocation id="c" rsc="there" with-rsc="ms" score="INFINITY"/>`+
				`<rsc_location id="pgrex-stop-pgsql-pm01" rsc="ms" node="pm01" score="-INFINITY"/>`, "there"), "pm01", nil,
		},
	} {
		for _, s := range systems(t) {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "cib.xml")
				if err := os.WriteFile(file, []byte(test.cib), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("CIB_file", file)
				t.Setenv("TMPDIR", t.TempDir())
				got, err := s.client().AlsoStops(t.Context(), "ms", "pgsql", test.node)
				if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
					t.Errorf("%v; (-wanted +got):\n%s", err, diff)
				}
				if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
					t.Errorf("it leaves %v, %v", left, err)
				}
			})
		}
	}
}
