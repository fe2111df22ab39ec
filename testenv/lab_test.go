package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func bootLab(t *testing.T, config Config) *Lab {
	t.Helper()
	needLab(t)
	config.Dir, config.Output = t.TempDir(), logWriter{t}
	lab, err := Up(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := lab.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// tool wraps a lab for a test that ends at the first failure.
type tool struct {
	*testing.T
	lab  *Lab
	kept string // a file of the machine's /tmp
}

func (t tool) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t tool) exec(host string, argv ...string) string {
	t.Helper()
	out, err := t.lab.Exec(t.Context(), host, argv...)
	t.must(err)
	return strings.TrimSpace(out)
}

func (t tool) sql(host, sql string) string {
	t.Helper()
	out, err := t.lab.SQL(t.Context(), host, sql)
	t.must(err)
	return strings.TrimSpace(out)
}

func (t tool) timed(what string, err error, begin time.Time) {
	t.Helper()
	t.must(err)
	t.Logf("%s took %s", what, time.Since(begin).Round(100*time.Millisecond))
}

// TestLab goes through what a lab can do, on two hosts: with --long on every system, since a newer systemd could reach
// past its host.
func TestLab(t *testing.T) {
	t.Parallel()
	systems := Systems()
	if os.Getenv("PGREX_LONG") == "" {
		systems = systems[:1]
	}
	for _, system := range systems {
		t.Run(system.Name, func(t *testing.T) {
			t.Parallel()
			testLab(t, system)
		})
	}
}

func testLab(t *testing.T, system System) {
	folder, err := os.MkdirTemp("/tmp", "rexlab-test") // which systemd-tmpfiles would empty
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	kept := filepath.Join(folder, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lab := bootLab(t, Config{System: system.Name, Hosts: []string{"a", "b"}, DataBytes: 64 << 20, Monitor: 3 * time.Second})
	for _, part := range []struct {
		name string
		test func(tool)
	}{
		{"hosts are apart", testApart}, {"nothing reaches the machine", testMachine}, {"commands", testCommands}, {"data", testData},
		{"units", testUnits},
		{"load", testLoad}, {"failover and rewind", testFailover}, {"copy", testCopy}, {"power", testPower},
		{"standby mode", testStandby},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(tool{t, lab, kept}) }) {
			t.FailNow()
		}
	}
}

// testApart: each host is a system of its own.
func testApart(t tool) {
	folders := []string{"/etc", "/root", "/tmp", "/usr/sbin", "/var/cache", "/var/lib", "/var/tmp", "/run"}
	for i, host := range t.lab.Hosts() {
		if name := t.exec(host, "uname", "-n"); name != host {
			t.Errorf("%s is named %s", host, name)
		}
		if got := t.exec(host, "ip", "-o", "-4", "address", "show", "dev", "eth0"); !strings.Contains(got, address(i+1)+"/24") {
			t.Errorf("%s has %s", host, got)
		}
		if got := t.exec(host, "cat", "/proc/1/comm"); got != "systemd" {
			t.Errorf("PID 1 of %s is %q", host, got)
		}
		t.ownNamespaces(host)
		t.awaitRunning(host)
		for _, dir := range folders {
			t.exec(host, "sh", "-c", "echo "+host+" >"+dir+"/rexlab-test")
		}
	}
	for _, dir := range folders {
		if got := t.exec("a", "cat", dir+"/rexlab-test"); got != "a" {
			t.Errorf("%s of a is not its own: it has %q", dir, got)
		}
		for _, machine := range []string{dir, t.lab.Config().system().Root() + dir} {
			if _, err := os.Stat(machine + "/rexlab-test"); err == nil {
				t.Errorf("%s of the machine was changed", machine)
			}
		}
	}
}

// ownNamespaces: a host shares none with the machine but the users'.
func (t tool) ownNamespaces(host string) {
	t.Helper()
	state, err := t.lab.state(t.Context(), host)
	t.must(err)
	for _, kind := range []string{"mnt", "uts", "ipc", "pid", "net", "cgroup"} {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", state.Process.PID, kind))
		t.must(err)
		machine, err := os.Readlink("/proc/self/ns/" + kind)
		t.must(err)
		if own == machine {
			t.Errorf("%s has the machine's %s namespace", host, kind)
		}
	}
}

// awaitRunning waits until systemd has started all that it should, and nothing has failed.
func (t tool) awaitRunning(host string) {
	t.Helper()
	t.must(t.lab.WaitFor(t.Context(), host+" to be running", func(ctx context.Context) (bool, error) {
		state, err := t.lab.Exec(ctx, host, "sh", "-c", "systemctl is-system-running || systemctl --failed --no-legend")
		return strings.TrimSpace(state) == "running", errors.Join(err, errors.New(state))
	}))
}

// testMachine: what root in a host could change the machine by is closed, for its daemons and for commands alike.
func testMachine(t tool) {
	for _, c := range []struct{ what, script string }{
		{"a kernel setting", "echo 1 >/proc/sys/kernel/panic"},
		{"the machine's devices", "echo add >/sys/class/net/lo/uevent"},
		{"the clock", "date --set @$(date +%s)"},
		{"the power", "systemctl reboot --force --force"},
		{"another kernel setting", "sysctl --write kernel.sysrq=1"},
	} {
		if out, err := t.lab.Exec(t.Context(), "a", "sh", "-c", c.script); err == nil {
			t.Errorf("a host's root can change %s: %s", c.what, out)
		}
	}
	t.exec("a", "sysctl", "--write", "net.ipv4.ip_forward=0") // its network is its own
	// sys_module, sys_rawio, sys_boot and sys_time, by their numbers in linux/capability.h.
	const denied = 1<<16 | 1<<17 | 1<<22 | 1<<25
	for _, of := range []string{"1", "self", "$(pidof pacemakerd)"} {
		text := t.exec("a", "sh", "-c", "sed -n 's/^CapBnd:[[:space:]]*//p' /proc/"+of+"/status")
		bounds, err := strconv.ParseUint(text, 16, 64)
		if err != nil || bounds == 0 || bounds&denied != 0 {
			t.Errorf("process %s of a host may have the capabilities %s, %v", of, text, err)
		}
	}
	if _, err := os.Stat("/proc/sysrq-trigger"); err == nil {
		if device := t.exec("a", "stat", "--format=%t:%T", "/proc/sysrq-trigger"); device != "1:3" {
			t.Errorf("sysrq-trigger of a host is not /dev/null: %s", device)
		}
	} else {
		t.Log("the kernel of this machine has no sysrq-trigger")
	}
	for _, unit := range []string{"systemd-timesyncd.service", "systemd-udevd.service", "systemd-modules-load.service", "systemd-sysctl.service"} {
		if state := t.exec("a", "sh", "-c", "systemctl is-enabled "+unit+" || true"); state != "masked" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	if _, err := os.Stat(t.kept); err != nil {
		t.Errorf("the boot has emptied the machine's /tmp: %v", err)
	}
}

func testCommands(t tool) {
	ctx := t.Context()
	out, err := t.lab.Exec(ctx, "a", "sh", "-c", "echo out; echo bad >&2; exit 7")
	var exit *exec.ExitError
	if out != "out\n" || !errors.As(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(err.Error(), "bad") {
		t.Errorf("a failing command gives %q, %v", out, err)
	}
	who, err := t.lab.ExecAs(ctx, "postgres", "haclient", "a", "sh", "-c", "id -un; id -gn; id -Gn; echo $HOME")
	t.must(err)
	if strings.Join(strings.Fields(who), " ") != "postgres haclient haclient /var/lib/pgsql" {
		t.Errorf("as postgres with haclient: %q", who)
	}
	if _, err := t.lab.ExecAs(ctx, "postgres", "haclient", "a", "cibadmin", "-Q"); err != nil {
		t.Errorf("the CIB cannot be read: %v", err)
	}
	limited, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := t.lab.Exec(limited, "a", "sh", "-c", "sleep 4711 & wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a slow command: %v", err)
	}
	t.must(t.lab.WaitFor(ctx, "the end of the slow command", func(ctx context.Context) (bool, error) {
		_, err := t.lab.Exec(ctx, "a", "sh", "-c", "! grep -qz 47[1]1 /proc/[0-9]*/cmdline 2>/dev/null")
		return err == nil, nil
	}))
	if _, err := t.lab.SQL(ctx, "a", "SELECT 1; SELECT nonsense; SELECT 2"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("bad SQL: %v", err)
	}
	if out, err := t.lab.VIPSQL(ctx, "SELECT pg_is_in_recovery()"); err != nil || out != "f\n" {
		t.Errorf("through the virtual IP: %q, %v", out, err)
	}
	if _, err := t.lab.Exec(ctx, "c", "true"); err == nil || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("an unknown host: %v", err)
	}
	for _, arguments := range []string{t.exec("a", "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")} {
		secret := strings.TrimSpace(t.exec("a", "sh", "-c", "head -1 "+t.lab.Paths().Pass+" | cut -d: -f5"))
		if secret == "" || strings.Contains(arguments, secret) {
			t.Error("the password shows in an argument list")
		}
	}
}

// testData: the database has about what was asked for, on both hosts, and they are one system.
func testData(t tool) {
	for _, host := range t.lab.Hosts() {
		if mib := t.sql(host, "SELECT pg_relation_size('rexlab.filler') >> 20"); mib < "60" || mib > "68" || len(mib) != 2 {
			t.Errorf("%s has %s MiB of 64", host, mib)
		}
	}
	const system = "SELECT system_identifier FROM pg_control_system()"
	if a, b := t.sql("a", system), t.sql("b", system); a != b {
		t.Errorf("the system identifiers are %s and %s", a, b)
	}
}

// testUnits: what runs in a host are its system's own units, and it can be given more.
func testUnits(t tool) {
	for _, unit := range []string{"corosync.service", "pacemaker.service"} {
		if state := t.exec("a", "systemctl", "is-active", unit); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	t.must(t.lab.WriteFile(t.Context(), "a", "/etc/systemd/system/ticker.service", tickerUnit, 0o644))
	t.exec("a", "systemctl", "enable", "--now", "ticker")
	t.awaitTicks("a", 1)
	t.exec("a", "systemctl", "kill", "--signal=KILL", "ticker")
	t.awaitTicks("a", 2)
	if err := t.lab.CopyIn(t.Context(), "a", "/no/such/file", "/tmp/it", 0o600); err == nil {
		t.Error("a file that is not there was copied")
	}
}

const tickerUnit = `[Service]
ExecStart=sh -c "echo tick of $$(id -un); exec sleep 1000"
User=postgres
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
`

func (t tool) awaitTicks(host string, n int) {
	t.Helper()
	t.must(t.lab.WaitFor(t.Context(), "the ticker's ticks", func(ctx context.Context) (bool, error) {
		journal, err := t.lab.Journal(ctx, host, "ticker", time.Time{}, "--output=cat")
		return strings.Count(journal, "tick of postgres\n") == n, errors.Join(err, errors.New(journal))
	}))
}

func testLoad(t tool) {
	const position, size = "SELECT pg_current_wal_lsn() - '0/0'", 100 << 20
	before, begin := t.number("a", position), time.Now()
	t.timed("a load of 100 MB", t.lab.Load(t.Context(), "a", size), begin)
	if written := t.number("a", position) - before; written < size || written > size+16<<20 {
		t.Errorf("wrote %d bytes of WAL, not %d", written, size)
	}
	t.must(t.lab.WaitStreaming(t.Context(), "b"))
	if err := t.lab.Load(t.Context(), "b", 1); err == nil {
		t.Error("a standby was loaded")
	}
}

func (t tool) number(host, sql string) int64 {
	t.Helper()
	var n int64
	for _, c := range t.sql(host, sql) {
		n = n*10 + int64(c-'0')
	}
	return n
}

func testFailover(t tool) {
	ctx, begin := t.Context(), time.Now()
	t.must(t.lab.Crash(ctx, "a"))
	t.timed("failover after a crash", t.lab.WaitPrimary(ctx, "b"), begin)
	if err := t.lab.Rewind(ctx, "b"); err == nil {
		t.Error("the primary was rewound")
	}
	begin = time.Now()
	t.timed("rewind", t.lab.Rewind(ctx, "a"), begin)
	t.timed("rewind and streaming", t.lab.WaitStreaming(ctx, "a"), begin)
}

func testCopy(t tool) {
	ctx, begin := t.Context(), time.Now()
	t.exec("a", "touch", t.lab.Paths().Data+"/was_here")
	t.must(t.lab.Copy(ctx, "a", ""))
	t.timed("copy and streaming", t.lab.WaitStreaming(ctx, "a"), begin)
	if _, err := t.lab.Exec(ctx, "a", "test", "-e", t.lab.Paths().Data+"/was_here"); err == nil {
		t.Error("the folder is still the old one")
	}
}

// testPower: a host without power is gone; with it, it comes back as it was, and its journal tells of aefore.
func testPower(t tool) {
	ctx := t.Context()
	before, err := t.lab.state(ctx, "a")
	t.must(err)
	t.exec("a", "sh", "-c", "echo mine >/etc/mine; echo >/tmp/passing")
	t.must(t.lab.Off(ctx, "a"))
	if before.Process.Alive() {
		t.Error("PID 1 of a lives without power")
	}
	if _, err := t.lab.Exec(ctx, "a", "true"); err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("a command without power: %v", err)
	}
	if journal, err := t.lab.Journal(ctx, "a", "ticker", time.Time{}); err != nil || !strings.Contains(journal, "tick of postgres") {
		t.Errorf("the journal without power: %v\n%s", err, journal)
	}
	t.must(t.lab.Off(ctx, "a")) // once more: nothing to do
	begin := time.Now()
	t.timed("power on", t.lab.On(ctx, "a"), begin)
	t.awaitTicks("a", 3)
	if boots := t.exec("a", "journalctl", "--list-boots", "--quiet"); strings.Count(boots, "\n") != 1 {
		t.Errorf("the journal tells of these boots, not of two:\n%s", boots)
	}
	if got := t.exec("a", "sh", "-c", "cat /etc/mine; ls /tmp/passing || true"); got != "mine" {
		t.Errorf("after a power cut a has %q", got)
	}
	t.must(t.lab.WaitFor(ctx, "a as a member", func(ctx context.Context) (bool, error) {
		status, err := t.lab.Status(ctx)
		return err == nil && status.Hosts[0].Member == "online", err
	}))
	t.must(t.lab.WaitStreaming(ctx, "a"))
}

func testStandby(t tool) {
	ctx := t.Context()
	t.must(t.lab.Standby(ctx, "a"))
	t.must(t.lab.WaitFor(ctx, "a without a database", func(ctx context.Context) (bool, error) {
		status, err := t.lab.Status(ctx)
		if err != nil {
			return false, err
		}
		h := status.Hosts[0]
		return h.Member == "standby" && h.Role == "stopped", errors.New(h.Member + " " + h.Role)
	}))
	t.must(t.lab.Unstandby(ctx, "a"))
	t.must(t.lab.WaitStreaming(ctx, "a"))
}

// TestFencing: a host without network is powered off by the other one, and in long so is one whose primary hangs; on
// hosts laid out otherwise, and with pg_wal on its own file system.
func TestFencing(t *testing.T) {
	t.Parallel()
	lab := bootLab(t, Config{
		System: "debian12", Layout: LayoutDebian, Hosts: []string{"a", "b"}, Monitor: 3 * time.Second, WALBytes: minWALBytes,
	})
	tool := tool{t, lab, ""}
	for _, host := range lab.Hosts() {
		tool.awaitRunning(host)
		if got := tool.exec(host, "stat", "--file-system", "--format=%T", lab.Paths().Data+"/pg_wal/"); got != "tmpfs" {
			t.Errorf("pg_wal of %s is on %s", host, got)
		}
	}
	if got := tool.sql("a", "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid); SHOW config_file"); got != "t\n"+lab.Paths().Config {
		t.Errorf("TLS to the standby, and the configuration: %q", got)
	}
	tool.fenceCut()
	if os.Getenv("PGREX_LONG") != "" {
		tool.fenceFrozen()
	}
}

// awaitOff waits until a host has lost its power.
func (t tool) awaitOff(host string) {
	t.Helper()
	t.must(t.lab.WaitFor(t.Context(), "the fencing of "+host, func(ctx context.Context) (bool, error) {
		state, err := t.lab.state(ctx, host)
		return err == nil && !state.On, err
	}))
}

func (t tool) fenceCut() {
	ctx, begin := t.Context(), time.Now()
	t.must(t.lab.WaitStreaming(ctx, "b"))
	t.must(t.lab.Cut(ctx, "b"))
	t.awaitOff("b")
	t.timed("fencing of a host without network", nil, begin)
	t.must(t.lab.Heal(ctx, "b"))
	t.must(t.lab.On(ctx, "b"))
	t.must(t.lab.WaitStreaming(ctx, "b"))
}

func (t tool) fenceFrozen() {
	ctx := t.Context()
	t.must(t.lab.WaitFor(ctx, "b as a standby that can take over", func(ctx context.Context) (bool, error) {
		status, err := t.lab.Status(ctx)
		return err == nil && status.Hosts[1].Status == "HS:sync", err
	}))
	t.must(t.lab.Freeze(ctx, "a"))
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := t.lab.SQL(limited, "a", "SELECT 1"); err == nil {
		t.Error("a frozen server answers")
	}
	t.must(t.lab.Thaw(ctx, "a"))
	t.sql("a", "SELECT 1")
	begin := time.Now()
	t.must(t.lab.Freeze(ctx, "a"))
	t.awaitOff("a")
	t.timed("fencing of a frozen primary", nil, begin)
	t.timed("failover from a frozen primary", t.lab.WaitPrimary(ctx, "b"), begin)
}
