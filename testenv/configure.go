package testenv

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// makeHost writes everything that a host has of its own before its first boot, but the database: files over its
// system's.
func (c Config) makeHost(index int, password string) error {
	dir := hostDir(c.Dir, index)
	for _, name := range []string{upperName, workName, rootName} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // the upper folder's mode is that of the host's /
			return err
		}
	}
	passwd, err := c.passwd()
	if err != nil {
		return err
	}
	at, upper := c.paths(), newTree(filepath.Join(dir, upperName), c.system())
	upper.folder(at.Home, dba, dba, 0o700)
	upper.folder("/var/lib/pacemaker", "hacluster", "haclient", 0o750)
	upper.folder("/var/lib/pacemaker/cib", "hacluster", "haclient", 0o750)
	if c.WALBytes > 0 {
		upper.folder(at.WAL, dba, dba, 0o700)
	}
	for _, f := range []file{
		{"/etc/hostname", c.Hosts[index-1] + "\n", "root", "root", 0o644},
		{"/etc/hosts", c.hostsFile(), "root", "root", 0o644},
		// Without a number of its own a host would take this boot for its first, and enable every unit that it has.
		{"/etc/machine-id", machineID() + "\n", "root", "root", 0o444},
		{"/etc/passwd", passwd, "root", "root", 0o644},
		{"/etc/corosync/corosync.conf", c.corosyncConf(), "root", "root", 0o644},
		{"/etc/systemd/system/corosync.service.d/rexlab.conf", corosyncUnit, "root", "root", 0o644},
		{"/usr/sbin/fence_rexlab", fenceAgent, "root", "root", 0o755},
		// Without a cib.xml.sig Pacemaker takes the file as it is, so the cluster is configured before it first starts.
		{"/var/lib/pacemaker/cib/cib.xml", c.cib(), "hacluster", "haclient", 0o600},
		// The owner's password is for reaching the primary through the virtual IP only.
		{at.Pass, "*:*:*:" + repUser + ":" + password + "\n*:*:*:" + dba + ":" + password + "\n", dba, dba, 0o600},
		// Newer than /usr: else systemd takes the packages for updated, and builds caches at the first boot.
		{"/etc/.updated", "", "root", "root", 0o644},
		{"/var/.updated", "", "root", "root", 0o644},
	} {
		upper.file(f)
	}
	return upper.err
}

// machineID is what systemd knows a host by.
func machineID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// passwd is the system's, but that postgres is at home where the layout has it.
func (c Config) passwd() (string, error) {
	text, err := os.ReadFile(filepath.Join(c.system().Root(), "etc/passwd"))
	if err != nil {
		return "", err
	}
	_, home, err := c.system().user(dba)
	return strings.Replace(string(text), ":"+home+":", ":"+c.paths().Home+":", 1), err
}

// corosyncUnit: corosync asks for realtime scheduling on a real host; several hosts share few processors here, and a
// late token means fencing.
const corosyncUnit = "[Service]\nNice=-15\n"

// fenceAgent is what Pacemaker runs as stonith:fence_rexlab.
const fenceAgent = `#!/bin/sh
` + roleVariable + `=fence exec ` + labProgram + `
`

func (c Config) hostsFile() string {
	text := "127.0.0.1 localhost\n"
	for i, h := range c.Hosts {
		text += address(i+1) + " " + h + "\n"
	}
	return text + VIP + " vip\n"
}

func (c Config) corosyncConf() string {
	var b strings.Builder
	b.WriteString(`totem {
	version: 2
	cluster_name: rex
	transport: udpu
	crypto_cipher: none
	crypto_hash: none
	token: 3000
}
system {
	sched_rr: no
	move_to_root_cgroup: no
}
logging {
	to_stderr: no
	to_syslog: yes
	to_logfile: yes
	logfile: /var/log/corosync/corosync.log
	timestamp: hires
}
quorum {
	provider: corosync_votequorum
`)
	if len(c.Hosts) == 2 {
		// This implies wait_for_all: a host that is alone after a boot waits for the other one.
		b.WriteString("\ttwo_node: 1\n")
	}
	b.WriteString("}\nnodelist {\n")
	for i, h := range c.Hosts {
		fmt.Fprintf(&b, "\tnode {\n\t\tnodeid: %d\n\t\tname: %s\n\t\tring0_addr: %s\n\t}\n", i+1, h, address(i+1))
	}
	b.WriteString("}\n")
	return b.String()
}

// properties are the cluster's, the lab's own under those asked for.
func (c Config) properties() map[string]string {
	p := map[string]string{
		// The hosts are switched on together, so a short wait for the others is enough, and those that are late are not
		// fenced at start.
		"dc-deadtime": "1s", "startup-fencing": "false",
		"cluster-name": "rex", "stonith-enabled": "true", "stonith-timeout": "30s",
		// A fenced host stays off until somebody has seen to it.
		"stonith-action": "off",
		// A minority must not fence the majority.
		"no-quorum-policy": "freeze",
	}
	if c.NoFencing {
		p["stonith-enabled"], p["no-quorum-policy"] = "false", "stop"
	}
	if len(c.Hosts) == 2 {
		// Of two hosts that cannot see each other both have quorum. The primary's shot goes first.
		p["no-quorum-policy"], p["priority-fencing-delay"] = "ignore", "5s"
	}
	maps.Copy(p, c.Properties)
	return p
}

func nvpairs(id string, values map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "<nvpair id=\"%s-%s\" name=\"%s\" value=\"%s\"/>\n", id, name, name, escape(values[name]))
	}
	return b.String()
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}

// cib is the whole configuration. The first host's data is declared the latest, so it becomes the primary.
func (c Config) cib() string {
	var nodes, fence strings.Builder
	for i, h := range c.Hosts {
		status := "DISCONNECT"
		if i == 0 {
			status = "LATEST"
		}
		fmt.Fprintf(&nodes, "<node id=\"%d\" uname=\"%s\"><instance_attributes id=\"nodes-%d\">\n%s</instance_attributes></node>\n",
			i+1, h, i+1, nvpairs(fmt.Sprintf("nodes-%d", i+1), map[string]string{primitive + "-data-status": status}))
	}
	onFail := map[string]string{"demote": "stop", "stop": "block"}
	if !c.NoFencing {
		onFail = map[string]string{"demote": "fence", "stop": "fence"}
		fmt.Fprintf(&fence, `<primitive id="fence" class="stonith" type="fence_rexlab"><instance_attributes id="fence-parameters">
%s</instance_attributes></primitive>
`, nvpairs("fence", map[string]string{"pcmk_host_list": strings.Join(c.Hosts, " ")}))
	}
	meta := map[string]string{"clone-max": strconv.Itoa(len(c.Hosts)), "clone-node-max": "1", "notify": "true", "priority": "1"}
	element, promoted, schema := "clone", "Promoted", "pacemaker-4.0"
	if c.system().Suite == "bookworm" { // as PG-REX wrote it for Pacemaker 2.1; Pacemaker 3 no longer reads it
		element, promoted, schema = "master", "Master", "pacemaker-3.7"
		meta["master-max"], meta["master-node-max"] = "1", "1"
	} else {
		meta["promotable"], meta["promoted-max"], meta["promoted-node-max"] = "true", "1", "1"
	}
	return strings.NewReplacer(
		"{properties}", nvpairs("cib-bootstrap-options", c.properties()), "{nodes}", nodes.String(), "{vip}", VIP,
		"{schema}", schema, "{element}", element, "{promoted}", promoted, "{meta}", nvpairs(clone+"-meta_attributes", meta),
		"{parameters}", nvpairs("pgsql-instance_attributes", c.agentParameters()),
		"{primary-monitor}", c.Monitor.String(), "{standby-monitor}", (c.Monitor + time.Second).String(),
		"{on-demote}", onFail["demote"], "{on-stop}", onFail["stop"], "{fence}", fence.String(),
	).Replace(cibText)
}

const cibText = `<cib crm_feature_set="3.16.1" validate-with="{schema}" admin_epoch="0" epoch="1" num_updates="0">
<configuration>
<crm_config><cluster_property_set id="cib-bootstrap-options">
{properties}</cluster_property_set></crm_config>
<nodes>
{nodes}</nodes>
<resources>
<group id="master-group">
<primitive id="vip-rep" class="ocf" provider="heartbeat" type="IPaddr2">
<instance_attributes id="vip-rep-instance_attributes">
<nvpair id="vip-rep-ip" name="ip" value="{vip}"/>
<nvpair id="vip-rep-cidr_netmask" name="cidr_netmask" value="24"/>
<nvpair id="vip-rep-nic" name="nic" value="eth0"/>
</instance_attributes>
<operations><op id="vip-rep-monitor" name="monitor" interval="10s" timeout="60s" on-fail="restart"/></operations>
</primitive>
</group>
<{element} id="msPostgresql">
<meta_attributes id="msPostgresql-meta_attributes">
{meta}</meta_attributes>
<primitive id="pgsql" class="ocf" provider="heartbeat" type="pgsql">
<instance_attributes id="pgsql-instance_attributes">
{parameters}</instance_attributes>
<operations>
<op id="pgsql-start" name="start" interval="0s" timeout="300s" on-fail="restart"/>
<op id="pgsql-monitor-standby" name="monitor" interval="{standby-monitor}" timeout="30s" on-fail="restart"/>
<op id="pgsql-monitor-primary" name="monitor" role="{promoted}" interval="{primary-monitor}" timeout="30s" on-fail="restart"/>
<op id="pgsql-promote" name="promote" interval="0s" timeout="300s" on-fail="restart"/>
<op id="pgsql-demote" name="demote" interval="0s" timeout="30s" on-fail="{on-demote}"/>
<op id="pgsql-notify" name="notify" interval="0s" timeout="60s"/>
<op id="pgsql-stop" name="stop" interval="0s" timeout="30s" on-fail="{on-stop}"/>
</operations>
</primitive>
</{element}>
{fence}</resources>
<constraints>
<rsc_colocation id="vip-with-primary" score="INFINITY" rsc="master-group" with-rsc="msPostgresql" with-rsc-role="{promoted}"/>
<rsc_order id="promote-then-vip" kind="Mandatory" symmetrical="false" first="msPostgresql" first-action="promote" then="master-group" then-action="start"/>
<rsc_order id="demote-then-vip" kind="Optional" symmetrical="false" first="msPostgresql" first-action="demote" then="master-group" then-action="stop"/>
</constraints>
<rsc_defaults><meta_attributes id="rsc-options">
<nvpair id="rsc-options-resource-stickiness" name="resource-stickiness" value="INFINITY"/>
<nvpair id="rsc-options-migration-threshold" name="migration-threshold" value="1"/>
</meta_attributes></rsc_defaults>
</configuration>
<status/>
</cib>
`
