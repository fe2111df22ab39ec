package testenv

import (
	"context"
	"errors"
	"os"
	"os/exec"
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
	lab *Lab
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

// TestLab goes through what a lab can do, on two hosts.
func TestLab(t *testing.T) {
	t.Parallel()
	lab := bootLab(t, Config{Hosts: []string{"a", "b"}, DataBytes: 64 << 20})
	for _, part := range []struct {
		name string
		test func(tool)
	}{
		{"hosts are apart", testApart}, {"commands", testCommands}, {"data", testData}, {"services", testServices},
		{"load", testLoad}, {"failover and rewind", testFailover}, {"copy", testCopy}, {"power", testPower},
		{"standby mode", testStandby}, {"fencing", testFencing},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(tool{t, lab}) }) {
			t.FailNow()
		}
	}
}

// testApart: each host has its own name, network, processes and files, and leaves the machine's alone.
func testApart(t tool) {
	for i, host := range t.lab.Hosts() {
		if name := t.exec(host, "uname", "-n"); name != host {
			t.Errorf("%s is named %s", host, name)
		}
		if got := t.exec(host, "ip", "-o", "-4", "address", "show", "dev", "eth0"); !strings.Contains(got, address(i+1)+"/24") {
			t.Errorf("%s has %s", host, got)
		}
		if got := t.exec(host, "cat", "/proc/1/cmdline"); !strings.Contains(got, "rexlab-host") {
			t.Errorf("PID 1 of %s is %q", host, got)
		}
		for _, dir := range overlaid {
			t.exec(host, "sh", "-c", "echo "+host+" >"+dir+"/rexlab-test")
		}
	}
	for _, dir := range overlaid {
		if got := t.exec("a", "cat", dir+"/rexlab-test"); got != "a" {
			t.Errorf("%s of a is not its own: it has %q", dir, got)
		}
		if _, err := os.Stat(dir + "/rexlab-test"); err == nil {
			t.Errorf("%s of the machine was changed", dir)
		}
	}
	if _, err := os.Stat("/var/lib/pgsql"); err == nil {
		t.Log("the machine has a /var/lib/pgsql of its own")
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
	if strings.Join(strings.Fields(who), " ") != "postgres haclient haclient /var/lib/postgresql" {
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
		secret := strings.TrimSpace(t.exec("a", "sh", "-c", "head -1 "+passFile+" | cut -d: -f5"))
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

// testServices: started now, and again when it ends; in its own folder, with its own log.
func testServices(t tool) {
	ctx := t.Context()
	s := Service{
		Name: "ticker", User: "postgres", Group: "haclient", Env: []string{"GREETING=hello"},
		Argv: []string{"sh", "-c", `echo "$GREETING $(id -un) $(id -Gn)"; touch "$RUNTIME_DIRECTORY/it" && exec sleep 1000`},
	}
	t.must(t.lab.Enable(ctx, "b", s))
	if err := t.lab.Enable(ctx, "b", s); err == nil {
		t.Error("a service is enabled twice")
	}
	starts := func(n int) {
		t.Helper()
		t.must(t.lab.WaitFor(ctx, "the service's greeting", func(context.Context) (bool, error) {
			log := t.lab.ServiceLog("b", "ticker")
			return strings.Count(log, "hello postgres haclient\n") == n, errors.New(log)
		}))
	}
	t.must(t.lab.WaitFor(ctx, "the service's folder", func(ctx context.Context) (bool, error) {
		_, err := t.lab.Exec(ctx, "b", "test", "-e", "/run/ticker/it")
		return err == nil, err
	}))
	t.exec("b", "sh", "-c", "kill -9 $(pgrep -x sleep -u postgres)")
	starts(2)
	state, err := t.lab.state(ctx, "b")
	t.must(err)
	if len(state.Services) != 1 || state.Services[0] != "ticker" {
		t.Errorf("services: %v", state.Services)
	}
	if err := t.lab.Enable(ctx, "b", Service{Name: "none", Argv: []string{"/no/such/program"}}); err == nil {
		t.Error("a program that is not there is enabled")
	}
	if err := t.lab.Disable(ctx, "b", "none"); err == nil {
		t.Error("an unknown service is disabled")
	}
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
	t.exec("a", "touch", dataDir+"/was_here")
	t.must(t.lab.Copy(ctx, "a", ""))
	t.timed("copy and streaming", t.lab.WaitStreaming(ctx, "a"), begin)
	if _, err := t.lab.Exec(ctx, "a", "test", "-e", dataDir+"/was_here"); err == nil {
		t.Error("the folder is still the old one")
	}
}

// testPower: a host without power is gone; with it, it comes back, and its services too.
func testPower(t tool) {
	ctx := t.Context()
	t.must(t.lab.Enable(ctx, "a", Service{Name: "beeper", Argv: []string{"sh", "-c", "echo beep; exec sleep 1000"}}))
	beeps := func(want string) {
		t.Helper()
		t.must(t.lab.WaitFor(ctx, "the service's beeps", func(context.Context) (bool, error) {
			log := t.lab.ServiceLog("a", "beeper")
			return log == want, errors.New(log)
		}))
	}
	beeps("beep\n")
	before, err := t.lab.state(ctx, "a")
	t.must(err)
	t.must(t.lab.Off(ctx, "a"))
	if before.Process.Alive() {
		t.Error("PID 1 of a lives without power")
	}
	if _, err := t.lab.Exec(ctx, "a", "true"); err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("a command without power: %v", err)
	}
	t.must(t.lab.Off(ctx, "a")) // once more: nothing to do
	begin := time.Now()
	t.timed("power on", t.lab.On(ctx, "a"), begin)
	t.timed("power on and streaming", t.lab.WaitStreaming(ctx, "a"), begin)
	beeps("beep\nbeep\n")
	t.must(t.lab.Disable(ctx, "a", "beeper"))
	if out, err := t.lab.Exec(ctx, "a", "test", "-e", "/run/beeper"); err == nil {
		t.Errorf("the service's folder is still there: %s", out)
	}
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

// testFencing: a host without network is powered off by the other one, and so is one whose primary hangs.
func testFencing(t tool) {
	ctx, begin := t.Context(), time.Now()
	off := func(host string) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			state, err := t.lab.state(ctx, host)
			return err == nil && !state.On, err
		}
	}
	t.must(t.lab.Cut(ctx, "a"))
	t.timed("fencing of a host without network", t.lab.WaitFor(ctx, "the fencing of a", off("a")), begin)
	t.must(t.lab.Heal(ctx, "a"))
	t.must(t.lab.On(ctx, "a"))
	t.must(t.lab.WaitStreaming(ctx, "a"))
	t.must(t.lab.WaitFor(ctx, "a as a standby that can take over", func(ctx context.Context) (bool, error) {
		status, err := t.lab.Status(ctx)
		return err == nil && status.Hosts[0].Status == "HS:sync", err
	}))
	t.must(t.lab.Freeze(ctx, "b"))
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := t.lab.SQL(limited, "b", "SELECT 1"); err == nil {
		t.Error("a frozen server answers")
	}
	t.must(t.lab.Thaw(ctx, "b"))
	t.sql("b", "SELECT 1")
	begin = time.Now()
	t.must(t.lab.Freeze(ctx, "b"))
	t.timed("fencing of a frozen primary", t.lab.WaitFor(ctx, "the fencing of b", off("b")), begin)
	t.timed("failover from a frozen primary", t.lab.WaitPrimary(ctx, "a"), begin)
}
