// Package stories tells on a real cluster what pgrex promises. Each test is a story of the design: hosts fail and come
// back, conditions are awaited, and what was measured is in the log.
package stories

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv"
)

const (
	// pgrex is the program under test on a lab host, built with the race detector.
	pgrex = "/usr/bin/pgrex"
	// unitFolder has its unit on a lab host, and dropIn is what a story changes of it.
	unitFolder = "/usr/lib/systemd/system/"
	dropIn     = "/etc/systemd/system/pgrex.service.d/story.conf"
)

// built is the program under test on this machine.
var built string

func TestMain(m *testing.M) {
	testenv.Main() // a host of the lab is this binary, run again
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "pgrex-stories")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	built = filepath.Join(folder, "pgrex")
	race := "-race=" + strconv.FormatBool(os.Getenv("PGREX_BENCH") == "") // figures are those of the program as it is packaged
	build := exec.Command("go", "build", race, "-o", built, "github.com/pgrex/pgrex/cmd/pgrex")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build pgrex:", err)
		return 1
	}
	return m.Run()
}

// patience bounds what Pacemaker needs for a start, a failover or a fencing on a busy machine.
const patience = 120 * time.Second

// monitor is how often the agent looks at the primary in a story: more often than PG-REX's 9 s, since most of a
// story's time is spent waiting for it. hack/demo and 'rexlab up' have PG-REX's own.
const monitor = 3 * time.Second

// place is what the hosts of a story are.
type place struct{ system, layout string }

func (p place) String() string { return p.system + "-" + p.layout }

var (
	debian13       = place{"debian13", testenv.LayoutPGREX}
	debian12       = place{"debian12", testenv.LayoutPGREX}
	debian13Debian = place{"debian13", testenv.LayoutDebian}
	debian12Debian = place{"debian12", testenv.LayoutDebian}
	sid            = place{"sid", testenv.LayoutPGREX}
	sidDebian      = place{"sid", testenv.LayoutDebian}

	debian13Only = []place{debian13}
	// releases are told of at every run. Debian sid is for --long: its root may fail to be made any day.
	releases    = []place{debian13, debian12}
	bothLayouts = []place{debian13, debian12, debian13Debian}
	// everywhere is where pgrex keeps its promise.
	everywhere = []place{debian13, debian12, sid, debian13Debian, debian12Debian, sidDebian}
	// ownLayout is where the version before, which knew no configuration outside of the data folder, did its operations.
	ownLayout = []place{debian13, debian12, sid}
)

// on tells a story in the places that are named, and with --long in all where it holds. PGREX_PLACES names others for
// a single run, such as "debian12-pgrex debian13-debian".
func on(t *testing.T, named, all []place, config testenv.Config, story func(s *story)) {
	t.Helper()
	if os.Getenv("PGREX_NO_LAB") != "" {
		t.Skip("PGREX_NO_LAB is set: the stories need the lab, and the lab needs root")
	}
	if long() {
		named = all
	}
	if only := os.Getenv("PGREX_PLACES"); only != "" {
		named = slices.DeleteFunc(slices.Clone(everywhere), func(p place) bool { return !slices.Contains(strings.Fields(only), p.String()) })
		if len(named) != len(strings.Fields(only)) {
			t.Fatalf("PGREX_PLACES=%q: the places are %s", only, everywhere)
		}
	}
	t.Parallel()
	for _, at := range named {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			config.System, config.Layout = at.system, at.layout
			story(tell(t, config))
		})
	}
}

// story is one cluster with the tools to tell a story on it.
type story struct {
	t     *testing.T
	lab   *testenv.Lab
	at    testenv.Paths
	ctx   context.Context
	begin time.Time
	mixed bool   // an older pgrex, which keeps a walsender, is among those of the hosts
	older string // a host whose pgrex refuses root, and whose operations its owner types; "" for none
}

// long reports whether the stories run at length: hack/test --long sets PGREX_LONG.
func long() bool { return os.Getenv("PGREX_LONG") != "" }

// inLong leaves a story for hack/test --long.
func inLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skip("PGREX_LONG is not set: hack/test --long tells this story")
	}
}

// tell boots a lab for a story, with pgrex on every host, not started; it is down when the test ends.
func tell(t *testing.T, config testenv.Config) *story {
	t.Helper()
	config.Dir = t.TempDir()
	config.Output = logWriter{t}
	if config.Monitor == 0 {
		config.Monitor = monitor
	}
	begin := time.Now()
	lab, err := testenv.Up(t.Context(), config)
	if err != nil {
		dumpFolder(t, config.Dir)
		t.Fatal(err)
	}
	s := &story{t: t, lab: lab, at: lab.Paths(), ctx: t.Context(), begin: begin}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		s.noRaces(ctx)
		if t.Failed() {
			s.dump(ctx)
		}
		ending, end := context.WithTimeout(context.Background(), time.Minute)
		defer end()
		if err := lab.Down(ending); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d hosts up in %s", len(lab.Hosts()), time.Since(begin).Round(time.Second))
	for _, host := range lab.Hosts() {
		s.install(host)
	}
	return s
}

// install puts pgrex and its unit on a host, where its package has them: TestPackage tells of that.
func (s *story) install(host string) {
	s.t.Helper()
	s.must(s.lab.CopyIn(s.ctx, host, built, pgrex, 0o755))
	for _, unit := range []string{"pgrex.service", "pgrex@.service", "pgrex-rejoin.service", "pgrex-rejoin@.service",
		"pgrex-web.service", "pgrex-web@.service"} {
		s.must(s.lab.CopyIn(s.ctx, host, "../../hack/systemd/"+unit, unitFolder+unit, 0o644))
	}
}

// noRaces fails the story if the race detector has found something in a daemon.
func (s *story) noRaces(ctx context.Context) {
	for _, host := range s.lab.Hosts() {
		said, err := s.lab.Journal(ctx, host, "pgrex", s.begin, "--output=cat")
		if err != nil || strings.Contains(said, "DATA RACE") {
			s.t.Errorf("the journal of pgrex on %s tells of a data race, or cannot be read: %v", host, err)
		}
	}
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// chapter runs one part of a story; a part that fails ends the story, since the next builds on it.
func (s *story) chapter(name string, f func(s *story)) {
	s.t.Helper()
	ok := s.t.Run(name, func(t *testing.T) {
		begin := time.Now()
		f(&story{t: t, lab: s.lab, at: s.at, ctx: t.Context(), begin: s.begin, mixed: s.mixed, older: s.older})
		t.Logf("told in %s", time.Since(begin).Round(100*time.Millisecond))
	})
	if !ok {
		s.t.FailNow()
	}
}

// dump shows what the hosts have said since the story began, and the cluster as it is, so that one reading is enough.
func (s *story) dump(ctx context.Context) {
	for _, host := range s.lab.Hosts() {
		said, err := s.lab.Journal(ctx, host, "", s.begin, "--output=short-precise")
		s.t.Logf("the journal of %s: %v\n%s", host, err, sessions.ReplaceAllString(said, ""))
		log, err := s.lab.Log(host, "postgresql")
		s.t.Logf("PostgreSQL on %s: %v\n%s", host, err, tail(log, 200))
	}
	for _, host := range s.lab.Hosts() {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		out, err := s.lab.Exec(limited, host, "sh", "-c", "date; crm_mon -1Afn; stonith_admin --history '*' --verbose; cibadmin --query")
		cancel()
		s.t.Logf("the cluster as %s sees it: %v\n%s", host, err, out)
	}
}

// dumpFolder shows what a lab that did not boot has left in its folder: its own log, the consoles and the journals.
func dumpFolder(t *testing.T, dir string) {
	t.Helper()
	const show = `for file in "$1"/*.log "$1"/hosts/*/*.log; do echo "$file:"; cat "$file"; done
for journal in "$1"/hosts/*/upper/var/log/journal; do echo "$journal:"; journalctl --no-pager --directory "$journal"; done`
	out, err := exec.Command("sh", "-c", show, "sh", dir).CombinedOutput()
	t.Logf("the lab has not booted: %v\n%s", err, sessions.ReplaceAllString(string(out), ""))
}

// sessions are the lines that the agent's runuser leaves in the journal, several at each monitor.
var sessions = regexp.MustCompile(`(?m)^.*(pam_unix|\(to postgres\)).*\n`)

func tail(text string, most int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// await waits for a condition. What was last seen is in the failure. It looks ever less often, up to twice a second:
// most looks ask Pacemaker, and the hosts need the processors more.
func (s *story) await(within time.Duration, what string, condition func() (bool, string)) time.Duration {
	s.t.Helper()
	begin := time.Now()
	seen := ""
	for pause := 100 * time.Millisecond; ; pause = min(pause*6/5, 500*time.Millisecond) {
		ok, now := condition()
		if ok {
			return time.Since(begin)
		}
		seen = now
		if time.Since(begin) > within {
			s.t.Fatalf("not within %s: %s; last seen: %s", within, what, seen)
		}
		time.Sleep(pause)
	}
}

// start runs the daemon on hosts, under its unit, now and at every boot.
func (s *story) start(hosts ...string) {
	s.t.Helper()
	for _, host := range hosts {
		s.startAs(host)
	}
}

// startAs is start with further arguments on one host, set by a drop-in.
func (s *story) startAs(host string, arguments ...string) {
	s.t.Helper()
	change := ""
	if len(arguments) > 0 {
		change = "[Service]\nExecStart=\nExecStart=" + pgrex + " run " + strings.Join(arguments, " ") + "\n"
	}
	s.must(s.lab.WriteFile(s.ctx, host, dropIn, change, 0o644))
	_, err := s.lab.Exec(s.ctx, host, "sh", "-ec", "systemctl daemon-reload; systemctl --quiet enable --now pgrex")
	s.must(err)
}

// settle starts the daemon on every host, waits until all is right, and marks the data folders.
func (s *story) settle(primary string) {
	s.t.Helper()
	s.start(s.lab.Hosts()...)
	s.awaitRight(patience, primary)
	for _, host := range s.lab.Hosts() {
		s.mark(host)
	}
}

func (s *story) stop(host string) {
	s.t.Helper()
	_, err := s.lab.Exec(s.ctx, host, "systemctl", "--quiet", "disable", "--now", "pgrex")
	s.must(err)
}

// command runs pgrex on a host as the daemon's user and returns its output and exit status.
func (s *story) command(host string, arguments ...string) (output string, status int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	out, err := s.lab.ExecAs(ctx, "postgres", "haclient", host, append([]string{pgrex}, arguments...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode()
	}
	s.must(err)
	return out, 0
}

func (s *story) status(host string) (controller.Status, error) {
	var status controller.Status
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	out, err := s.lab.ExecAs(ctx, "postgres", "haclient", host, pgrex, "status", "-o", "json")
	if out == "" && err != nil {
		return status, err
	}
	return status, json.Unmarshal([]byte(out), &status)
}

// conditions are the codes that hold on a host.
func (s *story) conditions(host string) []model.Code {
	status, err := s.status(host)
	if err != nil {
		return nil
	}
	var codes []model.Code
	for _, c := range status.Conditions {
		codes = append(codes, c.Code)
	}
	return codes
}

func (s *story) awaitCondition(host string, code model.Code) {
	s.t.Helper()
	s.await(patience, fmt.Sprintf("%s says %s", host, code), func() (bool, string) {
		codes := s.conditions(host)
		return slices.Contains(codes, code), fmt.Sprint(codes)
	})
}

const interruptLog = "/tmp/interrupted.log"

// stepSaid finds, as grep does, the line that says that a step is done whose text begins so.
func stepSaid(text string) string { return `^[0-9]*\. ` + text + `.*s)$` }

// interrupt sends a signal to one of pgrex's operations when a line has been reported, and wants it to fail.
func (s *story) interrupt(host, signal, reported string, arguments ...string) error {
	_, err := s.lab.Exec(s.ctx, host, "sh", "-c", fmt.Sprintf(
		`rm -f %[3]s; %[1]s %[2]s --yes >%[3]s 2>&1 & pid=$!; n=0
until grep -q '%[4]s' %[3]s 2>/dev/null; do n=$((n+1)); [ $n -lt 2400 ] && kill -0 $pid || exit 9; sleep 0.05; done
kill -%[5]s $pid; wait $pid; [ $? = 1 ]`, pgrex, strings.Join(arguments, " "), interruptLog, reported, signal))
	return err
}

func (s *story) interruptedOutput(host string) string {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "cat", interruptLog)
	s.must(err)
	s.t.Logf("interrupted:\n%s", out)
	return out
}

func (s *story) sql(host, query string) string {
	s.t.Helper()
	out, err := s.lab.SQL(s.ctx, host, query)
	s.must(err)
	return strings.TrimSpace(out)
}

// ask is sql where the server may be down.
func (s *story) ask(host, query string) string {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
	defer cancel()
	out, err := s.lab.SQL(ctx, host, query)
	if err != nil {
		return "error: " + err.Error()
	}
	return strings.TrimSpace(out)
}

func (s *story) number(host, query string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(s.sql(host, query), 10, 64)
	s.must(err)
	return n
}

// slot names the slot of a host under the default prefix.
func (s *story) slot(host string) string { return s.slotUnder("pgrex", host) }

func (s *story) slotUnder(prefix, host string) string {
	var members []string
	for _, h := range s.lab.Hosts() {
		members = append(members, strings.ToLower(h))
	}
	return model.SlotNames(prefix, members)[strings.ToLower(host)]
}

// reserved reports whether a host holds a reserved slot of each name.
func (s *story) reserved(host string, slots ...string) (bool, string) {
	out := s.ask(host, "SELECT slot_name, restart_lsn IS NOT NULL AND wal_status <> 'lost' FROM pg_replication_slots ORDER BY 1")
	for _, name := range slots {
		if !slices.Contains(strings.Split(out, "\n"), name+"|t") {
			return false, out
		}
	}
	return true, out
}

// streams reports whether the primary has the host attached, streaming, through the host's own slot.
func (s *story) streams(primary, host string) (bool, string) {
	out := s.ask(primary, fmt.Sprintf("SELECT s.slot_name, r.application_name, r.state FROM pg_stat_replication r "+
		"LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE r.application_name = '%s'", application(host)))
	return out == s.slot(host)+"|"+application(host)+"|streaming", out
}

// application is the application_name that the agent gives a host; PostgreSQL cuts it at 63.
func application(host string) string {
	name := strings.ToLower(host)
	return name[:min(len(name), 63)]
}

func (s *story) awaitStreams(primary, host string) time.Duration {
	s.t.Helper()
	return s.await(patience, fmt.Sprintf("%s streams from %s through %s", host, primary, s.slot(host)), func() (bool, string) {
		return s.streams(primary, host)
	})
}

// others are all hosts but one.
func (s *story) others(host string) []string {
	return slices.DeleteFunc(slices.Clone(s.lab.Hosts()), func(h string) bool { return h == host })
}

// noneStands wants no walsender of pgrex that has stood longer than a look may take.
func (s *story) noneStands() {
	s.t.Helper()
	for _, host := range s.lab.Hosts() {
		out := s.ask(host, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pgrex' AND backend_start < now() - '30 s'::interval")
		if out != "0" && !strings.HasPrefix(out, "error") {
			s.t.Errorf("%s has %s walsenders of pgrex in pg_stat_replication that stand there", host, out)
		}
	}
}

// awaitRight waits until every host holds a reserved slot for each other one and each standby streams through its own.
func (s *story) awaitRight(within time.Duration, primary string) time.Duration {
	s.t.Helper()
	if !s.mixed {
		s.noneStands()
	}
	return s.await(within, "slots on every host, and streaming through them", func() (bool, string) {
		for _, host := range s.lab.Hosts() {
			var names []string
			for _, o := range s.others(host) {
				names = append(names, s.slot(o))
			}
			if ok, seen := s.reserved(host, names...); !ok {
				return false, host + " has " + seen
			}
			if host != primary {
				if ok, seen := s.streams(primary, host); !ok {
					return false, host + ": " + seen
				}
			}
		}
		return true, ""
	})
}

func (s *story) primary() string {
	s.t.Helper()
	host, err := s.lab.Primary(s.ctx)
	s.must(err)
	return host
}

// awaitPrimary waits until the host is the confirmed primary to pgrex as well, and takes writes through the virtual IP.
func (s *story) awaitPrimary(host string) time.Duration {
	s.t.Helper()
	return s.await(patience, host+" is the primary and takes writes", func() (bool, string) {
		now, err := s.lab.Primary(s.ctx)
		if err != nil || now != host {
			return false, fmt.Sprint(now, err)
		}
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		defer cancel()
		_, err = s.lab.VIPSQL(ctx, "CREATE TABLE IF NOT EXISTS story (at timestamptz); INSERT INTO story VALUES (now())")
		return err == nil, fmt.Sprint(err)
	})
}

// awaitSuccessor waits until the agent says, at a monitor, that one of these standbys may be promoted. It lets one at
// a time be synchronous: after that one has gone, or just after a failover, nobody may, and a primary lost then has no
// successor.
func (s *story) awaitSuccessor(standbys ...string) {
	s.t.Helper()
	s.await(patience, "one of "+strings.Join(standbys, ", ")+" may be promoted", func() (bool, string) {
		status, err := s.lab.Status(s.ctx)
		return slices.ContainsFunc(status.Hosts, func(h testenv.HostStatus) bool {
			return h.Status == "HS:sync" && h.DataStatus == "STREAMING|SYNC" && slices.Contains(standbys, h.Name)
		}), fmt.Sprint(status.Hosts, err)
	})
}

// awaitStopped waits until Pacemaker has stopped the database on a host, and has nothing more to do there.
func (s *story) awaitStopped(host string) {
	s.t.Helper()
	s.awaitHost(host, "stopped", func(h testenv.HostStatus) bool { return h.Role == "stopped" && h.Status == "STOP" })
}

// awaitUnpromoted waits until Pacemaker has started the database on a host.
func (s *story) awaitUnpromoted(host string) {
	s.t.Helper()
	s.awaitHost(host, "unpromoted", func(h testenv.HostStatus) bool { return h.Role == "unpromoted" })
}

// awaitHost waits until a host is what Pacemaker should have made of it.
func (s *story) awaitHost(host, what string, is func(testenv.HostStatus) bool) {
	s.t.Helper()
	s.await(patience, "the database on "+host+" is "+what, func() (bool, string) {
		status, err := s.lab.Status(s.ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, h := range status.Hosts {
			if h.Name == host {
				return is(h), h.Role + " " + h.Status
			}
		}
		return false, "no such host"
	})
}

// mark leaves a file in a host's data folder, which no copy of another host would have.
func (s *story) mark(host string) {
	s.t.Helper()
	_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", host, "sh", "-c", "hostname >"+s.at.Data+"/copied_never")
	s.must(err)
}

// neverCopied proves that the host's data folder is still the one that was marked.
func (s *story) neverCopied(host string) {
	s.t.Helper()
	out, err := s.lab.Exec(s.ctx, host, "cat", s.at.Data+"/copied_never")
	s.must(err)
	if strings.TrimSpace(out) != host {
		s.t.Fatalf("%s: the data folder is marked %q: it has been copied", host, out)
	}
}

// load writes WAL on the primary and then makes it recycle what it may.
func (s *story) load(primary string, bytes int64) {
	s.t.Helper()
	begin := time.Now()
	s.must(s.lab.Load(s.ctx, primary, bytes))
	s.sql(primary, "CHECKPOINT")
	s.t.Logf("%s wrote %s of WAL in %s", primary, model.FormatBytes(uint64(bytes)), time.Since(begin).Round(time.Second))
}

// walHeld is how much WAL lies in a host's pg_wal, in bytes.
func (s *story) walHeld(host string) int64 {
	s.t.Helper()
	return s.number(host, "SELECT count(*) * 16777216 FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
}

// retained is how much WAL a host's slot holds back, in bytes.
func (s *story) retained(host, slot string) int64 {
	s.t.Helper()
	return s.number(host, fmt.Sprintf("SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "+
		"ELSE pg_current_wal_lsn() END - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = '%s'", slot))
}
