package cib

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// A real CIB is far from what may be spent on it, whatever its size.
func TestEffortOfRealCIBs(t *testing.T) {
	cibs := map[string][]byte{}
	for _, size := range []int{15_000, 300_000, 5_000_000} {
		cibs[fmt.Sprintf("%d kB", size/1000)] = generatedCIB(size)
	}
	for _, file := range sharedCIBs(t) {
		cibs[file] = readFile(t, file)
	}
	for name, data := range cibs {
		root, err := readDocument(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		const plenty = 1 << 40
		w, err := newWorkingSet(root, plenty)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := w.understand(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if perByte := (plenty - w.effort) / len(data); perByte > effortPerByte/4 {
			t.Errorf("%s: an effort of %d a byte", name, perByte)
		}
	}
}

// Of the memory that Parse takes, encoding/xml alone takes five times the size.
func TestMemoryOfParse(t *testing.T) {
	for _, size := range []int{15_000, 300_000, 5_000_000} {
		data := generatedCIB(size)
		if memory, err := allocated(data); err != nil || memory > 12*uint64(len(data)) {
			t.Errorf("%d bytes took %d bytes of memory, more than 12 times as much (%v)", len(data), memory, err)
		}
	}
}

// growing are CIBs that grow with n, and would take time or memory that grows with its square or worse if it was not
// counted, or not limited.
var growing = map[string]struct {
	make    func(n int) string
	refused bool // at 8000
}{
	"a clone's instances on nodes": {func(n int) string {
		return cibOf(repeated(n, `<master id="m%[1]d"><primitive id="p%[1]d"/></master>`), repeated(n, `<node id="%[1]d" uname="n%[1]d"/>`), "")
	}, true},
	"bundles of many replicas": {func(n int) string {
		return cibOf(repeated(n, `<bundle id="b%d"><podman replicas="1000"/></bundle>`), "", "")
	}, true},
	"a bundle with a long name": {func(n int) string {
		return cibOf(`<bundle id="`+strings.Repeat("b", 20*n)+`"><podman replicas="1000"/></bundle>`, "", "")
	}, true},
	"members of a group": {func(n int) string {
		return cibOf(`<group id="g">`+repeated(n, `<primitive id="p%d"/>`)+`</group>`, "", "")
	}, true},
	"members with attributes of their group": {func(n int) string {
		return cibOf(`<master id="m"><group id="g"><meta_attributes id="x">`+repeated(n, `<nvpair name="%d" value="v"/>`)+
			`</meta_attributes>`+repeated(n, `<primitive id="p%d"/>`)+`</group></master>`, "", "")
	}, true},
	"references to a set of other things": {func(n int) string {
		return cibOf(`<primitive id="p"><meta_attributes id="a">`+strings.Repeat("<a/>", n)+`</meta_attributes>`+
			strings.Repeat(`<meta_attributes id-ref="a"/>`, n)+`</primitive>`, "", "")
	}, true},
	"references to a set with a long score": {func(n int) string {
		return cibOf(`<primitive id="p"><meta_attributes id="a" score="`+strings.Repeat("0", 20*n)+`1"/>`+
			strings.Repeat(`<meta_attributes id-ref="a"/>`, n)+`</primitive>`, "", "")
	}, true},
	"references to a long reference": {func(n int) string {
		return cibOf(`<primitive id="p"><meta_attributes id="a"><nvpair id-ref="`+strings.Repeat("0", 20*n)+`"/></meta_attributes>`+
			strings.Repeat(`<meta_attributes id-ref="a"/>`, n)+`</primitive>`, "", "")
	}, true},
	"a template of other things": {func(n int) string {
		return cibOf(`<template id="t">`+strings.Repeat("<a/>", n)+"</template>"+repeated(n, `<primitive id="p%d" template="t"/>`), "", "")
	}, true},
	"a primitive of many clones": {func(n int) string {
		return cibOf(repeated(n, `<master id="m%d"><primitive id="p"/></master>`), `<node id="1" uname="n"/>`,
			onlineState(1, repeated(n, `<lrm_resource id="p:%d"><lrm_rsc_op operation="notify"/></lrm_resource>`)))
	}, true},
	"operations of a long name": {func(n int) string {
		id := strings.Repeat("X", 20*n)
		return cibOf(`<primitive id="`+id+`"/>`, `<node id="1" uname="n1"/>`, onlineState(1, `<lrm_resource id="`+id+`">`+
			repeated(n, `<lrm_rsc_op operation="start" operation_key="%[1]d" call-id="%[1]d" rc-code="1" op-status="4"/>`)+`</lrm_resource>`))
	}, false},
	"operations, each configured": {func(n int) string {
		return cibOf(`<primitive id="p"><operations>`+repeated(n, `<op id="%[1]d" name="a%[1]d" interval="%[1]d"/>`)+`</operations></primitive>`,
			`<node id="1" uname="n1"/>`, onlineState(1, `<lrm_resource id="p">`+
				repeated(n, `<lrm_rsc_op operation="start" operation_key="p_b_%[1]d" call-id="%[1]d" rc-code="1" op-status="4"/>`)+`</lrm_resource>`))
	}, true},
	"migrations to a node of many monitors": {func(n int) string {
		return cibOf(`<primitive id="p"/>`, `<node id="1" uname="n1"/><node id="2" uname="n2"/>`,
			onlineState(1, `<lrm_resource id="p">`+repeated(n, `<lrm_rsc_op id="m%[1]d" operation="migrate_to" call-id="%[1]d" rc-code="0" `+
				`op-status="0" transition-key="1:1:0:u" migrate_source="n1" migrate_target="n2"/>`)+`</lrm_resource>`)+
				onlineState(2, `<lrm_resource id="p">`+strings.Repeat(`<lrm_rsc_op operation="monitor"/>`, n)+`</lrm_resource>`))
	}, true},
	"remote nodes that connect to the next": {func(n int) string {
		var status strings.Builder
		for i := n; i > 0; i-- {
			fmt.Fprintf(&status, `<node_state id="r%d" uname="r%[1]d"><lrm><lrm_resources>%s</lrm_resources></lrm></node_state>`, i-1, started(fmt.Sprintf("r%d", i)))
		}
		return cibOf(repeated(n, `<primitive id="r%d" class="ocf" provider="pacemaker" type="remote"/>`), `<node id="1" uname="n1"/>`,
			status.String()+onlineState(1, started("r0")))
	}, true},
	"guests within guests": {func(n int) string {
		var status strings.Builder
		for i := range n { // each runs in the two before it
			fmt.Fprintf(&status, `<node_state id="g%d" uname="g%[1]d"><lrm><lrm_resources>%s%s%s</lrm_resources></lrm></node_state>`,
				i, started(fmt.Sprintf("vm%d", i+1)), started(fmt.Sprintf("vm%d", i+2)), stopFailed)
		}
		return cibOf(repeated(n, `<primitive id="vm%[1]d"><meta_attributes><nvpair name="remote-node" value="g%[1]d"/></meta_attributes></primitive>`), "", status.String())
	}, true},
	"elements":   {func(n int) string { return cibOf(strings.Repeat("<a/>", 4*n), "", "") }, false},
	"attributes": {func(n int) string { return cibOf("<a "+strings.Repeat(`a=""`, 4*n)+"/>", "", "") }, false},
	"comments":   {func(n int) string { return cibOf(strings.Repeat("<!---->", 4*n), "", "") }, false},
	"texts":      {func(n int) string { return cibOf(strings.Repeat("<a/>x", 4*n), "", "") }, false},
}

func cibOf(resources, nodes, status string) string {
	return cibStart + `<nodes>` + nodes + `</nodes><resources>` + resources + `</resources></configuration><status>` + status + `</status></cib>`
}

func onlineState(id int, histories string) string {
	return fmt.Sprintf(`<node_state id="%d" uname="n%[1]d" in_ccm="true" crmd="online" join="member"><lrm><lrm_resources>%s</lrm_resources></lrm></node_state>`,
		id, histories)
}

func started(id string) string {
	return `<lrm_resource id="` + id + `"><lrm_rsc_op operation="start" operation_key="` + id + `_start_0" call-id="1" rc-code="0" op-status="0" ` +
		`transition-key="1:1:0:u"/></lrm_resource>`
}

// stopFailed makes Parse ask whether the node can be fenced.
const stopFailed = `<lrm_resource id="orphan"><lrm_rsc_op operation="stop" operation_key="orphan_stop_0" call-id="1" rc-code="5" op-status="0" ` +
	`transition-key="1:1:0:u"/></lrm_resource>`

// The effort grows with the size, and where a CIB would take more, that is noticed before it has been made.
func TestEffortGrowsWithSize(t *testing.T) {
	for name, c := range growing {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1000, 8000} {
				data := []byte(c.make(n))
				memory, err := allocated(data)
				if limit := memoryLimit(data); memory > limit {
					t.Errorf("n=%d: %d bytes took %d bytes of memory, more than %d", n, len(data), memory, limit)
				}
				if n == 8000 && (err != nil) != c.refused {
					t.Errorf("refused: %v", err)
				}
			}
		})
	}
}

// memoryLimit is what a CIB may take, in bytes allocated: more than what the effort allows for.
func memoryLimit(data []byte) uint64 { return 8<<20 + 100*uint64(len(data)) }

// allocated is what Parse allocates, in bytes.
func allocated(data []byte) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse(data)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// Histories may say that guest nodes run in a circle. That is no reason to go round for ever.
func TestGuestsWithinEachOther(t *testing.T) {
	guests := `<primitive id="vm1"><meta_attributes><nvpair name="remote-node" value="g1"/></meta_attributes></primitive>` +
		`<primitive id="vm2"><meta_attributes><nvpair name="remote-node" value="g2"/></meta_attributes></primitive>`
	state := func(name, vm string) string {
		return `<node_state id="` + name + `" uname="` + name + `"><lrm><lrm_resources>` + started(vm) + stopFailed + `</lrm_resources></lrm></node_state>`
	}
	for _, status := range []string{state("g1", "vm1"), state("g1", "vm2") + state("g2", "vm1")} {
		c, err := Parse([]byte(cibOf(guests, "", status)))
		if err != nil || len(c.Nodes) != 2 || c.Nodes[0].Online || c.Nodes[1].Online {
			t.Errorf("%s: %+v, %v", status, c.Nodes, err)
		}
	}
}
