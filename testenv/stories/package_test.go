package stories

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

// formerly is the revision whose program is the one before: the last that was installed by hand.
const formerly = "4dfd52096adc159b043f06f3040549ccb0bccd39"

// makePackage builds the deb for this machine once, of the program as it is, or as it was at a revision.
func makePackage(revision ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		folder := filepath.Join(filepath.Dir(built), "packages"+strings.Join(revision, ""))
		arguments := []string{"--here", folder}
		if len(revision) > 0 {
			arguments = append([]string{"--revision"}, append(revision, arguments...)...)
		}
		if out, err := exec.Command("../../hack/package", arguments...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("hack/package: %w: %s", err, out)
		}
		found, err := filepath.Glob(filepath.Join(folder, "*.deb"))
		if err != nil || len(found) != 1 {
			return "", fmt.Errorf("hack/package has made %v, %w", found, err)
		}
		return found[0], nil
	})
}

var (
	packageNow    = makePackage()
	packageBefore = makePackage(formerly)
)

// TestPackage: installing starts nothing, an upgrade restarts what runs, removal says which slots stay, and purging
// leaves no file.
func TestPackage(t *testing.T) {
	on(t, releases, everywhere, testenv.Config{Hosts: []string{"pm01", "pm02"}}, func(s *story) {
		now, err := packageNow()
		s.must(err)
		primary := s.primary()
		standby := s.others(primary)[0]
		clean := map[string]string{}
		for _, host := range s.lab.Hosts() {
			s.onRoot(host, "rm "+pgrex+" "+unitFolder+"pgrex*.service") // what stories begin with
			clean[host] = s.files(host)
		}
		s.chapter("installed", func(s *story) {
			for _, host := range s.lab.Hosts() {
				s.installed(host, now)
			}
		})
		s.chapter("enabled", func(s *story) { s.enabled(primary, now) })
		s.chapter("support", func(s *story) { s.supported(primary) })
		s.chapter("installed again while it runs", func(s *story) { s.installedAgain(primary, standby, now) })
		s.chapter("a hand-made installation in the way", func(s *story) { s.handMade(standby, now) })
		s.chapter("removed", func(s *story) { s.removed(standby) })
		s.chapter("purged", func(s *story) { s.purged(standby, clean[standby]) })
		s.chapter("installed once more", func(s *story) {
			s.installed(standby, now)
			s.onRoot(standby, "systemctl --quiet enable --now pgrex")
			s.awaitRight(patience, primary)
		})
		s.chapter("done without", func(s *story) { s.doneWithout(primary, standby) })
	})
}

// aptInstall installs a package on a host, whatever version is there, and tells what apt said. The lab's systems
// leave out documentation, but not this package's.
func (s *story) aptInstall(host, deb string) string {
	s.t.Helper()
	target := "/root/" + filepath.Base(deb)
	s.must(s.lab.CopyIn(s.ctx, host, deb, target, 0o644))
	return s.onRoot(host, "exec 2>&1; export DEBIAN_FRONTEND=noninteractive; apt-get install --yes --allow-downgrades --reinstall "+
		"-o Dpkg::Options::='--path-include=/usr/share/*/pgrex*' -o Dpkg::Options::='--path-include=/usr/share/man/*/pgrex*' "+target)
}

// is runs systemctl's questions, such as is-active, whose answer is not always success.
func (s *story) is(host, question string) string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "systemctl", "is-"+question, "pgrex")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		s.must(err)
	}
	return strings.TrimSpace(out)
}

// packageVersion is the version of a package file.
func (s *story) packageVersion(deb string) string {
	s.t.Helper()
	out, err := exec.Command("dpkg-deb", "--field", deb, "Version").Output()
	s.must(err)
	return strings.TrimSpace(string(out))
}

func (s *story) installed(host, deb string) {
	s.t.Logf("%s: %s", host, s.aptInstall(host, deb))
	if active, enabled := s.is(host, "active"), s.is(host, "enabled"); active != "inactive" || enabled != "disabled" {
		s.t.Errorf("after the installation on %s pgrex is %s and %s", host, active, enabled)
	}
	s.onRoot(host, "test -x /usr/bin/pgrex && test -s /etc/pgrex/pgrex.yaml && test -s /usr/share/doc/pgrex/docs/findings.md && "+
		"test -s /usr/share/man/man1/pgrex-status.1.gz")
	s.asOwner(host, "pgrex plan >/dev/null || test $? = 2") // before it runs, the README says, look at the plan
	if offers := s.onRoot(host, "pgrex __complete switchover --to ''"); !strings.Contains(offers, s.others(host)[0]+"\n") {
		s.t.Errorf("on %s a shell is offered %q for --to", host, offers)
	}
}

func (s *story) enabled(primary, deb string) {
	for _, host := range s.lab.Hosts() {
		s.onRoot(host, "systemctl --quiet enable --now pgrex")
	}
	s.awaitRight(patience, primary)
	for _, host := range s.lab.Hosts() {
		status, err := s.status(host)
		s.must(err)
		// The package's version is the program's own, spelt as dpkg wants it.
		if version := strings.NewReplacer("~", "-").Replace(s.packageVersion(deb)); strings.ReplaceAll(strings.TrimPrefix(status.Version, "v"), "-", ".") != strings.ReplaceAll(version, "-", ".") {
			s.t.Errorf("%s runs pgrex %s, and its package is %s", host, status.Version, version)
		}
	}
}

// supported: root's archive for a helper has everything, and no secret; the owner's lacks the journal, and says so.
func (s *story) supported(host string) {
	s.sql(host, "ALTER SYSTEM SET archive_cleanup_command = 'RESTIC_PASSWORD=planted true'")
	s.override(host, "[Service]\nEnvironment=PGAPPNAME=planted\nExecStartPre=/bin/echo password=planted\n")
	s.awaitActive(host)
	s.onRoot(host, "echo '# token: planted' >>/etc/pgrex/pgrex.yaml")
	if out := s.onRoot(host, "cd /root; pgrex support --file whole.tar.gz; tar -xzf whole.tar.gz --one-top-level=whole --strip-components=1; "+
		"ls whole | wc -l; cat whole/missing.txt"); !strings.HasSuffix(out, "\n12") {
		s.t.Errorf("something is missing: %s", out)
	}
	if out, err := s.lab.Exec(s.ctx, host, "grep", "-r", "planted", "/root/whole"); err == nil {
		s.t.Errorf("a secret is in it: %s", out)
	}
	s.onRoot(host, "cd /root/whole; grep -q 'step done' journal.txt; grep -q story.conf unit.txt; grep -q '\"healthy\"' status.json; "+
		"grep -q '\"pgrex_snapshot\"' snapshot.json; grep -q Debian system.txt; grep -qx ActiveState=active unit-state.txt; rm -r /root/whole*")
	out, status := s.command(host, "support", "--file", "/tmp/part.tar.gz")
	if status != 3 || !strings.Contains(out, "missing: journal.txt") {
		s.t.Errorf("as postgres it ends with %d: %s", status, out)
	}
	s.onRoot(host, "rm /tmp/part.tar.gz; sed -i '/planted/d' /etc/pgrex/pgrex.yaml")
	s.sql(host, "ALTER SYSTEM RESET archive_cleanup_command")
	s.override(host, "")
	s.awaitActive(host)
}

// installedAgain: the daemon that runs is restarted, one that was stopped stays stopped, and the operator's settings
// stay.
func (s *story) installedAgain(primary, standby, deb string) {
	before := s.show(primary, "MainPID")
	s.onRoot(primary, "echo 'log-level: debug' >>/etc/pgrex/pgrex.yaml")
	s.onRoot(standby, "systemctl stop pgrex")
	for _, host := range s.lab.Hosts() {
		s.aptInstall(host, deb)
	}
	s.awaitActive(primary)
	if now := s.show(primary, "MainPID"); now == before {
		s.t.Errorf("after the upgrade the daemon is process %s, as before", now)
	}
	if active, enabled := s.is(standby, "active"), s.is(standby, "enabled"); active != "inactive" || enabled != "enabled" {
		s.t.Errorf("a stopped daemon is %s and %s after an upgrade", active, enabled)
	}
	s.onRoot(primary, "grep -qx 'log-level: debug' /etc/pgrex/pgrex.yaml")
	s.onRoot(standby, "systemctl start pgrex")
	s.awaitRight(patience, primary)
}

// handMade: a unit that was copied by hand hides the package's; the package says so.
func (s *story) handMade(host, deb string) {
	s.onRoot(host, "cp "+unitFolder+"pgrex.service /etc/systemd/system/pgrex.service; systemctl daemon-reload; systemctl --quiet reenable pgrex") // as it was
	if said := s.aptInstall(host, deb); !strings.Contains(said, "hides the package's unit") {
		s.t.Errorf("it does not warn of /etc/systemd/system/pgrex.service: %s", said)
	}
	s.onRoot(host, "rm -f /etc/systemd/system/pgrex.service /usr/local/bin/pgrex && systemctl daemon-reload && systemctl --quiet reenable pgrex && "+
		"systemctl restart pgrex")
	s.awaitActive(host)
	if link := s.onRoot(host, "readlink -e /etc/systemd/system/multi-user.target.wants/pgrex.service"); link != unitFolder+"pgrex.service" {
		s.t.Errorf("enabled is %s, not the package's unit", link)
	}
}

func (s *story) removed(host string) {
	slot := s.slot(s.others(host)[0])
	before := s.sql(host, "SELECT string_agg(slot_name, ' ' ORDER BY 1) FROM pg_replication_slots")
	said := s.onRoot(host, "exec 2>&1; DEBIAN_FRONTEND=noninteractive apt-get remove --yes pgrex")
	s.t.Logf("%s: %s", host, said)
	for _, want := range []string{slot, "pgrex release", "pg_drop_replication_slot"} {
		if !strings.Contains(said, want) {
			s.t.Errorf("removal does not name %s", want)
		}
	}
	if now := s.sql(host, "SELECT string_agg(slot_name, ' ' ORDER BY 1) FROM pg_replication_slots"); now != before {
		s.t.Errorf("the slots were %s and are %s", before, now)
	}
	s.onRoot(host, "test -e /etc/pgrex/pgrex.yaml; test ! -e /usr/bin/pgrex; test ! -e /run/pgrex")
	if _, err := s.lab.Exec(s.ctx, host, "pidof", "pgrex"); err == nil {
		s.t.Error("the daemon still runs")
	}
}

// doneWithout is how docs/packages.md leaves pgrex and its slots: nothing holds WAL any more, and the standby streams.
func (s *story) doneWithout(primary, standby string) {
	if out, status := s.command(primary, "pause"); status != 0 {
		s.t.Fatalf("pause ends with %d: %s", status, out)
	}
	for _, host := range []string{standby, primary} {
		s.onRoot(host, "DEBIAN_FRONTEND=noninteractive apt-get purge --yes pgrex >/dev/null 2>&1")
	}
	s.sql(standby, "ALTER SYSTEM RESET primary_slot_name")
	s.sql(standby, "SELECT pg_reload_conf()")
	s.await(patience, standby+" streams without a slot, and has let go of its own", func() (bool, string) {
		out := s.ask(primary, "SELECT count(*) FILTER (WHERE r.state = 'streaming' AND s.slot_name IS NULL), count(s.slot_name) "+
			"FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE r.application_name = '"+application(standby)+"'")
		return out == "1|0", out
	})
	for _, host := range []string{standby, primary} {
		s.sql(host, "SELECT pg_drop_replication_slot('"+s.slot(s.others(host)[0])+"')")
		if left := s.sql(host, "SELECT count(*) FROM pg_replication_slots"); left != "0" {
			s.t.Errorf("%s slots are left on %s", left, host)
		}
	}
}

func (s *story) purged(host, before string) {
	s.onRoot(host, "DEBIAN_FRONTEND=noninteractive apt-get purge --yes pgrex >/dev/null 2>&1; rm /root/pgrex_*.deb")
	if now := s.files(host); now != before {
		s.t.Errorf("purging leaves other files than there were:\n%s", difference(before, now))
	}
}

// files are all files and folders of a host that are the system's: not those of PostgreSQL, of Pacemaker's state, of
// apt and dpkg, nor logs.
func (s *story) files(host string) string {
	s.t.Helper()
	return s.onRoot(host, `find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /var/log \
		-o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/lib/pacemaker -o -path /var/lib/pgsql \
		-o -path /var/lib/postgresql -o -path /var/lib/systemd \) -prune -o -print | sort; ls /run | grep pgrex || true`)
}

// difference is what one list of lines has and the other has not.
func difference(before, now string) string {
	lines := map[string]int{}
	for line := range strings.Lines(before) {
		lines[line]--
	}
	for line := range strings.Lines(now) {
		lines[line]++
	}
	var b strings.Builder
	for line, n := range lines {
		if n != 0 {
			fmt.Fprintf(&b, "%+d %s", n, line)
		}
	}
	return b.String()
}

// TestUpgrade: the version before and this one work side by side, through an upgrade host by host, failovers between
// them, operations that one has begun and the other ends, and a downgrade.
func TestUpgrade(t *testing.T) {
	if exec.Command("git", "cat-file", "-e", formerly+"^{commit}").Run() != nil {
		t.Skip("this clone has no history, so the previous version cannot be built: the upgrade is not tested")
	}
	on(t, debian13Only, ownLayout, threeHosts(), func(s *story) {
		s.mixed = true
		before, err := packageBefore()
		s.must(err)
		now, err := packageNow()
		s.must(err)
		pm01 := s.primary()
		pm02, pm03 := s.others(pm01)[0], s.others(pm01)[1]
		for _, host := range s.lab.Hosts() {
			s.aptInstall(host, before)
		}
		s.settle(pm01)
		s.chapter("a standby is upgraded", func(s *story) {
			s.changesVersion(pm01, pm03, now)
			s.readEachOther(pm01, pm03)
		})
		s.older = pm01
		s.chapter("a failover between the versions", func(s *story) {
			s.diverge(pm01, 1)
			if !s.killedAt(pm01, `^pg_rewind from pm0[0-9]$`) {
				s.t.Fatal("there is no pg_rewind")
			}
		})
		s.older = ""
		s.chapter("what the version before began", func(s *story) {
			s.aptInstall(pm01, now)
			s.comesBack(s.primary(), pm01, "copy") // half rewound data are not mended otherwise
			s.mark(pm01)
		})
		s.chapter("all are upgraded", func(s *story) { s.changesVersion(s.primary(), pm02, now) })
		s.chapter("the primary is downgraded", func(s *story) {
			s.changesVersion(s.primary(), s.primary(), before)
		})
		old := s.primary()
		folder := s.asOwner(old, "stat -c %i "+s.at.Data)
		s.chapter("a failover to the other version", func(s *story) {
			s.older = old
			s.diverge(old, 1)
			s.older = ""
			s.aptInstall(old, now)
			s.killedAt(old, `^put back `)
		})
		s.chapter("what this version began", func(s *story) {
			s.aptInstall(old, before)
			// That version knows no constraint of pgrex's, so it has to be removed by hand: docs/packages.md.
			_, err := s.lab.Exec(s.ctx, old, "cibadmin", "--delete", "--scope", "constraints",
				"--xml-text", `<rsc_location id="`+model.StopConstraint("pgsql", old)+`" node="`+old+`"/>`)
			s.must(err)
			s.asOwner(old, pgrex+" rejoin --yes") // it refuses root, and knows of no journal
			s.aptInstall(old, now)
			if out, status := s.rejoin(old, "--yes"); status != 0 {
				s.t.Fatalf("what is left of the journal is not ended: %d, %s", status, out)
			}
			s.aptInstall(old, before)
			s.awaitRight(patience, s.primary())
			s.nothingOfRejoinLeft(old)
		})
		s.chapter("all are downgraded", func(s *story) {
			for _, host := range s.others(old) {
				s.changesVersion(s.primary(), host, before)
			}
		})
		for _, host := range s.others(old) {
			s.neverCopied(host)
		}
		if now := s.asOwner(old, "stat -c %i "+s.at.Data); now != folder { // pg_rewind fetches the mark
			s.t.Errorf("%s came back by a copy: its data folder is %s, and was %s", old, now, folder)
		}
	})
}

// changesVersion installs a version on a host while WAL is written. Nothing streams over another connection for it,
// no slot is lost or goes back, and all is right again.
func (s *story) changesVersion(primary, host, deb string) {
	s.t.Helper()
	connections := "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_replication WHERE state = 'streaming'"
	slots := "SELECT slot_name, restart_lsn FROM pg_replication_slots ORDER BY 1"
	streams, had := s.sql(primary, connections), s.sql(host, slots)
	begin := time.Now()
	said := s.aptInstall(host, deb)
	s.load(primary, walKeepSize)
	s.awaitActive(host)
	s.awaitRight(patience, primary)
	// A primary cut off before a standby has its last checkpoint may need a copy, whatever the version: docs/proof.md.
	s.await(patience, "the standbys have all", func() (bool, string) {
		out := s.ask(primary, "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_flush_lsn()")
		return out == fmt.Sprint(len(s.lab.Hosts())-1), out
	})
	s.t.Logf("%s has %s %s after apt-get install began", host, s.packageVersion(deb), time.Since(begin).Round(100*time.Millisecond))
	if now := s.sql(primary, connections); now != streams {
		s.t.Errorf("the standbys stream through %s, and did through %s: %s", now, streams, said)
	}
	for line := range strings.Lines(had) {
		name, lsn, _ := strings.Cut(strings.TrimSpace(line), "|")
		if out := s.sql(host, fmt.Sprintf("SELECT restart_lsn >= '%s' FROM pg_replication_slots WHERE slot_name = '%s'", lsn, name)); out != "t" {
			s.t.Errorf("slot %s of %s was at %s, and is now further back, or gone", name, host, lsn)
		}
	}
	status, err := s.status(host)
	s.must(err)
	for _, c := range status.Conditions {
		s.t.Logf("%s says %s: %s", host, c.Code, c.Text)
	}
}

// readEachOther: snapshots of either version are planned by the other, and each shows all hosts. The older one does not
// know the name under which the newer one publishes its forecast.
func (s *story) readEachOther(older, newer string) {
	for _, from := range []string{older, newer} {
		to := older + newer
		to = strings.Replace(to, from, "", 1)
		snapshot := s.asOwner(from, "pgrex snapshot")
		file := "/tmp/snapshot-of-" + from
		s.must(s.lab.WriteFile(s.ctx, to, file, snapshot+"\n", 0o644))
		if out, status := s.command(to, "plan", "--snapshot", file); status != 0 && status != 2 {
			s.t.Errorf("the snapshot of %s on %s: %d: %s", from, to, status, out)
		}
		s.await(patience, from+" shows all hosts, and knows how they come back", func() (bool, string) {
			ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
			defer cancel()
			out, err := s.lab.ExecAs(ctx, "postgres", "haclient", from, pgrex, "status")
			all := !slices.ContainsFunc(s.lab.Hosts(), func(host string) bool { return !strings.Contains(out, host) })
			return err == nil && all && (from == older || !strings.Contains(out, "unknown")), fmt.Sprint(out, err)
		})
	}
}
