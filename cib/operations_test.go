package cib

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// TestWatched: on-fail of every monitor, wherever it is written, and whether actions under way show.
func TestWatched(t *testing.T) {
	const rule = `<rule id="r" score="0"><expression id="e" attribute="x" operation="defined"/></rule>`
	meta := func(name, value, rule string) string {
		return `<meta_attributes id="m-` + name + value + `">` + rule + `<nvpair id="n-` + name + value + `" name="` + name + `" value="` + value + `"/></meta_attributes>`
	}
	const promoted = `<op id="p" name="monitor" interval="9s" role="Promoted"`
	for name, c := range map[string]struct {
		template, operations, defaults string
		want                           model.Watched
	}{
		"nothing":                   {"", "", "", model.Watched{Unmonitored: true}},
		"unset":                     {"", promoted + `/>`, "", model.Watched{}},
		"an attribute":              {"", promoted + ` on-fail="restart"/>`, "", model.Watched{OnFail: []string{"restart"}}},
		"another case":              {"", `<op id="p" name="monitor" role="MASTER" on-fail="Fence"/>`, "", model.Watched{OnFail: []string{"fence"}}},
		"a meta attribute":          {"", promoted + `>` + meta("on-fail", "block", "") + `</op>`, "", model.Watched{OnFail: []string{"block"}}},
		"an instance attribute":     {"", promoted + `><instance_attributes id="i"><nvpair id="n" name="on-fail" value="standby"/></instance_attributes></op>`, "", model.Watched{OnFail: []string{"standby"}}},
		"the default":               {"", promoted + `/>`, meta("on-fail", "fence", ""), model.Watched{OnFail: []string{"fence"}}},
		"rather than the default":   {"", promoted + ` on-fail="demote"/>`, meta("on-fail", "fence", ""), model.Watched{OnFail: []string{"demote"}}},
		"of another operation":      {"", promoted + `/><op id="s" name="stop" on-fail="fence"/>`, "", model.Watched{}},
		"of a demoted instance's":   {"", promoted + `/><op id="v" name="monitor" role="Unpromoted" on-fail="block"/>`, "", model.Watched{OnFail: []string{"block"}}},
		"of a monitor of no role":   {"", promoted + `/><op id="u" name="monitor" on-fail="fence"/>`, "", model.Watched{OnFail: []string{"fence"}}},
		"the default for a monitor": {"", promoted + ` on-fail="restart"/><op id="u" name="monitor" role="Slave"/>`, meta("on-fail", "fence", ""), model.Watched{OnFail: []string{"fence", "restart"}}},
		"by a rule, for a demoted":  {"", promoted + `/><op id="v" name="monitor" role="Slave">` + meta("on-fail", "restart", rule) + `</op>`, "", model.Watched{ByRule: true}},
		"no promoted monitor":       {"", `<op id="u" name="monitor" role="Slave"/>`, "", model.Watched{Unmonitored: true}},
		"disabled":                  {"", promoted + ` enabled="false"/>`, "", model.Watched{Unmonitored: true}},
		"disabled by a rule":        {"", promoted + `>` + meta("enabled", "true", rule) + `</op>`, "", model.Watched{Unmonitored: true}},
		"disabled by default":       {"", promoted + `/>`, meta("enabled", "no", ""), model.Watched{Unmonitored: true}},
		"enabled":                   {"", promoted + ` enabled="true"/>`, "", model.Watched{}},
		"one of two disabled":       {"", promoted + `/><op id="q" name="monitor" interval="3s" role="Master" enabled="off"/>`, "", model.Watched{Unmonitored: true}},
		"by a rule":                 {"", promoted + `>` + meta("on-fail", "restart", rule) + `</op>`, "", model.Watched{ByRule: true}},
		"the default by a rule":     {"", promoted + `/>`, meta("on-fail", "fence", rule), model.Watched{ByRule: true}},
		"two monitors":              {"", promoted + ` on-fail="restart"/><op id="q" name="monitor" interval="3s" role="Master" on-fail="fence"/>`, "", model.Watched{OnFail: []string{"fence", "restart"}}},
		"the template's":            {promoted + ` on-fail="fence"/>`, "", "", model.Watched{OnFail: []string{"fence"}}},
		"nothing recorded":          {"", promoted + `/>`, meta("record-pending", "false", ""), model.Watched{Unrecorded: true}},
		"a stop is not recorded":    {"", promoted + `/><op id="s" name="stop" record-pending="off"/>`, "", model.Watched{Unrecorded: true}},
		"all is recorded":           {"", promoted + ` record-pending="true"/>`, meta("record-pending", "true", ""), model.Watched{}},
		"recorded by a rule":        {"", promoted + `/>`, meta("record-pending", "true", rule), model.Watched{Unrecorded: true}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, err := written([]byte(cibStart + `<resources><template id="t" class="ocf" provider="heartbeat" type="pgsql"><operations id="to">` +
				c.template + `</operations></template><clone id="ms"><primitive id="pg" template="t"><operations id="o">` + c.operations +
				`</operations></primitive></clone></resources><op_defaults>` + c.defaults + `</op_defaults></configuration></cib>`))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, cluster.Clones[0].Watched); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}
