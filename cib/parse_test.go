package cib

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// written is what is read of a CIB where crm_mon has nothing special to say: every node is online, every clone
// promotable, managed and without instances.
func written(data []byte) (model.Cluster, error) {
	d, err := parse(data)
	if err != nil {
		return model.Cluster{}, err
	}
	r := report{clones: map[string]reportedClone{}}
	for el := range children(child(d.configuration, "nodes"), "node") {
		r.nodes = append(r.nodes, model.Node{Name: attr(el, "uname"), ID: attr(el, "id"), Online: true})
	}
	for el := range children(child(d.configuration, "resources"), "clone", "master") {
		r.clones[attr(el, "id")] = reportedClone{promotable: true, isManaged: true}
	}
	return d.cluster(r)
}

const cibStart = `<cib epoch="1"><configuration>`

// Every refusal says what is wrong and what to do, in one line.
func TestParseErrors(t *testing.T) {
	const prefix = "the CIB cannot be understood: "
	cases := map[string]struct{ data, text string }{
		"empty":                 {"", "it is empty; query it again with cibadmin --query"},
		"white space":           {" \n\t", "it is empty; query it again with cibadmin --query"},
		"text":                  {"Could not connect", "it is not XML; query it again with cibadmin --query"},
		"JSON":                  {`{"cib":1}`, "it is not XML; query it again with cibadmin --query"},
		"comment only":          {"<!-- a CIB? -->", "it is not XML; query it again with cibadmin --query"},
		"cut off within a tag":  {`<cib epoch="1" num_up`, "it is cut off, or its tags do not match; query it again with cibadmin --query"},
		"cut off between tags":  {cibStart + "<nodes>", "it is cut off, or its tags do not match; query it again with cibadmin --query"},
		"tags that do not meet": {"<cib><configuration></cib></configuration>", "it is cut off, or its tags do not match; query it again with cibadmin --query"},
		"text around": {"hello <cib><configuration/></cib>",
			"there is text beside <cib>; query it again with cibadmin --query"},
		"another document": {`<pacemaker-result api-version="2.25"/>`,
			"its root element is <pacemaker-result> and not <cib>; query the whole CIB with cibadmin --query"},
		"another namespace": {`<x:cib xmlns:x="y"><configuration/></x:cib>`,
			"its root element is <x:cib> and not <cib>; query the whole CIB with cibadmin --query"},
		"two documents": {"<cib><configuration/></cib><cib/>", "more follows after </cib>; query it again with cibadmin --query"},
		"no configuration": {`<cib epoch="1"><status/></cib>`,
			"it has no <configuration>; query the whole CIB with cibadmin --query"},
		"epoch": {`<cib epoch="seven"><configuration/></cib>`,
			`its epoch is "seven" and not a number; check the CIB with crm_verify --live-check`},
		"negative epoch": {`<cib epoch="-7"><configuration/></cib>`,
			`its epoch is "-7" and not a number; check the CIB with crm_verify --live-check`},
		"control character": {"<cib epoch=\"1\x01\"><configuration/></cib>",
			"it is not XML (XML syntax error on line 1: illegal character code U+0001); query it again with cibadmin --query"},
		"not UTF-8": {"<cib epoch=\"\xff\"><configuration/></cib>",
			"it is not XML (XML syntax error on line 1: invalid UTF-8); query it again with cibadmin --query"},
		"encoding": {`<?xml version="1.0" encoding="EBCDIC"?><cib><configuration/></cib>`,
			"it is not XML (xml: opening charset \"EBCDIC\": its encoding is not UTF-8); query it again with cibadmin --query"},
		"unknown entity": {`<!DOCTYPE cib [<!ENTITY a "aaaa">]><cib epoch="&a;"><configuration/></cib>`,
			"it is not XML (XML syntax error on line 1: invalid character entity &a;); query it again with cibadmin --query"},
		"deep": {cibStart + strings.Repeat("<a>", 100), "its elements are nested more than 64 deep; is this a CIB?"},
		"very deep": {strings.Repeat("<a>", 4_000_000),
			"it has more than 1000000 tags or 1500000 attributes; is this a CIB?"},
		"attributes": {"<cib " + strings.Repeat(`a="" `, 2_000_000) + "/>",
			"it has more than 1000000 tags or 1500000 attributes; is this a CIB?"},
		"20 MB": {cibStart + strings.Repeat(" ", 20_000_000), "it has 20000030 bytes, more than the limit of 16777216; is this a CIB?"},
		"two nodes of one name": {cibStart + `<nodes><node id="1" uname="pm01"/><node id="5" uname="PM01"/></nodes></configuration></cib>`,
			`two nodes are named "pm01" (ids "5" and "1"); remove the one that is gone with crm_node --remove`},
		"node without a name": {cibStart + `<nodes><node id="1"/></nodes></configuration></cib>`,
			`the node with id "1" has no name; remove it with crm_node --remove`},
		"one clone twice": {cibStart + `<resources>` + strings.Repeat(`<master id="ms"><primitive id="pg"/></master>`, 2) + `</resources></configuration></cib>`,
			`the clone "ms" holds "pg" twice; check the CIB with crm_verify --live-check`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := written([]byte(c.data))
			checkError(t, err, ErrUnparseable, prefix+c.text)
		})
	}
}

// What is small but refers to itself again and again must not take forever.
func TestReferencesAreBounded(t *testing.T) {
	pairs := strings.Repeat(`<nvpair name="n" value="v"/>`, 5000)
	others := strings.Repeat(`<a/>`, 5000)
	for name, resources := range map[string]string{
		"pairs": `<master id="ms"><primitive id="pg"><instance_attributes id="a">` + pairs + `</instance_attributes>` +
			strings.Repeat(`<instance_attributes id-ref="a"/>`, 5000) + `</primitive></master>`,
		"other things": `<master id="ms"><primitive id="pg"><instance_attributes id="a">` + others + `</instance_attributes>` +
			strings.Repeat(`<instance_attributes id-ref="a"/>`, 5000) + `</primitive></master>`,
		"a template": `<template id="t">` + others + `</template>` + repeated(5000, `<master id="ms%[1]d"><primitive id="p%[1]d" template="t"/></master>`),
		"a template's pairs": `<template id="t"><meta_attributes id="m">` + pairs + `</meta_attributes></template>` +
			repeated(5000, `<master id="ms%[1]d"><primitive id="p%[1]d" template="t"/></master>`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := written([]byte(cibStart + `<nodes><node id="1" uname="n"/></nodes><resources>` + resources + `</resources></configuration></cib>`))
			checkError(t, err, ErrUnparseable, "the CIB cannot be understood: its parts refer to each other too often; "+
				"look for attribute sets or templates that very many resources share")
		})
	}
}

func repeated(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// References that lead back to themselves end.
func TestParseCycles(t *testing.T) {
	c, err := written([]byte(cibStart + `<resources>
		<template id="t1" template="t2" class="ocf" type="x"/><template id="t2" template="t1" class="ocf" type="x"/>
		<master id="ms1"><primitive id="a" template="t1"><instance_attributes id="s" id-ref="s"><nvpair id="p" id-ref="p" name="pgdata"/></instance_attributes></primitive></master>
		<master id="ms2"><primitive id="b" template="b"/></master>
		<master id="ms3"><primitive id="c" template="nowhere"/></master>
		<master id="ms4"><master id="ms5"><primitive id="d"/></master></master>
		</resources></configuration></cib>`))
	if err != nil {
		t.Fatal(err)
	}
	// That crm_mon lists no clone whose template is not there is not known here.
	none, watched := map[string]model.Role{}, model.Watched{Unmonitored: true}
	want := []model.Clone{
		{ID: "ms1", Primitive: "a", Agent: "ocf:x", Managed: true, Roles: none, Watched: watched},
		{ID: "ms2", Primitive: "b", Agent: ":", Managed: true, Roles: none, Watched: watched},
		{ID: "ms3", Primitive: "c", Agent: ":", Managed: true, Roles: none, Watched: watched},
	}
	if diff := cmp.Diff(want, c.Clones); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// Whatever is doubtful counts as out of Pacemaker's hands.
func TestRulesThatMayUnmanage(t *testing.T) {
	const rule = `<rule id="r" score="0"><expression id="e" attribute="x" operation="defined"/></rule>`
	parse := func(crmConfig, meta string) model.Cluster {
		c, err := written([]byte(cibStart + `<crm_config>` + crmConfig + `</crm_config><resources><master id="ms"><primitive id="pg">` + meta +
			`</primitive></master></resources></configuration></cib>`))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cases := []struct {
		crmConfig, meta      string
		maintenance, managed bool
	}{
		{"", "", false, true},
		{`<cluster_property_set id="a">` + rule + `<nvpair name="maintenance-mode" value="true"/></cluster_property_set>`, "", true, false},
		{`<cluster_property_set id="a">` + rule + `<nvpair name="maintenance-mode" value="false"/></cluster_property_set>`, "", false, true},
		{"", `<meta_attributes id="a">` + rule + `<nvpair name="is-managed" value="false"/></meta_attributes>`, false, false},
		{"", `<meta_attributes id="a">` + rule + `<nvpair name="maintenance" value="on"/></meta_attributes>`, false, false},
		{"", `<meta_attributes id="a">` + rule + `<nvpair name="is-managed" value="false"/></meta_attributes>` +
			`<meta_attributes id="b" score="1"><nvpair name="is-managed" value="true"/></meta_attributes>`, false, true},
	}
	for _, c := range cases {
		got := parse(c.crmConfig, c.meta)
		if got.Maintenance != c.maintenance || got.Clones[0].Managed != c.managed {
			t.Errorf("%s%s: maintenance=%t managed=%t", c.crmConfig, c.meta, got.Maintenance, got.Clones[0].Managed)
		}
	}
}

// A constraint with a rule is known if it may keep the database away. So is stop-all-resources.
func TestRulesThatMayKeepAway(t *testing.T) {
	for _, c := range []struct {
		location string
		ids      string
	}{
		{`<rsc_location id="cli-ban-ms-on-pm01" rsc="ms"><rule id="r" score="-INFINITY"/></rsc_location>`, "cli-ban-ms-on-pm01"},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="-INFINITY"/></rsc_location>`, "l"},
		{`<rsc_location id="l" rsc="pg"><rule id="r" score="5"/><rule id="s" score="-5"/></rsc_location>`, "l"},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score-attribute="x"/></rsc_location>`, "l"},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="-INFINITY"><expression attribute="#uname" operation="eq" value="pm01"/></rule></rsc_location>`, "l"},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="-INFINITY"><expression attribute="ping" operation="lt" value="1"/><date_expression/></rule></rsc_location>`, "l"},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="-INFINITY" boolean-op="or"><expression attribute="default_ping_set" operation="not_defined"/>` +
			`<rule><expression attribute="default_ping_set" operation="lt" value="100"/></rule></rule></rsc_location>`, ""},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="+INFINITY"/><rule id="s" score="100"/></rsc_location>`, ""},
		{`<rsc_location id="l" rsc="other"><rule id="r" score="-INFINITY"/></rsc_location>`, ""},
		{`<rsc_location id="l" rsc="ms"><rule id="r" score="-INFINITY" role="Promoted"><expression attribute="#uname" operation="eq" value="pm02"/></rule></rsc_location>`, "lPromoted"},
		{`<rsc_location id="l" rsc-pattern="^m" node="n" score="-INFINITY"/>`, "l"},
		{`<rsc_location id="l" rsc-pattern="^x" node="n" score="-INFINITY"/>`, ""},
		{`<rsc_location id="l" rsc-pattern="!^x" node="n" score="-INFINITY"/>`, "l"},
		{`<rsc_location id="l" rsc-pattern="^pg" node="n" score="-INFINITY"/>`, ""},
		{`<rsc_location id="l" rsc-pattern="!^(ms|other)$" node="n" score="-INFINITY"/>`, ""},
		{`<rsc_location id="l" rsc-pattern="(" node="n" score="-INFINITY"/>`, ""},
		{`<rsc_location id="l" node="n" score="-INFINITY"><resource_set id="s"><resource_ref id="other"/></resource_set></rsc_location>`, ""},
		{`<rsc_location id="l" node="n" score="0"><resource_set id="s" role="Promoted" score="-INFINITY"><resource_ref id="other"/><resource_ref id="ms"/>` +
			`</resource_set></rsc_location>`, "lPromoted"},
	} {
		got, err := written([]byte(cibStart + `<crm_config><cluster_property_set id="a"><nvpair id="p" name="stop-all-resources" value="on"/></cluster_property_set>` +
			`</crm_config><resources><master id="ms"><primitive id="pg"/></master></resources><constraints>` + c.location +
			`</constraints></configuration></cib>`))
		if err != nil {
			t.Fatal(err)
		}
		ids := ""
		for _, l := range got.Clones[0].Locations {
			ids += l.ID + l.Role
			if l.Node != "" && l.Score != "-INFINITY" {
				t.Errorf("%s: %+v", c.location, l)
			}
		}
		if ids != c.ids || !got.StopAll {
			t.Errorf("%s: %q, stop-all-resources %t", c.location, ids, got.StopAll)
		}
	}
}

func TestValidate(t *testing.T) {
	good := func() model.Cluster {
		return model.Cluster{
			DC: "pm01", Nodes: []model.Node{{Name: "pm01", ID: "1"}, {Name: "pm02", ID: "2"}},
			Clones: []model.Clone{{ID: "ms", Primitive: "pg", Roles: map[string]model.Role{"pm01": model.RolePromoted}}},
		}
	}
	if err := Validate(good()); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		spoil func(*model.Cluster)
		text  string
	}{
		"order":      {func(c *model.Cluster) { c.Nodes[0].Name = "pm03"; c.DC = "" }, `the nodes "pm03" and "pm02" are out of order`},
		"DC":         {func(c *model.Cluster) { c.DC = "pm09" }, `the DC "pm09" is not among the nodes`},
		"stranger":   {func(c *model.Cluster) { c.Clones[0].Roles["pm09"] = model.RoleStopped }, `the clone "ms" has a role on "pm09", which is not among the nodes`},
		"role":       {func(c *model.Cluster) { c.Clones[0].Roles["pm02"] = "master" }, `the clone "ms" has the unknown role "master" on "pm02"`},
		"same clone": {func(c *model.Cluster) { c.Clones = append(c.Clones, c.Clones[0]) }, `the clone "ms" holds "pg" twice; check the CIB with crm_verify --live-check`},
	}
	unsettled := good()
	unsettled.Clones[0].Unsettled = map[string]model.Unsettled{"pm09": model.UnsettledFailed}
	checkError(t, Validate(unsettled), ErrUnparseable, `the CIB cannot be understood: the clone "ms" has a role on "pm09", which is not among the nodes`)
	for name, c := range cases {
		cluster := good()
		c.spoil(&cluster)
		t.Run(name, func(t *testing.T) {
			checkError(t, Validate(cluster), ErrUnparseable, "the CIB cannot be understood: "+c.text)
		})
	}
}
