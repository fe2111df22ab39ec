package cib

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script makes a cibadmin that does what the shell text says.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cibadmin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The real cibadmin needs no cluster with CIB_file.
func TestClientReadsWithRealCibadmin(t *testing.T) {
	file, err := filepath.Abs("../../shared/cib/lab/3node-healthy.xml")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CIB_file", file)
	got, err := (&Client{}).Read(t.Context())
	if err != nil {
		t.Fatalf("%v (is pacemaker-cli-utils installed?)", err)
	}
	want, err := Parse(readFile(t, file))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("file (-) and cibadmin (+) differ:\n%s", diff)
	}
}

// What the real cibadmin does with files that are no CIB. (One that is cut off it mends, and says nothing.)
func TestClientWithRealCibadminAndBadFiles(t *testing.T) {
	for name, content := range map[string]string{"text": "hello", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cib.xml")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("CIB_file", file)
			_, err := (&Client{}).Read(t.Context())
			checkError(t, err, ErrFailed, "the CIB cannot be read: cibadmin --query failed with 78; see whether CIB_file="+file+
				" is a CIB that this user can read (it says: Could not connect to the CIB: Update does not conform to the configured schema "+
				"Init failed, could not perform requested operations)")
		})
	}
	t.Run("missing", func(t *testing.T) {
		t.Setenv("CIB_file", "/does/not/exist")
		_, err := (&Client{}).Read(t.Context())
		checkError(t, err, ErrFailed, "the CIB cannot be read: cibadmin --query failed with 105; see whether CIB_file=/does/not/exist "+
			"is a CIB that this user can read (it says: Could not connect to the CIB: No such device or address "+
			"Init failed, could not perform requested operations)")
	})
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
			text: "Pacemaker is not running: CIBADMIN --query failed with 102; start the cluster on this host, or see systemctl status pacemaker " +
				"(it says: Could not connect to the CIB: Transport endpoint is not connected Init failed, could not perform requested operations)"},
		"not in haclient": {script: disconnected, outsider: true, kind: ErrPermission,
			text: "no permission to read the CIB: CIBADMIN --query failed with 102, and this user is not in the group haclient; add it, then " +
				"start this program anew (it says: Could not connect to the CIB: Transport endpoint is not connected Init failed, could not perform requested operations)"},
		"refused": {script: "exit 4", kind: ErrPermission,
			text: "no permission to read the CIB: CIBADMIN --query failed with 4; add this user to the group haclient"},
		"timed out by itself": {script: "exit 124", kind: ErrTimeout,
			text: "no answer in time: CIBADMIN --query failed with 124; see whether pacemaker-based on this host hangs or is overloaded"},
		"bad configuration": {script: "exit 78", kind: ErrFailed,
			text: "the CIB cannot be read: CIBADMIN --query failed with 78; check the CIB with crm_verify --live-check"},
		"anything else": {script: `printf 'one\n\ttwo\001\n' >&2; exit 3`, kind: ErrFailed,
			text: "the CIB cannot be read: CIBADMIN --query failed with 3; crm_error --exit 3 tells what that means (it says: one two)"},
		"killed": {script: "kill -SEGV $$", kind: ErrFailed,
			text: "the CIB cannot be read: CIBADMIN --query: signal: segmentation fault"},
		"nonsense": {script: "echo hello", kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is not XML; query it again with cibadmin --query"},
		"nothing": {script: "exit 0", kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is empty; query it again with cibadmin --query"},
		"half a CIB": {script: `echo '<cib epoch="1"><configuration><nodes>'`, kind: ErrUnparseable,
			text: "the CIB cannot be understood: it is cut off, or its tags do not match; query it again with cibadmin --query"},
		"20 MB": {script: "head -c 20000000 /dev/zero", kind: ErrUnparseable,
			text: "the CIB cannot be understood: CIBADMIN --query printed more than 16777216 bytes; is this a CIB?"},
		"endless": {script: "yes", kind: ErrUnparseable,
			text: "the CIB cannot be understood: CIBADMIN --query printed more than 16777216 bytes; is this a CIB?"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := script(t, c.script)
			client := &Client{Command: path, mayConnect: func() bool { return !c.outsider }}
			_, err := client.Read(t.Context())
			checkError(t, err, c.kind, strings.ReplaceAll(c.text, "CIBADMIN", path))
		})
	}
}

func TestClientWithoutCibadmin(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := (&Client{}).Read(t.Context())
	checkError(t, err, ErrNotInstalled, `cibadmin is not installed: "cibadmin" is not there; install pacemaker-cli-utils (RPM: pacemaker-cli), or put it on PATH`)
	_, err = (&Client{Command: "/does/not/exist"}).Read(t.Context())
	checkError(t, err, ErrNotInstalled, `cibadmin is not installed: "/does/not/exist" is not there; install pacemaker-cli-utils (RPM: pacemaker-cli), or put it on PATH`)
}

func TestClientMayNotExecute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cibadmin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&Client{Command: path}).Read(t.Context())
	checkError(t, err, ErrPermission, "no permission to read the CIB: this user may not run "+path+"; add the user to the group haclient")
}

// Trap 24: a cibadmin that hangs is killed with everything that it started, also when that holds the pipe open.
func TestClientKillsAHangingCibadmin(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, "echo stuck >&2; sleep 1000 & echo $$ $! > "+pids+"; wait")
	started := time.Now()
	_, err := (&Client{Command: path, Timeout: 300 * time.Millisecond}).Read(t.Context())
	checkError(t, err, ErrTimeout, "no answer in time: "+path+" --query was killed after 300ms; "+
		"see whether pacemaker-based on this host hangs or is overloaded (it says: stuck)")
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	allGone(t, pids)
}

// A child that left the pipe open does not delay a good answer for long, and does not survive it.
func TestClientWithAGrandchildThatKeepsThePipe(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, `echo '<cib epoch="7"><configuration/></cib>'; sleep 1000 & echo $! > `+pids)
	started := time.Now()
	c, err := (&Client{Command: path, Timeout: 30 * time.Second}).Read(t.Context())
	if err != nil || c.Version.Epoch != 7 {
		t.Errorf("got %+v, %v", c, err)
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
	_, err := (&Client{Command: path}).Read(ctx)
	checkError(t, err, context.Canceled, path+" --query: context canceled")
}

func TestClientSpeaksEnglishAndInheritsTheEnvironment(t *testing.T) {
	t.Setenv("LC_ALL", "ja_JP.UTF-8")
	t.Setenv("CIB_shadow", "trial")
	path := script(t, `echo "$LC_ALL $CIB_shadow $*" >&2; exit 3`)
	_, err := (&Client{Command: path}).Read(t.Context())
	checkError(t, err, ErrFailed, "the CIB cannot be read: "+path+
		" --query failed with 3; crm_error --exit 3 tells what that means (it says: C trial --query)")
}

func TestErrorsKeepTheEndOfLongTexts(t *testing.T) {
	path := script(t, `i=0; while [ $i -lt 2000 ]; do echo "line $i ü" >&2; i=$((i+1)); done; exit 3`)
	_, err := (&Client{Command: path}).Read(t.Context())
	if err == nil || len(err.Error()) > 600 || !strings.HasSuffix(err.Error(), "line 1999 ü)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
