package cib

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script makes a cibadmin, or what stands for another tool, that does what the shell text says.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cibadmin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The real tools need no cluster with CIB_file.
func TestClientReadsWithRealTools(t *testing.T) {
	file, err := filepath.Abs("../../shared/cib/lab/3node-healthy.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range systems(t) {
		t.Setenv("CIB_file", file)
		got, err := s.client().Read(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		want, err := s.client().Interpret(t.Context(), readFile(t, file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got.Clones) != 1 {
			t.Errorf("%s: file (-) and cibadmin (+) differ:\n%s", s.name, diff)
		}
	}
}

// What the real cibadmin does with files that are no CIB; the texts are the releases' own. (One that is cut off it
// mends, and says nothing.)
func TestClientWithRealCibadminAndBadFiles(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{"text": "hello", "empty": "", "missing": ""} {
		file := filepath.Join(folder, name)
		if name != "missing" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("CIB_file", file)
		for _, s := range systems(t) {
			_, err := s.client().Read(t.Context())
			if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), s.tool("cibadmin")+" --query failed with ") ||
				!strings.HasSuffix(err.Error(), "see whether CIB_file="+file+" is a CIB that this user can read") {
				t.Errorf("%s, %s: %v", s.name, name, err)
			}
		}
	}
}

func checkError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if !errors.Is(err, kind) {
		t.Errorf("%v is not a %q", err, kind)
	}
	if err.Error() != text {
		t.Errorf("error\n got %q\nwant %q", err, text)
	}
}

// What cibadmin does when Pacemaker is down was seen with release 2.1.5, as were the texts.
const disconnected = `echo "Could not connect to the CIB: Transport endpoint is not connected
Init failed, could not perform requested operations" >&2; exit 102`

func TestClientErrors(t *testing.T) {
	t.Setenv("CIB_file", "")
	t.Setenv("CIB_shadow", "")
	cases := map[string]struct {
		script   string
		outsider bool
		kind     error
		text     string
	}{
		"cluster down": {script: disconnected, kind: ErrClusterDown,
			text: "Pacemaker is not running: CIBADMIN --query failed with 102; start it as root with systemctl start pacemaker, or see systemctl status pacemaker " +
				"(it says: Could not connect to the CIB: Transport endpoint is not connected Init failed, could not perform requested operations)"},
		"not in haclient": {script: disconnected, outsider: true, kind: ErrPermission,
			text: "no permission to use Pacemaker's tools: CIBADMIN --query failed with 102, and this program is not in the group haclient; " +
				inGroup + " (it says: Could not connect to the CIB: Transport endpoint is not connected Init failed, could not perform requested operations)"},
		"refused": {script: "exit 4", kind: ErrPermission,
			text: "no permission to use Pacemaker's tools: CIBADMIN --query failed with 4; " + inGroup},
		"timed out by itself": {script: "exit 124", kind: ErrTimeout,
			text: "no answer in time: CIBADMIN --query failed with 124; see whether Pacemaker on this host hangs or is overloaded"},
		"bad configuration": {script: "exit 78", kind: ErrFailed,
			text: "Pacemaker's tools failed: CIBADMIN --query failed with 78; crm_error --exit 78 explains it"},
		"before 2.0.3": {script: "exit 64", kind: ErrFailed,
			text: "Pacemaker's tools failed: CIBADMIN --query failed with 64: it does not know these options; pgrex needs Pacemaker 2.0.3 or newer"},
		"anything else": {script: `printf 'one\n\ttwo\001\n' >&2; exit 3`, kind: ErrFailed,
			text: "Pacemaker's tools failed: CIBADMIN --query failed with 3; crm_error --exit 3 explains it (it says: one two)"},
		"killed": {script: "kill -SEGV $$", kind: ErrFailed,
			text: "Pacemaker's tools failed: CIBADMIN --query: signal: segmentation fault"},
		"nonsense": {script: "echo hello", kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is not XML; query it again with cibadmin --query"},
		"nothing": {script: "exit 0", kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is empty; query it again with cibadmin --query"},
		"half a CIB": {script: `echo '<cib epoch="1"><configuration><nodes>'`, kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is cut off, or its tags do not match; query it again with cibadmin --query"},
		"20 MB": {script: "head -c 20000000 /dev/zero", kind: ErrUnparseable,
			text: "the CIB cannot be understood: CIBADMIN --query printed more than Pacemaker ever does; is this a CIB?"},
		"endless": {script: "yes", kind: ErrUnparseable,
			text: "the CIB cannot be understood: CIBADMIN --query printed more than Pacemaker ever does; is this a CIB?"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := script(t, c.script)
			client := &Client{CIBAdmin: path, mayConnect: func() bool { return !c.outsider }}
			_, err := client.Read(t.Context())
			checkError(t, err, c.kind, strings.ReplaceAll(c.text, "CIBADMIN", path))
		})
	}
}

func TestClientWithoutTools(t *testing.T) {
	const install = "no such program; install pacemaker-cli-utils (RPM: pacemaker-cli), or put it on PATH"
	_, err := (&Client{CIBAdmin: "/does/not/exist/cibadmin"}).Read(t.Context())
	checkError(t, err, ErrNotInstalled, "Pacemaker's tools are not installed: /does/not/exist/cibadmin --query: "+install)
	_, err = (&Client{CrmNode: "/does/not/exist/cibadmin"}).LocalName(t.Context())
	checkError(t, err, ErrNotInstalled, "Pacemaker's tools are not installed: /does/not/exist/cibadmin --name: "+install)
	healthy := readFile(t, "../../shared/cib/lab/3node-healthy.xml")
	_, err = (&Client{CrmMon: "/does/not/exist/cibadmin"}).Interpret(t.Context(), healthy)
	checkError(t, err, ErrNotInstalled, "Pacemaker's tools are not installed: /does/not/exist/cibadmin --version: "+install)
	t.Setenv("PATH", t.TempDir())
	_, err = (&Client{}).Read(t.Context())
	checkError(t, err, ErrNotInstalled, "Pacemaker's tools are not installed: cibadmin --query: "+install)
}

func TestClientMayNotExecute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cibadmin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&Client{CIBAdmin: path}).Read(t.Context())
	checkError(t, err, ErrPermission, "no permission to use Pacemaker's tools: this user may not run "+path+" --query; "+inGroup)
}

// monitor makes a crm_mon that tells its release as the real one does, and otherwise does what the shell text says.
func monitor(t *testing.T, text string) *Client {
	t.Helper()
	return &Client{CrmMon: script(t, `[ "$1" = --version ] && exec crm_mon --version`+"\n"+text)}
}

// Whatever crm_mon does wrong, there is an error that says so, and no cluster.
func TestTroubleWithCrmMon(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		kind error
		says string
	}{
		"hangs":             {"sleep 1000", ErrTimeout, "--one-shot was killed after "},
		"killed":            {"kill -KILL $$", ErrFailed, "--one-shot: signal: killed"},
		"too old":           {"exit 64", ErrFailed, "pgrex needs Pacemaker 2.0.3 or newer"},
		"no cluster":        {"exit 102", ErrClusterDown, "--one-shot failed with 102"},
		"says nothing":      {"exit 0", ErrUnparseable, "crm_mon's answer is not understood: it is empty"},
		"no XML":            {"echo Connection refused", ErrUnparseable, "crm_mon's answer is not understood"},
		"half an answer":    {"crm_mon \"$@\" | head -c 2000", ErrUnparseable, "crm_mon's answer is not understood: it is not Pacemaker's XML, or cut off"},
		"whole, but failed": {"crm_mon \"$@\"; exit 1", ErrFailed, "--one-shot failed with 1"},
		"endless":           {"yes", ErrUnparseable, "printed more than Pacemaker ever does"},
	} {
		t.Run(name, func(t *testing.T) {
			client := monitor(t, c.text)
			if name == "hangs" {
				if _, err := client.Tools(t.Context()); err != nil {
					t.Fatal(err)
				}
				client.Timeout = 500 * time.Millisecond
			}
			cluster, err := client.Interpret(t.Context(), readFile(t, "../../shared/cib/lab/3node-healthy.xml"))
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || len(cluster.Nodes) > 0 {
				t.Errorf("%v, %v; want %v and %q", cluster, err, c.kind, c.says)
			}
		})
	}
}

// crm_mon gets the very bytes on its standard input, in English, and nothing that would lead it elsewhere.
func TestCrmMonGetsTheBytes(t *testing.T) {
	for name, value := range map[string]string{"CIB_file": "/elsewhere", "CIB_shadow": "trial", "CIB_port": "1234", "CIB_server": "far", "LC_ALL": "ja_JP.UTF-8"} {
		t.Setenv(name, value)
	}
	folder := t.TempDir()
	client := monitor(t, `cd `+folder+`; env | grep -E '^(CIB_|LC_ALL)' | sort >environment; echo "$*" >arguments; cat >bytes; exit 1`)
	client.CIBAdmin = script(t, `[ "$1" = --empty ] && exec cibadmin --empty; exit 1`)
	data := readFile(t, "../../shared/cib/lab/3node-healthy.xml")
	if _, err := client.Interpret(t.Context(), data); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"bytes": string(data), "environment": "CIB_file=/proc/self/fd/0\nLC_ALL=C\n", "arguments": "--one-shot --inactive --output-as=xml --exclude=all --include=dc,options,nodes,resources\n",
	} {
		if got := string(readFile(t, filepath.Join(folder, file))); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// crm_mon is asked again when the bytes are others, or a minute has passed, and not otherwise; nor is a failure
// remembered.
func TestCrmMonIsAskedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cib.xml")
	t.Setenv("CIB_file", file)
	log := filepath.Join(t.TempDir(), "log")
	client := monitor(t, `echo asked >>`+log+`; [ ! -e `+log+`.fail ] && exec crm_mon "$@"; exit 1`)
	healthy := string(readFile(t, "../../shared/cib/lab/3node-healthy.xml"))
	ask := func(text string, times int, fails bool) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if cluster, err := client.Read(t.Context()); (err != nil) != fails || !fails && len(cluster.Nodes) != 3 {
			t.Fatalf("%v, %v", cluster, err)
		}
		if asked := strings.Count(string(readFile(t, log)), "asked"); asked != times {
			t.Errorf("crm_mon was asked %d times, not %d", asked, times)
		}
	}
	ask(healthy, 1, false)
	ask(healthy, 1, false)
	ask(strings.Replace(healthy, `num_updates="`, `num_updates="9`, 1), 2, false)
	client.last.at = client.last.at.Add(-maxAge)
	ask(strings.Replace(healthy, `num_updates="`, `num_updates="9`, 1), 3, false)
	if err := os.WriteFile(log+".fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask(healthy, 4, true)
	if err := os.Remove(log + ".fail"); err != nil {
		t.Fatal(err)
	}
	ask(healthy, 5, false)
}

// Another release is noticed by crm_mon being another file.
func TestToolsAreAskedAgain(t *testing.T) {
	both := systems(t)
	path := filepath.Join(t.TempDir(), "crm_mon")
	client := &Client{CrmMon: path}
	for _, s := range both {
		target, err := exec.LookPath(s.tool("crm_mon"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".new", []byte("#!/bin/sh\nexec "+target+` "$@"`+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		want, err := s.client().Tools(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := client.Tools(t.Context()); err != nil || got.Version != want.Version || got.Version == "" {
			t.Errorf("%s: %v, %v", s.name, got, err)
		}
	}
}

// What needs no input reads /dev/null.
func TestToolsHaveNoInput(t *testing.T) {
	client := &Client{CrmNode: script(t, "readlink /proc/self/fd/0")}
	if input, err := client.LocalName(t.Context()); err != nil || input != "/dev/null" {
		t.Errorf("crm_node reads %q, %v", input, err)
	}
}

// Tools that were asked in the middle of an upgrade refuse a CIB once: they are asked again at the next look.
func TestToolsOfAHalfUpgrade(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	client := &Client{CIBAdmin: script(t, `[ -e `+done+` ] && exec cibadmin "$@"; cibadmin "$@" | sed 's/crm_feature_set="[^"]*"/crm_feature_set="3.0.14"/'`)}
	healthy := readFile(t, "../../shared/cib/lab/3node-healthy.xml")
	if _, err := client.Interpret(t.Context(), healthy); !errors.Is(err, ErrUnparseable) || !strings.Contains(err.Error(), "newer than Pacemaker's tools here") {
		t.Fatal(err)
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Interpret(t.Context(), healthy); err != nil {
		t.Error(err)
	}
}

func TestLocalName(t *testing.T) {
	for text, want := range map[string]string{"echo pm01": "pm01", "exit 102": "", "echo": "", "echo pm01 or so": "", "echo pm01; exit 1": ""} {
		client := &Client{CrmNode: script(t, text), mayConnect: func() bool { return true }}
		if name, err := client.LocalName(t.Context()); name != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", text, name, err)
		}
	}
}

// The package of an agent's own file; an agent that is no file has none.
func TestAgentVersion(t *testing.T) {
	client := &Client{}
	if version := client.AgentVersion(t.Context(), "ocf:heartbeat:pgsql"); !regexp.MustCompile(`^[0-9][0-9:.a-z+~-]*$`).MatchString(version) {
		t.Errorf("ocf:heartbeat:pgsql has version %q; is resource-agents installed?", version)
	}
	for _, agent := range []string{"ocf:heartbeat:nonesuch", "systemd:postgresql", "ocf:..:..", "ocf:heartbeat:../../etc/passwd", ""} {
		if version := client.AgentVersion(t.Context(), agent); version != "" {
			t.Errorf("%s has version %q", agent, version)
		}
	}
}

// Trap 24: a tool that hangs is killed with everything that it started, also when that holds the pipe open.
func TestClientKillsAHangingTool(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, "echo stuck >&2; sleep 1000 & echo $$ $! > "+pids+"; wait")
	started := time.Now()
	_, err := (&Client{CIBAdmin: path, Timeout: 3 * time.Second}).Read(t.Context())
	text := regexp.MustCompile(`^no answer in time: ` + regexp.QuoteMeta(path) + ` --query was killed after [0-9.]+m?s; ` +
		`see whether Pacemaker on this host hangs or is overloaded \(it says: stuck\)$`)
	if !errors.Is(err, ErrTimeout) || !text.MatchString(err.Error()) {
		t.Errorf("%v", err)
	}
	if took := time.Since(started); took > time.Minute {
		t.Errorf("took %s", took)
	}
	allGone(t, pids)
}

// A child that left the pipe open does not delay a good answer for long, and does not survive it.
func TestClientWithAGrandchildThatKeepsThePipe(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, `echo pm01; sleep 1000 & echo $! > `+pids)
	started := time.Now()
	name, err := (&Client{CrmNode: path, Timeout: 30 * time.Second}).LocalName(t.Context())
	if err != nil || name != "pm01" {
		t.Errorf("got %q, %v", name, err)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	allGone(t, pids)
}

// allGone waits until no process of the list is alive.
func allGone(t *testing.T, list string) {
	t.Helper()
	for _, text := range strings.Fields(string(readFile(t, list))) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still alive", pid)
			}
		}
	}
}

// alive: a zombie that nobody has waited for yet is not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

func TestClientIsCancelled(t *testing.T) {
	path := script(t, "sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := (&Client{CIBAdmin: path}).Read(ctx)
	checkError(t, err, context.Canceled, path+" --query: context canceled")
}

func TestClientSpeaksEnglishAndInheritsTheEnvironment(t *testing.T) {
	t.Setenv("LC_ALL", "ja_JP.UTF-8")
	t.Setenv("CIB_shadow", "trial")
	path := script(t, `echo "$LC_ALL $CIB_shadow $*" >&2; exit 3`)
	_, err := (&Client{CIBAdmin: path}).Read(t.Context())
	checkError(t, err, ErrFailed, "Pacemaker's tools failed: "+path+
		" --query failed with 3; crm_error --exit 3 explains it (it says: C trial --query); see whether CIB_shadow=trial is a CIB that this user can read")
}

func TestErrorsKeepTheEndOfLongTexts(t *testing.T) {
	path := script(t, `i=0; while [ $i -lt 2000 ]; do echo "line $i ü" >&2; i=$((i+1)); done; exit 3`)
	_, err := (&Client{CIBAdmin: path}).Read(t.Context())
	if err == nil || len(err.Error()) > 600 || !strings.HasSuffix(err.Error(), "line 1999 ü)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
