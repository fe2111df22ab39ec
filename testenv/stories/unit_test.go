package stories

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// TestUnit: the daemon under its unit and a real systemd: when it is ready, what it says, what it survives, and what
// it may do.
func TestUnit(t *testing.T) {
	on(t, releases, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02"}}, func(s *story) {
		primary := s.primary()
		standby := s.others(primary)[0]
		s.start(primary)
		s.chapter("ready when it has looked", func(s *story) { s.readyWhenLooked(standby) })
		s.awaitRight(patience, primary)
		s.chapter("its status is the summary", func(s *story) { s.statusIsSummary(standby) })
		s.chapter("killed", func(s *story) { s.daemonKilled(primary, standby) })
		s.chapter("it fails at once, many times", func(s *story) { s.failsOften(standby) })
		s.chapter("it hangs", func(s *story) { s.daemonHangs(standby) })
		s.chapter("its sandbox", func(s *story) { s.sandbox(standby) })
		s.chapter("Pacemaker and corosync are restarted", func(s *story) { s.clusterRestarts(primary, standby) })
		s.chapter("a stranger at the socket", func(s *story) { s.strangerServes(standby) })
		s.chapter("its journal", func(s *story) { s.journalled(primary) })
		s.awaitRight(patience, primary)
	})
}

// show is a property of the daemon's unit.
func (s *story) show(host, property string) string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "systemctl", "show", "--value", "--property", property, "pgrex")
	s.must(err)
	return strings.TrimSpace(out)
}

// onRoot runs a shell script as root on a host.
func (s *story) onRoot(host, script string) string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "sh", "-ec", script)
	s.must(err)
	return strings.TrimSpace(out)
}

// override writes a drop-in for the daemon's unit ("" empties it), and restarts the daemon. It waits until systemd has
// begun to start it, and no longer.
func (s *story) override(host, text string) {
	s.t.Helper()
	before := s.show(host, "InvocationID")
	s.must(s.lab.WriteFile(s.ctx, host, dropIn, text, 0o644))
	s.onRoot(host, "systemctl daemon-reload; systemctl --no-block restart pgrex")
	s.await(patience, "pgrex is started again on "+host, func() (bool, string) {
		now := s.show(host, "InvocationID")
		return now != "" && now != before, now
	})
}

// awaitActive waits until systemd takes the daemon for ready.
func (s *story) awaitActive(host string) {
	s.t.Helper()
	s.await(patience, "pgrex is active on "+host, func() (bool, string) {
		state := s.show(host, "ActiveState")
		return state == "active", state
	})
}

// slowly is a cibadmin that waits until it may answer.
const slowly = `#!/bin/sh
touch /run/slow/asked
until [ -e /run/slow/answer ]; do sleep 0.1; done
exec /usr/sbin/cibadmin "$@"
`

// readyWhenLooked: as long as the first look is under way, systemd waits.
func (s *story) readyWhenLooked(host string) {
	s.must(s.lab.WriteFile(s.ctx, host, "/run/slow/cibadmin", slowly, 0o755))
	s.onRoot(host, "chmod 777 /run/slow")
	s.override(host, "[Service]\nEnvironment=PATH=/run/slow:/usr/sbin:/usr/bin:/sbin:/bin\n")
	s.await(patience, "pgrex reads the CIB", func() (bool, string) {
		_, err := s.lab.Exec(s.ctx, host, "test", "-e", "/run/slow/asked")
		return err == nil, fmt.Sprint(err)
	})
	if state := s.show(host, "ActiveState"); state != "activating" {
		s.t.Errorf("pgrex is %s before it has read the CIB", state)
	}
	s.onRoot(host, "touch /run/slow/answer")
	s.awaitActive(host)
	if status, err := s.status(host); err != nil || status.Read.IsZero() {
		s.t.Errorf("pgrex is ready, and has not looked: %v, %v", status.Read, err)
	}
	s.start(host)
}

func (s *story) statusIsSummary(host string) {
	s.await(patience, "systemd shows the summary", func() (bool, string) {
		status, err := s.status(host)
		shown := s.show(host, "StatusText")
		return err == nil && shown != "" && shown == status.Summary, fmt.Sprintf("%q, %q, %v", shown, status.Summary, err)
	})
	s.t.Logf("systemctl status pgrex: %s", s.show(host, "StatusText"))
}

// daemonKilled: SIGKILL. systemd starts it again, it looks, and no slot has changed for it.
func (s *story) daemonKilled(primary, host string) {
	const query = "SELECT string_agg(slot_name || ' ' || (restart_lsn IS NOT NULL), ', ' ORDER BY slot_name) FROM pg_replication_slots"
	before, starts := s.sql(host, query), s.show(host, "NRestarts")
	began := time.Now()
	s.onRoot(host, "systemctl kill --signal=KILL pgrex")
	took := s.await(patience, "pgrex is back", func() (bool, string) {
		status, err := s.status(host)
		return err == nil && status.Started.After(began) && s.show(host, "ActiveState") == "active", fmt.Sprint(status.Started, err)
	})
	status, err := s.status(host)
	s.must(err)
	s.t.Logf("started again %s after SIGKILL, and ready after %s", status.Started.Sub(began).Round(10*time.Millisecond),
		took.Round(10*time.Millisecond))
	if now := s.show(host, "NRestarts"); now == starts {
		s.t.Errorf("systemd counts %s restarts, as before", now)
	}
	s.awaitRight(patience, primary)
	if after := s.sql(host, query); after != before {
		s.t.Errorf("the slots were %s and are %s", before, after)
	}
}

// failsOften: systemd gives up on a unit that fails five times within ten seconds, but not on this one.
func (s *story) failsOften(host string) {
	s.onRoot(host, "mkdir -p /etc/pgrex; echo 'no-such-key: 1' >/etc/pgrex/pgrex.yaml; systemctl --no-block restart pgrex")
	s.await(patience, "pgrex has failed eight times", func() (bool, string) {
		n := s.show(host, "NRestarts")
		return len(n) > 1 || n >= "8", n + " " + s.show(host, "ActiveState")
	})
	s.onRoot(host, "rm /etc/pgrex/pgrex.yaml")
	s.awaitActive(host) // nobody has started it
	s.must(s.resetCount(host))
}

func (s *story) resetCount(host string) error {
	_, err := s.lab.Exec(s.ctx, host, "systemctl", "reset-failed", "pgrex")
	return err
}

// daemonHangs: a daemon that does not end its passes is killed and started again.
func (s *story) daemonHangs(host string) {
	s.override(host, "[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n")
	s.awaitActive(host)
	before := s.show(host, "MainPID")
	s.onRoot(host, "kill -STOP "+before)
	s.await(patience, "systemd has started another one", func() (bool, string) {
		now := s.show(host, "MainPID")
		return now != before && now != "0" && s.show(host, "ActiveState") == "active", now
	})
	s.await(patience, "the journal says that the watchdog ended it", func() (bool, string) {
		said, err := s.lab.Journal(s.ctx, host, "pgrex", s.begin, "--output=cat")
		return err == nil && strings.Contains(said, "Watchdog timeout"), fmt.Sprint(err)
	})
	s.start(host)
}

// probe tries in the unit's own sandbox what the daemon must not be able to do, and says what it could.
const probe = `#!/bin/sh
exec >/run/pgrex/probe 2>/dev/null
for folder in "$1" /etc /usr/local/bin /var/lib/pacemaker/cib /var/log /tmp /root; do
	touch "$folder/probe" && echo "write in $folder"
done
unshare --user true && echo "make a user namespace"
ip link show lo >/dev/null && echo "talk netlink"
echo 1 >/proc/sys/net/ipv4/ip_forward && echo "set a sysctl"
hostname "$(hostname)" && echo "name the host"
mount -t tmpfs tmpfs /mnt && umount /mnt && echo "mount"
setpriv --reuid=hacluster true && echo "become another user"
[ "$(id -un) $(id -gn)" = "postgres haclient" ] || echo "be $(id)"
cibadmin --query >/dev/null || echo "not read the CIB"
echo "and nothing else"
`

// sandbox: what the daemon must do it does all through the other stories; here is what it cannot.
func (s *story) sandbox(host string) {
	s.must(s.lab.WriteFile(s.ctx, host, "/usr/local/bin/probe", probe, 0o755))
	s.override(host, "[Service]\nExecStartPre=/usr/local/bin/probe "+s.at.Data+"\n")
	s.awaitActive(host)
	if could := s.onRoot(host, "cat /run/pgrex/probe"); could != "and nothing else" {
		s.t.Errorf("in its sandbox the daemon could %s", could)
	}
	// The probe can fail: root, without the sandbox, can do all of it.
	could := s.onRoot(host, "mkdir /tmp/open; sed 's|/run/pgrex/probe|/tmp/open/probe|' /usr/local/bin/probe | sh -s "+s.at.Data+
		"; cat /tmp/open/probe; rm -f "+s.at.Data+"/probe /var/lib/pacemaker/cib/probe")
	for line := range strings.Lines(probe) {
		_, what, open := strings.Cut(line, `&& echo "`)
		what, _, _ = strings.Cut(what, `"`)
		if open && !strings.Contains(could, strings.Replace(what, "$folder", s.at.Data, 1)) {
			s.t.Errorf("the probe does not find that root can %s: %s", what, could)
		}
	}
	said := s.onRoot(host, "cat /proc/"+s.show(host, "MainPID")+"/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(said, want) {
			s.t.Errorf("the daemon's process has no %q", want)
		}
	}
	s.start(host)
	s.override(host, "")
	s.awaitActive(host)
}

// clusterRestarts: the daemon outlives what it watches, and is right again when that is.
func (s *story) clusterRestarts(primary, host string) {
	pid := s.show(host, "MainPID")
	s.onRoot(host, "systemctl restart pacemaker")
	s.awaitRight(patience, primary)
	s.onRoot(host, "systemctl stop corosync") // and Pacemaker, which needs it
	s.awaitCondition(host, model.CodeServerDown)
	s.awaitCondition(primary, model.CodeNotAttached)
	s.onRoot(host, "systemctl start pacemaker")
	s.awaitRight(patience, primary)
	if now := s.show(host, "MainPID"); now != pid {
		s.t.Errorf("the daemon was process %s, and is %s", pid, now)
	}
}

// strangerServes: another server of the same user, at the place of the one that does not run, is not followed.
func (s *story) strangerServes(host string) {
	const folder = "/tmp/stranger"
	s.must(s.lab.Standby(s.ctx, host))
	s.awaitStopped(host)
	s.asOwner(host, s.at.Bin+"/initdb --no-sync -D "+folder+" >/dev/null; "+s.at.Bin+"/pg_ctl start -w -s -l /dev/null -D "+folder+
		" -o '-c unix_socket_directories="+s.at.Socket+" -c listen_addresses='")
	s.await(patience, host+" says that it is a stranger", func() (bool, string) {
		status, err := s.status(host)
		seen := fmt.Sprint(status.Conditions, err)
		return strings.Contains(seen, "is not proven to be the server of "+s.at.Data), seen
	})
	if slots := s.asOwner(host, "psql -h "+s.at.Socket+" -Atc 'SELECT count(*) FROM pg_replication_slots' postgres"); slots != "0" {
		s.t.Errorf("pgrex has made %s slots on a stranger's server", slots)
	}
	s.asOwner(host, s.at.Bin+"/pg_ctl stop -s -m fast -D "+folder+"; rm -r "+folder)
	s.must(s.lab.Unstandby(s.ctx, host))
}

// journalled: each line has its priority, and no time or level of its own.
func (s *story) journalled(host string) {
	entries := func(options ...string) (found []map[string]string) {
		said, err := s.lab.Journal(context.WithoutCancel(s.ctx), host, "pgrex", s.begin, append(options, "--output=json")...)
		s.must(err)
		for line := range strings.Lines(said) {
			var fields map[string]any
			s.must(json.Unmarshal([]byte(line), &fields))
			entry := map[string]string{}
			for name, value := range fields {
				entry[name] = fmt.Sprint(value)
			}
			if entry["_COMM"] == "pgrex" {
				found = append(found, entry)
			}
		}
		return found
	}
	all, warnings := entries(), entries("--priority=warning")
	for _, e := range all {
		if strings.Contains(e["MESSAGE"], "time=") || strings.Contains(e["MESSAGE"], "level=") {
			s.t.Errorf("a line has a time or level of its own: %s", e["MESSAGE"])
		}
	}
	found := false
	for _, e := range warnings {
		found = found || strings.Contains(e["MESSAGE"], "condition began")
		if strings.Contains(e["MESSAGE"], "pgrex starts") || strings.Contains(e["MESSAGE"], "severity=info") {
			s.t.Errorf("journalctl --priority=warning shows %s", e["MESSAGE"])
		}
	}
	if !found || len(warnings) >= len(all) {
		s.t.Errorf("journalctl --priority=warning shows %d of %d lines, and no finding: %v", len(warnings), len(all), warnings)
	}
}
