package testenv

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// makeHostDir writes everything that a host has before its first boot, but the database.
func (c Config) makeHostDir(index int, password string) error {
	dir := hostDir(c.Dir, index)
	for _, d := range []struct {
		path, owner, group string
		mode               os.FileMode
	}{
		{"corosync.conf.d", "root", "root", 0o755},
		{"corosync", "root", "root", 0o755},
		{"pacemaker", "hacluster", "haclient", 0o750},
		{"pacemaker/cib", "hacluster", "haclient", 0o750},
		{"pacemaker/pengine", "hacluster", "haclient", 0o750},
		{"pacemaker/blackbox", "hacluster", "haclient", 0o750},
		{"pacemaker/cores", "hacluster", "haclient", 0o750},
		{"log", "root", "root", 0o755},
		{"log/cluster", "root", "root", 0o755},
		{"log/corosync", "root", "root", 0o755},
		{"log/crmsh", "root", "root", 0o755},
		{"log/pacemaker", "hacluster", "haclient", 0o770},
		{"log/postgresql", dba, dba, 0o755},
		{"log/rexlab", "root", "root", 0o755},
		{"pgsql", dba, dba, 0o700},
	} {
		if err := makeDir(filepath.Join(dir, d.path), d.owner, d.group, d.mode); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path, text, owner, group string
		mode                     os.FileMode
	}{
		{"corosync.conf.d/corosync.conf", c.corosyncConf(), "root", "root", 0o644},
		{"hosts", c.hostsFile(), "root", "root", 0o644},
		// Without a cib.xml.sig Pacemaker takes the file as it is, so the cluster is configured before it first starts.
		{"pacemaker/cib/cib.xml", c.cib(), "hacluster", "haclient", 0o600},
		// The owner's password is for reaching the primary through the virtual IP only.
		{"pgsql/.pgpass", "*:*:*:" + repUser + ":" + password + "\n*:*:*:" + dba + ":" + password + "\n", dba, dba, 0o600},
	} {
		if err := writeFile(filepath.Join(dir, f.path), f.text, f.owner, f.group, f.mode); err != nil {
			return err
		}
	}
	return nil
}

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
	to_syslog: no
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

// agentParameters are those of the pgsql agent, as PG-REX sets them.
func (c Config) agentParameters() map[string]string {
	p := map[string]string{
		"pgctl": pgBin + "/pg_ctl", "psql": "/usr/bin/psql", "pgdata": dataDir, "start_opt": "-p 5432",
		"rep_mode": c.RepMode, "node_list": strings.Join(c.Hosts, " "), "master_ip": VIP, "repuser": repUser,
		"tmpdir": agentDir, "socketdir": socketDir, "logfile": "/var/log/postgresql/postgresql.log",
		"primary_conninfo_opt": "passfile=" + passFile + " keepalives_idle=60 keepalives_interval=5 keepalives_count=5",
		// There is no archive: every file is missing from it.
		"restore_command": "/bin/false",
		"stop_escalate":   "0", "xlog_check_count": "0",
	}
	if c.Slots != "" {
		p["replication_slot_name"] = c.Slots
	}
	return p
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
	return fmt.Sprintf(cibText, nvpairs("cib-bootstrap-options", c.properties()), nodes.String(), VIP, len(c.Hosts),
		nvpairs("pgsql-instance_attributes", c.agentParameters()), onFail["demote"], onFail["stop"], fence.String())
}

const cibText = `<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.7" admin_epoch="0" epoch="1" num_updates="0">
<configuration>
<crm_config><cluster_property_set id="cib-bootstrap-options">
%s</cluster_property_set></crm_config>
<nodes>
%s</nodes>
<resources>
<group id="master-group">
<primitive id="vip-rep" class="ocf" provider="heartbeat" type="IPaddr2">
<instance_attributes id="vip-rep-instance_attributes">
<nvpair id="vip-rep-ip" name="ip" value="%s"/>
<nvpair id="vip-rep-cidr_netmask" name="cidr_netmask" value="24"/>
<nvpair id="vip-rep-nic" name="nic" value="eth0"/>
</instance_attributes>
<operations><op id="vip-rep-monitor" name="monitor" interval="10s" timeout="60s" on-fail="restart"/></operations>
</primitive>
</group>
<master id="msPostgresql">
<meta_attributes id="msPostgresql-meta_attributes">
<nvpair id="msPostgresql-master-max" name="master-max" value="1"/>
<nvpair id="msPostgresql-master-node-max" name="master-node-max" value="1"/>
<nvpair id="msPostgresql-clone-max" name="clone-max" value="%d"/>
<nvpair id="msPostgresql-clone-node-max" name="clone-node-max" value="1"/>
<nvpair id="msPostgresql-notify" name="notify" value="true"/>
<nvpair id="msPostgresql-priority" name="priority" value="1"/>
</meta_attributes>
<primitive id="pgsql" class="ocf" provider="heartbeat" type="pgsql">
<instance_attributes id="pgsql-instance_attributes">
%s</instance_attributes>
<operations>
<op id="pgsql-start" name="start" interval="0s" timeout="300s" on-fail="restart"/>
<op id="pgsql-monitor-standby" name="monitor" interval="4s" timeout="30s" on-fail="restart"/>
<op id="pgsql-monitor-primary" name="monitor" role="Master" interval="3s" timeout="30s" on-fail="restart"/>
<op id="pgsql-promote" name="promote" interval="0s" timeout="300s" on-fail="restart"/>
<op id="pgsql-demote" name="demote" interval="0s" timeout="30s" on-fail="%s"/>
<op id="pgsql-notify" name="notify" interval="0s" timeout="60s"/>
<op id="pgsql-stop" name="stop" interval="0s" timeout="30s" on-fail="%s"/>
</operations>
</primitive>
</master>
%s</resources>
<constraints>
<rsc_colocation id="vip-with-primary" score="INFINITY" rsc="master-group" with-rsc="msPostgresql" with-rsc-role="Master"/>
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
