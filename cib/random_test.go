package cib

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// What operations and states may look like that nobody ever captured, Pacemaker still has an opinion about.
func TestParseAgreesWithCrmMonOnRandomCIBs(t *testing.T) {
	crmMon, err := exec.LookPath("crm_mon")
	if err != nil {
		t.Fatal("crm_mon is not installed; install pacemaker-cli-utils")
	}
	var judged atomic.Int64
	t.Cleanup(func() { // the cases run in parallel and are over by now
		if judged.Load() < int64(randomCIBs)*8/10 {
			t.Errorf("crm_mon judged only %d of %d CIBs", judged.Load(), randomCIBs)
		}
	})
	for seed := range uint64(randomCIBs) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			data := randomCIB(rand.New(rand.NewPCG(seed, 1)))
			cluster, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			judgement, crashed := runCrmMon(t, crmMon, data)
			if crashed { // it does on some impossible histories; there is no verdict then
				return
			}
			judged.Add(1)
			if diff := diffViews(judgement, cluster); diff != "" {
				t.Errorf("crm_mon (-) and Parse (+) differ:\n%s\n%s", diff, data)
			}
		})
	}
}

// randomCIBs takes a few seconds. PGREX_RANDOM_CIBS sets how many; of the first 13,000 none differs.
// One thing that is not followed: Pacemaker numbers the instances of an anonymous clone as it goes, and a number that
// one node's failure made unmanaged stays so for the next node that is given it.
var randomCIBs = cmp.Or(integer(os.Getenv("PGREX_RANDOM_CIBS"), 0), 120)

// pick chooses one; the first as often as all others together, so that most of a CIB is sane.
func pick(r *rand.Rand, choices ...string) string {
	if r.IntN(2) == 0 {
		return choices[0]
	}
	return choices[r.IntN(len(choices))]
}

func pairs(id string, kv ...string) string {
	var b strings.Builder
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] != "" {
			fmt.Fprintf(&b, `<nvpair id="%s-%s" name="%s" value="%s"/>`, id, kv[i], kv[i], kv[i+1])
		}
	}
	return b.String()
}

func randomCIB(r *rand.Rand) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<cib crm_feature_set="3.16.1" validate-with="none" epoch="%d" num_updates="1" admin_epoch="0" have-quorum="%s" no-quorum-panic="%s" dc-uuid="%s">`,
		r.IntN(99), pick(r, "1", "0"), pick(r, "0", "1"), pick(r, "1", "2", "9"))
	fmt.Fprintf(&b, `<configuration><crm_config><cluster_property_set id="o">%s</cluster_property_set></crm_config><nodes>`,
		pairs("o", "stonith-enabled", pick(r, "false", "true", "", "maybe"), "no-quorum-policy", pick(r, "ignore", "stop", "suicide", "freeze", ""),
			"startup-fencing", pick(r, "", "false"), "maintenance-mode", pick(r, "", "true"), "stop-orphan-resources", pick(r, "", "false"),
			"have-watchdog", pick(r, "false", "true"), "shutdown-lock", pick(r, "", "", "", "true")))
	for n := 1; n <= 3; n++ {
		fmt.Fprintf(&b, `<node id="%d" uname="pm%d"%s><instance_attributes id="n%d">%s</instance_attributes></node>`, n, n,
			pick(r, "", "", "", ` type="member"`, ` type="ping"`), n, pairs("n"+strconv.Itoa(n),
				"standby", pick(r, "", "on", "off"), "maintenance", pick(r, "", "", "true"), "terminate", pick(r, "", "", "", "true", "17")))
	}
	b.WriteString(`</nodes><resources>`)
	randomResources(r, &b)
	fmt.Fprintf(&b, `</resources><constraints/><op_defaults><meta_attributes id="od">%s</meta_attributes></op_defaults></configuration><status>`,
		pairs("od", "on-fail", pick(r, "", "", "", "ignore", "standby", "block")))
	for n := 1; n <= 3; n++ {
		if r.IntN(10) > 0 {
			randomState(r, &b, n)
		}
	}
	b.WriteString(`</status></cib>`)
	return []byte(b.String())
}

func randomResources(r *rand.Rand, b *strings.Builder) {
	meta := func(id string) string {
		return fmt.Sprintf(`<meta_attributes id="%s-m">%s</meta_attributes>`, id, pairs(id+"-m",
			"is-managed", pick(r, "", "", "", "false", "true", "default"), "maintenance", pick(r, "", "", "", "", "true"),
			"multiple-active", ""))
	}
	primitive := func(id string) {
		fmt.Fprintf(b, `<primitive id="%s" class="ocf" provider="heartbeat" type="pgsql">%s<operations>`, id, meta(id))
		for i, op := range []string{
			`name="start" interval="0"`, `name="stop" interval="0s"`, `name="monitor" interval="10s"`,
			`name="monitor" role="Master" interval="9000ms"`, `name="promote" interval="0"`, `name="demote" interval="0"`,
		} {
			if r.IntN(2) == 0 {
				fmt.Fprintf(b, `<op id="%s-o%d" %s%s/>`, id, i, op,
					pick(r, "", ` on-fail="ignore"`, ` on-fail="fence"`, ` on-fail="standby"`, ` on-fail="block"`, ` on-fail="demote"`, ` on-fail="stop"`))
			}
		}
		b.WriteString(`</operations></primitive>`)
	}
	primitive("vip")
	clone := pick(r, "clone", "master")
	unique := pick(r, "", "", "true")
	fmt.Fprintf(b, `<%s id="ms"><meta_attributes id="ms-m">%s</meta_attributes>`, clone, pairs("ms-m", "promotable", pick(r, "true", "yes", ""),
		"globally-unique", unique, "clone-max", pick(r, "", "3", "2", "0"), "is-managed", pick(r, "", "", "", "false")))
	primitive("pgsql")
	fmt.Fprintf(b, `</%s><clone id="gc"><meta_attributes id="gc-m">%s</meta_attributes><group id="g">`, clone, pairs("gc-m", "promotable", "1"))
	primitive("ga")
	primitive("gb")
	b.WriteString(`</group></clone>`)
	if r.IntN(2) == 0 {
		fmt.Fprintf(b, `<primitive id="far" class="ocf" provider="pacemaker" type="remote">%s</primitive>`, meta("far"))
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(b, `<primitive id="vm" class="ocf" provider="heartbeat" type="VirtualDomain"><meta_attributes id="vm-m">%s</meta_attributes></primitive>`,
			pairs("vm-m", "remote-node", "guest1", "is-managed", pick(r, "", "", "false")))
	}
	if r.IntN(2) == 0 {
		b.WriteString(`<primitive id="fencer" class="stonith" type="fence_dummy"/>`)
	}
}

func randomState(r *rand.Rand, b *strings.Builder, n int) {
	fmt.Fprintf(b, `<node_state id="%d" uname="pm%d" in_ccm="%s" crmd="%s" join="%s" expected="%s">`, n, n,
		pick(r, "true", "true", "false", "1"), pick(r, "online", "online", "offline"),
		pick(r, "member", "member", "pending", "down", "banned", "odd"), pick(r, "member", "member", "down"))
	fmt.Fprintf(b, `<transient_attributes id="%d"><instance_attributes id="t%d">%s</instance_attributes></transient_attributes><lrm id="%d"><lrm_resources>`,
		n, n, pairs("t"+strconv.Itoa(n), "shutdown", pick(r, "", "", "", "0", "1700000000"), "standby", pick(r, "", "", "true", "off")), n)
	for _, id := range []string{"vip", pick(r, "far", "vm"), pick(r, "guest1", "vm"), pick(r, "pgsql", fmt.Sprintf("pgsql:%d", n-1)), "ga", pick(r, "gb", "gb:1"), pick(r, "", "orphan", "ms")} {
		if id != "" && r.IntN(6) > 0 {
			randomHistory(r, b, id)
		}
	}
	b.WriteString(`</lrm_resources></lrm></node_state>`)
	if n == 3 {
		randomRemoteState(r, b, "far")
		randomRemoteState(r, b, "guest1")
	}
}

func randomRemoteState(r *rand.Rand, b *strings.Builder, name string) {
	fmt.Fprintf(b, `<node_state id="%[1]s" uname="%[1]s" remote_node="true" node_fenced="%[2]s"><transient_attributes id="%[1]s">`+
		`<instance_attributes id="t-%[1]s">%[3]s</instance_attributes></transient_attributes><lrm id="%[1]s"><lrm_resources>`,
		name, pick(r, "0", "1"), pairs("t"+name, "maintenance", pick(r, "", "true"), "standby", pick(r, "", "true"), "shutdown", pick(r, "", "", "1700000000")))
	for _, id := range []string{pick(r, "pgsql", "vip"), "ga"} {
		if r.IntN(2) == 0 {
			randomHistory(r, b, id)
		}
	}
	b.WriteString(`</lrm_resources></lrm></node_state>`)
}

func randomHistory(r *rand.Rand, b *strings.Builder, id string) {
	fmt.Fprintf(b, `<lrm_resource id="%s" class="ocf" provider="heartbeat" type="pgsql">`, id)
	promotable := id != "guest1" && strings.Contains(id, "g") // pgsql, ga, gb
	for i := range 1 + r.IntN(4) {
		task := pick(r, "monitor", "start", "stop", "promote", "demote", "notify", "meta-data", "reload")
		expected := pick(r, "0", "7", "8")
		if !promotable {
			task, expected = pick(r, "monitor", "start", "stop", "reload"), pick(r, "0", "7")
		}
		rc := pick(r, expected, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "190", "191", "193")
		if !promotable && (rc == "8" || rc == "9" || rc == "191") {
			rc = "1"
		}
		interval := "0"
		if task == "monitor" {
			interval = pick(r, "0", "10000", "9000")
		}
		status := pick(r, "0", "4", "1", "2", "3", "7", "9", "-2")
		b.WriteString(randomOp(r, id, task, interval, expected, rc, status, r.IntN(30), i))
	}
	if (id == "vip" || id == "far") && r.IntN(3) == 0 {
		from, to := 1+r.IntN(3), 1+r.IntN(3)
		for _, task := range []string{"migrate_to", "migrate_from"}[r.IntN(2):] {
			call, status := 32+r.IntN(3), pick(r, "0", "0", "2", "-1")
			if status == "-1" {
				call = -1
			}
			op := randomOp(r, id, task, "0", "0", pick(r, "0", "0", "1"), status, call, 7)
			b.WriteString(strings.Replace(op, "/>", fmt.Sprintf(` migrate_source="pm%d" migrate_target="pm%d"/>`, from, to), 1))
		}
	} else if r.IntN(4) == 0 { // something is under way on what is known to run
		before, next := "start", pick(r, "start", "monitor", "stop")
		if promotable {
			before, next = pick(r, "start", "promote"), pick(r, "demote", "start", "promote", "monitor", "stop")
		}
		b.WriteString(randomOp(r, id, before, "0", "0", "0", "0", 31, 8))
		b.WriteString(randomOp(r, id, next, "0", "0", "193", "-1", -1, 9))
	}
	b.WriteString(`</lrm_resource>`)
}

func randomOp(r *rand.Rand, id, task, interval, expected, rc, status string, call, number int) string {
	key := fmt.Sprintf("%d:%d:%s:4fe152cd-0709-489f-be86-f616ea064e3%s", r.IntN(40), r.IntN(40), expected, pick(r, "4", "5"))
	if call == -1 {
		key = "1:99:0:4fe152cd-0709-489f-be86-f616ea064e34"
	}
	return fmt.Sprintf(`<lrm_rsc_op id="%s_%s_%d" operation_key="%s_%s_%s" operation="%s" interval="%s" call-id="%d" rc-code="%s" `+
		`op-status="%s" last-rc-change="%d" transition-key="%s" transition-magic="%s:%s;%s"/>`,
		id, task, number, id, task, interval, task, interval, call, rc, status, 1700000000+r.IntN(5), key, status, rc, key)
}
