package stories

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// The second database: its primitive, where its data are, its port, and the address of its primary.
const (
	crm     = "crm"
	crmData = "/var/lib/pgsql-crm/data"
	crmPort = 5433
	crmVIP  = "192.168.77.101"
)

// TestTwoDatabases: two databases on the same hosts, each with the other host as its primary, and each with a daemon of
// its own. One of them fails over; the other one does not notice.
func TestTwoDatabases(t *testing.T) {
	on(t, debian13Only, debian13Only, testenv.Config{Hosts: []string{"pm01", "pm02"}}, func(s *story) {
		first := s.primary()
		second := s.others(first)[0]
		s.chapter("a second database", func(s *story) { s.secondDatabase(second, first) })
		s.chapter("a daemon for each", func(s *story) { s.daemonForEach(first, second) })
		s.chapter("neither reads the other's forecast", func(s *story) { s.forecastsApart(first, second) })
		s.chapter("one fails over", func(s *story) { s.onlyOneFailsOver(first, second) })
	})
}

// secondDatabase makes another database of the same agent, and has its primary on a host.
func (s *story) secondDatabase(primary, standby string) {
	as := func(host, script string) {
		s.t.Helper()
		out, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", host, "sh", "-ec", script)
		if err != nil {
			s.t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, host := range s.lab.Hosts() {
		s.onRoot(host, "install -d -o postgres -g postgres -m 700 /var/lib/pgsql-crm /var/lib/pgsql-crm/tmp")
	}
	settings := fmt.Sprintf(`port = %d
listen_addresses = '*'
unix_socket_directories = '%s'
wal_log_hints = on
restart_after_crash = off
fsync = off
shared_buffers = 16MB
max_wal_size = 128MB
min_wal_size = 32MB
wal_keep_size = 32MB
wal_sender_timeout = 10s
wal_receiver_timeout = 10s
wal_retrieve_retry_interval = 1s
hot_standby_feedback = on
`, crmPort, s.at.Socket)
	as(primary, fmt.Sprintf(`%[1]s/initdb -D %[2]s --no-sync --no-instructions --encoding=UTF8 --locale=C.UTF-8 >/dev/null
cat >>%[2]s/postgresql.conf <<'END'
%[3]sEND
printf 'host replication repuser samenet trust\nhost all all samenet trust\n' >>%[2]s/pg_hba.conf
%[1]s/pg_ctl -D %[2]s -l /var/lib/pgsql-crm/log -w start >/dev/null
%[1]s/psql -X -q -h %[4]s -p %[5]d -d postgres -c 'CREATE ROLE repuser LOGIN REPLICATION'`,
		s.at.Bin, crmData, settings, s.at.Socket, crmPort))
	as(standby, fmt.Sprintf("%s/pg_basebackup -D %s -h %s -p %d -U repuser --no-sync --checkpoint=fast",
		s.at.Bin, crmData, primary, crmPort))
	as(primary, fmt.Sprintf("%s/pg_ctl -D %s -w stop >/dev/null", s.at.Bin, crmData))
	for host, status := range map[string]string{primary: "LATEST", standby: "DISCONNECT"} {
		s.onRoot(primary, fmt.Sprintf("crm_attribute -N %s -l forever -n crm-data-status --update=%s", host, status))
	}
	s.must(s.lab.WriteFile(s.ctx, primary, "/root/crm.sh", s.secondResource(), 0o700))
	s.t.Logf("%s", s.onRoot(primary, "/root/crm.sh"))
	s.awaitSecond(primary)
}

// secondResource is a script that configures the second database as the lab's own is configured.
func (s *story) secondResource() string {
	parameters := map[string]string{
		"pgctl": s.at.Bin + "/pg_ctl", "psql": s.at.Bin + "/psql", "pgdata": crmData, "pgport": fmt.Sprint(crmPort),
		"rep_mode": "sync", "node_list": strings.Join(s.lab.Hosts(), " "), "master_ip": crmVIP, "repuser": "repuser",
		"tmpdir": "/var/lib/pgsql-crm/tmp", "socketdir": s.at.Socket, "logfile": "/var/lib/pgsql-crm/log",
		"restore_command": "/bin/false", "stop_escalate": "0", "xlog_check_count": "0",
	}
	var pairs strings.Builder
	for name, value := range parameters {
		fmt.Fprintf(&pairs, `<nvpair id="crm-%s" name="%[1]s" value="%s"/>`, name, value)
	}
	return fmt.Sprintf(`#!/bin/sh -e
cibadmin --create --scope resources --xml-text '<primitive id="vip-crm" class="ocf" provider="heartbeat" type="IPaddr2">
<instance_attributes id="vip-crm-parameters"><nvpair id="vip-crm-ip" name="ip" value="%[1]s"/>
<nvpair id="vip-crm-netmask" name="cidr_netmask" value="24"/><nvpair id="vip-crm-nic" name="nic" value="eth0"/></instance_attributes>
<operations><op id="vip-crm-monitor" name="monitor" interval="10s" timeout="60s"/></operations></primitive>'
cibadmin --create --scope resources --xml-text '<clone id="msCrm"><meta_attributes id="msCrm-meta">
<nvpair id="msCrm-promotable" name="promotable" value="true"/><nvpair id="msCrm-notify" name="notify" value="true"/></meta_attributes>
<primitive id="%[2]s" class="ocf" provider="heartbeat" type="pgsql"><instance_attributes id="crm-parameters">%[3]s</instance_attributes>
<operations><op id="crm-start" name="start" interval="0s" timeout="300s"/><op id="crm-monitor" name="monitor" interval="4s" timeout="30s"/>
<op id="crm-monitor-promoted" name="monitor" role="Promoted" interval="3s" timeout="30s"/>
<op id="crm-promote" name="promote" interval="0s" timeout="300s"/><op id="crm-stop" name="stop" interval="0s" timeout="30s"/>
<op id="crm-notify" name="notify" interval="0s" timeout="60s"/></operations></primitive></clone>'
cibadmin --create --scope constraints --xml-text '<rsc_colocation id="crm-vip" score="INFINITY" rsc="vip-crm" with-rsc="msCrm" with-rsc-role="Promoted"/>'
cibadmin --create --scope constraints --xml-text '<rsc_order id="crm-then-vip" kind="Mandatory" symmetrical="false" first="msCrm" first-action="promote" then="vip-crm" then-action="start"/>'
`, crmVIP, crm, pairs.String())
}

// crmSQL asks the second database on a host; "" where it is down.
func (s *story) crmSQL(host, query string) string {
	out, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", host, s.at.Bin+"/psql", "-XAtq", "-h", s.at.Socket,
		"-p", fmt.Sprint(crmPort), "-d", "postgres", "-c", query)
	if err != nil {
		return "error: " + err.Error()
	}
	return strings.TrimSpace(out)
}

// awaitSecond waits until a host is the second database's primary, and the other one its synchronous standby.
func (s *story) awaitSecond(primary string) {
	s.t.Helper()
	standby := s.others(primary)[0]
	s.await(patience, "crm's primary is "+primary, func() (bool, string) {
		seen := s.crmSQL(primary, "SELECT pg_is_in_recovery()") + " " +
			s.attribute(primary, "crm-status") + " " + s.attribute(standby, "crm-data-status")
		return seen == "f PRI STREAMING|SYNC", seen
	})
}

// attribute is a node attribute's value, transient or permanent; "" for none.
func (s *story) attribute(host, name string) string {
	for _, lifetime := range []string{"reboot", "forever"} {
		out, err := s.lab.Exec(s.ctx, host, "crm_attribute", "--node", host, "--lifetime", lifetime, "--name", name, "--query", "--quiet")
		if err == nil {
			return strings.TrimSpace(out)
		}
	}
	return ""
}

// instanceStatus is what one of the daemons on a host says.
func (s *story) instanceStatus(host, instance string) controller.Status {
	s.t.Helper()
	out, code := s.command(host, "status", "--instance", instance, "-o", "json")
	var status controller.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		status.Summary = fmt.Sprintf("status %d: %s", code, out)
	}
	return status
}

func (s *story) daemonForEach(first, second string) {
	for _, host := range s.lab.Hosts() {
		s.onRoot(host, "systemctl daemon-reload; systemctl --quiet enable --now pgrex@pgsql pgrex@crm")
	}
	for instance, primary := range map[string]string{"pgsql": first, crm: second} {
		for _, host := range s.lab.Hosts() {
			s.await(patience, fmt.Sprintf("all is right with %s on %s", instance, host), func() (bool, string) {
				status := s.instanceStatus(host, instance)
				healthy := status.Healthy && (status.Role == model.Primary) == (host == primary)
				return healthy && len(status.Slots) == 1, status.Summary
			})
		}
	}
	s.awaitRight(patience, first)
	for _, host := range s.lab.Hosts() {
		for _, command := range []string{"plan", "status"} {
			out, err := s.lab.ExecAs(s.ctx, "postgres", "haclient", host, "sh", "-c", pgrex+" "+command+" 2>&1")
			if err == nil || !strings.Contains(out, "--instance") {
				s.t.Errorf("pgrex %s without an instance: %v, %s", command, err, out)
			}
		}
	}
}

// forecastsApart: each database's forecast of the host that is its standby is "stream", of its primary "rewind": with
// one name for both, each would be the other's.
func (s *story) forecastsApart(first, second string) {
	for _, host := range s.lab.Hosts() {
		want := map[string]string{
			"pgrex-forecast-pgsql": second + "=stream", "pgrex-forecast-crm": first + "=rewind", "pgrex-forecast": "",
		}
		if host == second {
			want["pgrex-forecast-pgsql"], want["pgrex-forecast-crm"] = first+"=rewind", first+"=stream"
		} else {
			want["pgrex-forecast-crm"] = second + "=rewind"
		}
		for name, value := range want {
			s.await(patience, fmt.Sprintf("%s on %s is %q", name, host, value), func() (bool, string) {
				now := s.attribute(host, name)
				return now == value, now
			})
		}
	}
}

// onlyOneFailsOver: the second database's server is killed on its primary. The other host takes over that database, and
// the first database stays where it is.
func (s *story) onlyOneFailsOver(first, second string) {
	const life = "SELECT pg_postmaster_start_time(), (SELECT string_agg(backend_start::text, ',') FROM pg_stat_replication)"
	before := s.sql(first, life)
	s.onRoot(second, "kill -9 $(head -1 "+crmData+"/postmaster.pid)")
	s.await(patience, "crm's primary is "+first, func() (bool, string) {
		seen := s.crmSQL(first, "SELECT pg_is_in_recovery()") + " " + s.attribute(first, "crm-status")
		return seen == "f PRI", seen
	})
	s.await(patience, "the new primary holds WAL for the old one, and foretells it", func() (bool, string) {
		status := s.instanceStatus(first, crm)
		way := s.attribute(first, "pgrex-forecast-crm")
		return status.Role == model.Primary && way == second+"=rewind" && len(status.Slots) == 1 && status.Slots[0].RestartLSN.IsValid(),
			status.Summary + "; " + way
	})
	if way := s.attribute(first, "pgrex-forecast-pgsql"); way != second+"=stream" {
		s.t.Errorf("crm's failover has changed the other database's forecast to %q", way)
	}
	if after := s.sql(first, life); after != before {
		s.t.Errorf("the first database has noticed: it was %s and is %s", before, after)
	}
	for _, host := range s.lab.Hosts() {
		status := s.instanceStatus(host, "pgsql")
		if !status.Healthy || slices.ContainsFunc(status.Slots, func(l controller.SlotStatus) bool { return strings.Contains(l.WALStatus, "lost") }) {
			s.t.Errorf("the first database on %s: %s", host, status.Summary)
		}
	}
	// Its data have not parted: nothing was written meanwhile.
	s.onRoot(second, "rm -f /var/lib/pgsql-crm/tmp/PGSQL.lock; crm_resource --cleanup --resource crm --node "+second)
	s.awaitSecond(first)
	s.await(patience, "all is right with crm on "+second, func() (bool, string) {
		status := s.instanceStatus(second, crm)
		return status.Healthy && status.Role == model.Standby && status.Server.StreamingSlot == s.slot(second), status.Summary
	})
}
