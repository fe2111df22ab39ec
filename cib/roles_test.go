package cib

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// reportOf is an answer of crm_mon about the clone ms, in a cluster whose nodes n1 to n3 are online and n4 is not.
func reportOf(instances string) string {
	nodes := ""
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		online := "true"
		if n == "n4" {
			online = "false"
		}
		nodes += `<node name="` + n + `" id="` + n + `" online="` + online + `" standby="false" maintenance="false" pending="false" unclean="false"/>`
	}
	return `<pacemaker-result api-version="2.25" request="crm_mon"><summary><current_dc present="true" name="n1"/></summary><nodes>` + nodes +
		`</nodes><resources><clone id="ms" multi_state="true" managed="true">` + instances + `</clone></resources><status code="0" message="OK"/></pacemaker-result>`
}

func row(role, attributes string, nodes ...string) string {
	text := `<resource id="p" role="` + role + `" managed="true" ` + attributes + `>`
	for _, n := range nodes {
		text += `<node name="` + n + `"/>`
	}
	return text + "</resource>"
}

// An operation of the primitive has ended on n1, n2 and n4.
func TestRoles(t *testing.T) {
	type roles = map[string]model.Role
	type unsettled = map[string]model.Unsettled
	for name, c := range map[string]struct {
		rows      string
		roles     roles
		unsettled unsettled
	}{
		"the words of today":      {row("Promoted", "", "n1") + row("Unpromoted", "", "n2"), roles{"n1": "promoted", "n2": "unpromoted"}, nil},
		"the words of 2.0":        {row("Master", "", "n1") + row("Slave", "", "n2"), roles{"n1": "promoted", "n2": "unpromoted"}, nil},
		"without a row":           {row("Promoted", "", "n1") + row("Stopped", ""), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"another case":            {row("Promoted", "", "N1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"with a number":           {strings.ReplaceAll(row("Promoted", "", "n1"), `"p"`, `"p:12"`), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"of another primitive":    {strings.ReplaceAll(row("Promoted", "", "n1"), `"p"`, `"q"`), roles{"n1": "stopped", "n2": "stopped"}, nil},
		"in a group":              {`<group id="g:0">` + row("Promoted", "", "n1") + `</group>`, roles{"n1": "promoted", "n2": "stopped"}, nil},
		"an action":               {row("Demoting", "", "n1"), roles{"n2": "stopped"}, unsettled{"n1": "demoting"}},
		"an action somewhere":     {row("Stopping", "") + row("Promoted", "", "n1"), roles{"n1": "promoted"}, nil},
		"a probe somewhere":       {row("Stopped", `pending="Checking"`), roles{}, nil},
		"blocked somewhere":       {row("Stopped", `blocked="true"`), roles{}, nil},
		"an orphan that is gone":  {row("Stopped", `orphaned="true"`) + row("Promoted", "", "n1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"a first monitor":         {row("Promoted", `pending="Monitoring"`, "n1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"something else pending":  {row("Promoted", `pending="Notifying"`, "n1"), roles{"n1": "promoted", "n2": "stopped"}, unsettled{"n1": "pending"}},
		"failed":                  {row("Promoted", `failed="true"`, "n1"), roles{"n1": "promoted", "n2": "stopped"}, unsettled{"n1": "failed"}},
		"failed, and ignored":     {row("Promoted", `failed="true" failure_ignored="true"`, "n1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"failed and blocked":      {row("Unpromoted", `failed="true" blocked="true"`, "n1"), roles{"n1": "unpromoted", "n2": "stopped"}, unsettled{"n1": "blocked"}},
		"orphaned":                {row("Unpromoted", `orphaned="true"`, "n1"), roles{"n1": "unpromoted", "n2": "stopped"}, unsettled{"n1": "orphaned"}},
		"removed, since 3.0.2":    {row("Unpromoted", `removed="true"`, "n1"), roles{"n1": "unpromoted", "n2": "stopped"}, unsettled{"n1": "orphaned"}},
		"a word of a release yet": {row("Hibernating", "", "n1"), roles{"n2": "stopped"}, unsettled{"n1": "pending"}},
		"on several nodes":        {row("Unpromoted", "", "n1", "n2"), roles{"n1": "unpromoted", "n2": "unpromoted"}, nil},
		"twice on one":            {row("Unpromoted", "", "n1") + row("Promoted", "", "n1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"twice, one failed":       {row("Unpromoted", `failed="true"`, "n1") + row("Promoted", "", "n1"), roles{"n1": "promoted", "n2": "stopped"}, unsettled{"n1": "failed"}},
		"offline, promoted":       {row("Promoted", `failed="true"`, "n4"), roles{"n1": "stopped", "n2": "stopped"}, unsettled{"n4": "promoted"}},
		"offline, a standby":      {row("Slave", "", "n4"), roles{"n1": "stopped", "n2": "stopped"}, unsettled{"n4": "unpromoted"}},
		"unclean, and no row":     {"UNCLEAN" + row("Promoted", "", "n1"), roles{"n1": "promoted", "n2": "stopped"}, unsettled{"n4": "unknown"}},
		"unclean, to be fenced":   {"FENCING" + row("Promoted", "", "n1"), roles{"n1": "promoted", "n2": "stopped"}, nil},
		"unclean, with a row":     {"UNCLEAN" + row("Unpromoted", "", "n4"), roles{"n1": "stopped", "n2": "stopped"}, unsettled{"n4": "unpromoted"}},
		"offline, in an action":   {row("Promoting", "", "n4"), roles{"n1": "stopped", "n2": "stopped"}, unsettled{"n4": "promoting"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := reportOf(c.rows)
			if rows, unclean := strings.CutPrefix(c.rows, "UNCLEAN"); unclean {
				text = strings.Replace(reportOf(rows), `online="false" standby="false" maintenance="false" pending="false" unclean="false"`, `online="false" unclean="true"`, 1)
			}
			if rows, unclean := strings.CutPrefix(c.rows, "FENCING"); unclean {
				text = strings.Replace(reportOf(rows), `online="false" standby="false" maintenance="false" pending="false" unclean="false"`, `online="false" unclean="true"`, 1)
				text = strings.Replace(text, "</summary>", `<cluster_options stonith-enabled="true" maintenance-mode="false"/></summary>`, 1)
			}
			r, err := readReport([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			roles, unsettled := r.roles("ms", "p", map[string]bool{"n1": true, "n2": true, "n4": true})
			if diff := cmp.Diff(c.roles, roles); diff != "" {
				t.Errorf("roles: want (-), got (+):\n%s", diff)
			}
			if diff := cmp.Diff(c.unsettled, unsettled); diff != "" {
				t.Errorf("unsettled: want (-), got (+):\n%s", diff)
			}
		})
	}
}

// An instance that Pacemaker may not touch makes the clone unmanaged, unless that is the node's or the instance's own
// matter.
func TestManaged(t *testing.T) {
	hands := func(text string) string { return strings.ReplaceAll(text, `managed="true"`, `managed="false"`) }
	for name, c := range map[string]struct {
		answer  string
		managed bool
	}{
		"managed":              {reportOf(row("Promoted", "", "n1")), true},
		"the clone is not":     {hands(reportOf("")), false},
		"an instance is not":   {reportOf(hands(row("Promoted", "", "n1"))), false},
		"a stopped one is not": {reportOf(hands(row("Stopped", ""))), false},
		"blocked":              {reportOf(hands(row("Unpromoted", `blocked="true"`, "n1"))), true},
		"of another primitive": {reportOf(strings.ReplaceAll(hands(row("Promoted", "", "n1")), `"p"`, `"q"`)), true},
		"of a node in maintenance": {strings.Replace(reportOf(hands(row("Promoted", "", "n1"))),
			`maintenance="false"`, `maintenance="true"`, 1), true},
	} {
		r, err := readReport([]byte(c.answer))
		if err != nil {
			t.Fatal(err)
		}
		if managed := r.clones["ms"].managed("p", r.nodes); managed != c.managed {
			t.Errorf("%s: %t", name, managed)
		}
	}
}

// An answer counts only when it is whole, says that all went well, and is of a kind that we know.
func TestReportIsNotBelieved(t *testing.T) {
	whole := reportOf(row("Promoted", "", "n1"))
	for name, c := range map[string]struct{ answer, text string }{
		"nothing":      {"", "it is empty or cut off"},
		"text":         {"Connection to cluster failed", "it is empty or cut off"},
		"half":         {whole[:len(whole)/2], "it is not Pacemaker's XML, or cut off"},
		"all but one":  {whole[:len(whole)-1], "it is not Pacemaker's XML, or cut off"},
		"twice":        {whole + whole, "more follows after it"},
		"and text":     {whole + "garbage", "more follows after it"},
		"and a tag":    {whole + "<b/>", "more follows after it"},
		"and a half":   {whole + "<b", "more follows after it"},
		"another kind": {`<crm_mon version="2.0.1"/>`, "it is not Pacemaker's XML, or cut off"},
		"no status":    {strings.Replace(whole, `<status code="0" message="OK"/>`, "", 1), "it has no status"},
		"a bad status": {strings.Replace(whole, `code="0" message="OK"`, `code="102" message="Not connected"`, 1), "it has status 102, Not connected"},
		"errors": {strings.Replace(whole, `<status code="0" message="OK"/>`, `<status code="0" message="OK"><errors><error>no schema</error></errors></status>`, 1),
			"it has status 0, OK: no schema"},
		"no nodes":        {`<pacemaker-result api-version="2.25"><status code="0" message="OK"/></pacemaker-result>`, "it has status 0, OK"},
		"a later API":     {strings.Replace(whole, "2.25", "3.0", 1), `its api-version is "3.0", and this pgrex knows 2; use a newer pgrex`},
		"no API":          {strings.Replace(whole, ` api-version="2.25"`, "", 1), `its api-version is ""`},
		"not even a bool": {strings.Replace(whole, `online="true"`, `online="perhaps"`, 1), "it is not Pacemaker's XML, or cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := readReport([]byte(c.answer))
			if err == nil || !strings.HasPrefix(err.Error(), "the CIB cannot be understood: crm_mon's answer is not understood: "+c.text) {
				t.Errorf("%v, %v", err, r)
			}
		})
	}
}
