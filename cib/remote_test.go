package cib

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// servedTools are scripts in place of Pacemaker's tools, and both ends of a connection over which they are run. As
// root they
// are run as a user that may do nothing.
type servedTools struct {
	t      *testing.T
	folder string // everybody may write there
	remote *Remote
	theirs net.Conn
	served chan error

	heldOut atomic.Int32
}

func serveTools(t *testing.T, scripts map[string]string) *servedTools {
	t.Helper()
	s := &servedTools{t: t, folder: t.TempDir(), served: make(chan error, 1)}
	for folder, mode := range map[string]os.FileMode{filepath.Dir(s.folder): 0o711, s.folder: 0o777} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(s.folder, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", s.folder+":"+os.Getenv("PATH"))
	as := syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid()), NoSetGroups: true}
	if os.Geteuid() == 0 {
		as = syscall.Credential{Uid: 65534, Gid: 65534}
	}
	ours, theirs := connected(t)
	s.theirs = theirs
	environ := Environment([]string{"PATH=" + os.Getenv("PATH"), "CIB_file=F", "PCMK_debug=1", "LD_PRELOAD=x", "HOME=/root", "ODD=1"}, "dba", "/home/dba")
	go func() { s.served <- Serve(theirs, as, environ, func() { s.heldOut.Add(1) }) }()
	s.remote = newRemote(ours)
	t.Cleanup(func() {
		_ = ours.Close()
		if err := <-s.served; err != nil {
			t.Error(err)
		}
		<-s.remote.Ended()
	})
	return s
}

func connected(t *testing.T) (one, other net.Conn) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		file := os.NewFile(uintptr(fd), "end")
		if ends[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
	}
	return ends[0], ends[1]
}

// pid waits until a script has written a process's number into a file.
func (s *servedTools) pid(name string) int {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(s.folder, name))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	s.t.Fatalf("nobody has written %s", name)
	return 0
}

// gone waits until a process has ended.
func (s *servedTools) gone(pid int) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("process %d still runs", pid)
		}
	}
}

// TestRemote: what a tool prints, how it ends, as whom it runs and in which environment.
func TestRemote(t *testing.T) {
	s := serveTools(t, map[string]string{
		"crm_node":      `id -u; id -G; echo "$@" >&2; exit 7`,
		"crm_attribute": "env",
		"crm_mon":       `cat "$CIB_file"`,
		"crm_resource":  "kill -TERM $$",
	})
	r, err := s.remote.run(t.Context(), call{path: "crm_node", args: []string{"a b", ""}, limit: 100})
	if want := fmt.Sprintf("%d\n%[1]d\n", 65534); err == nil || r.exit != 7 || r.stderr != "a b" || os.Geteuid() == 0 && string(r.stdout) != want {
		t.Errorf("%q, %q, %d, %v", r.stdout, r.stderr, r.exit, err)
	}
	r, err = s.remote.run(t.Context(), call{path: "crm_attribute", limit: 10000})
	got := strings.Fields(string(r.stdout))
	slices.Sort(got)
	got = slices.DeleteFunc(got, func(v string) bool { return strings.HasPrefix(v, "PWD=") || strings.HasPrefix(v, "PATH=") }) // the shell's
	want := []string{"CIB_file=F", "HOME=/home/dba", "LC_ALL=C", "LOGNAME=dba", "PCMK_debug=1", "USER=dba"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the tools' environment is %v, %v", got, err)
	}
	cib := []byte(strings.Repeat("<cib/>\n", 1<<18)) // more than a pipe holds
	r, err = s.remote.run(t.Context(), call{path: "crm_mon", stdin: cib, limit: maxReport})
	if err != nil || string(r.stdout) != string(cib) {
		t.Errorf("of a CIB of %d bytes it reads %d, %v, %s", len(cib), len(r.stdout), err, r.stderr)
	}
	r, err = s.remote.run(t.Context(), call{path: "crm_resource", limit: 100})
	if err == nil || r.exit != -1 || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("a tool that was killed: %d, %v", r.exit, err)
	}
	if _, err = s.remote.run(t.Context(), call{path: "crm_mon", stdin: cib, limit: 1000}); !errors.Is(err, errOutputTooLong) {
		t.Errorf("too much output: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.folder, "crm_resource"), []byte("#!/not/there"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err = s.remote.run(t.Context(), call{path: "crm_resource", limit: 1}); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "no such") != 1 {
		t.Errorf("a tool that cannot be started: %v", err)
	}
	if err := os.Remove(filepath.Join(s.folder, "crm_mon")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", s.folder)
	if _, err = s.remote.run(t.Context(), call{path: "crm_mon", limit: 1}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a tool that is not there: %v", err)
	}
}

// TestRemoteRefuses: nothing but Pacemaker's tools is run, however it is called; and a strange message ends everything.
func TestRemoteRefuses(t *testing.T) {
	s := serveTools(t, map[string]string{"cibadmin": "echo ran"})
	for _, path := range []string{"sh", filepath.Join(s.folder, "cibadmin"), "", "../cibadmin"} {
		r, err := s.remote.run(t.Context(), call{path: path, args: []string{"-c", "true"}, limit: 100})
		if err == nil || !strings.Contains(err.Error(), "none of Pacemaker's tools") || len(r.stdout) > 0 {
			t.Errorf("%q: %q, %v", path, r.stdout, err)
		}
	}
	for name, message := range map[string]string{
		"too long": string(binary.BigEndian.AppendUint32(nil, maxCall+1)), "no JSON": "\x00\x00\x00\x01{", "unknown field": "\x00\x00\x00\x07{\"x\":1}",
	} {
		ours, theirs := connected(t)
		if _, err := io.WriteString(ours, message); err != nil {
			t.Fatal(err)
		}
		if err := Serve(theirs, syscall.Credential{}, nil, func() {}); err == nil {
			t.Errorf("%s: it is a message", name)
		}
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection is still there: %v", name, err)
		}
		_ = ours.Close()
	}
}

// TestRemoteCutOff: the other part may end in the middle of a message. That is its end, and no fault.
func TestRemoteCutOff(t *testing.T) {
	for _, message := range []string{"", "\x00\x00", "\x00\x00\x00\x09", "\x00\x00\x00\x09{\"id\""} {
		ours, theirs := connected(t)
		if _, err := io.WriteString(ours, message); err != nil {
			t.Fatal(err)
		}
		_ = ours.Close()
		if err := Serve(theirs, syscall.Credential{}, nil, func() {}); err != nil {
			t.Errorf("cut off after %q: %v", message, err)
		}
	}
}

const sleeper = "echo $$ >$0.pid; sleep 600 & echo $! >$0.child; wait"

// TestRemoteKills: a call that is cancelled, or takes too long, takes all with it that it has started; others go on.
func TestRemoteKills(t *testing.T) {
	s := serveTools(t, map[string]string{"crm_resource": sleeper, "crm_attribute": "echo done"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.remote.run(ctx, call{path: "crm_resource", limit: 100})
		ended <- err
	}()
	pid, child := s.pid("crm_resource.pid"), s.pid("crm_resource.child")
	var all sync.WaitGroup
	for range maxCalls - 1 {
		all.Go(func() {
			if r, err := s.remote.run(t.Context(), call{path: "crm_attribute", limit: 100}); err != nil || string(r.stdout) != "done\n" {
				t.Errorf("beside another: %q, %v", r.stdout, err)
			}
		})
	}
	all.Wait()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	s.gone(pid)
	s.gone(child)
	short, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer end()
	if _, err := s.remote.run(short, call{path: "crm_resource", limit: 100}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("too late: %v", err)
	}
}

// TestRemoteEnds: with either part the tools end, and the one that is left can say so.
func TestRemoteEnds(t *testing.T) {
	s := serveTools(t, map[string]string{"crm_resource": sleeper})
	remote.Store(s.remote)
	defer remote.Store(nil)
	ended := make(chan error)
	go func() { ended <- Cleanup("pgsql", "pm01").Run(t.Context()) }()
	child := s.pid("crm_resource.child")
	_ = s.theirs.Close() // as if that part were killed
	for _, err := range []error{<-ended, Cleanup("pgsql", "pm01").Run(t.Context())} {
		const want = "the part of pgrex that runs Pacemaker's tools has ended: type, as root: crm_resource --cleanup --resource pgsql --node pm01"
		if !errors.Is(err, ErrEnded) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("it says: %v", err)
		}
	}
	if _, err := (&Client{}).Read(t.Context()); !errors.Is(err, ErrEnded) || !strings.HasSuffix(err.Error(), "start pgrex again, as root") {
		t.Errorf("it says: %v", err)
	}
	s.gone(child)
}

// TestHoldOut: the other process knows before this one goes on; and it may end.
func TestHoldOut(t *testing.T) {
	if err := HoldOut(t.Context()); err != nil {
		t.Errorf("without another process: %v", err)
	}
	s := serveTools(t, nil)
	if err := s.remote.holdOut(t.Context()); err != nil || s.heldOut.Load() != 1 {
		t.Errorf("%v; it was told %d times", err, s.heldOut.Load())
	}
	if err := s.theirs.Close(); err != nil {
		t.Fatal(err)
	}
	<-s.remote.Ended()
	if err := s.remote.holdOut(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("after its end: %v", err)
	}
}

// TestNothingElseIsRun: this process runs no other programs itself, either.
func TestNothingElseIsRun(t *testing.T) {
	for _, path := range []string{"sh", "/bin/sh", "", "./rpm", "/bin/cibadmin/sh", "crm_standby"} {
		r, err := call{path: path, args: []string{"-c", "true"}, limit: 100}.run(t.Context())
		if err == nil || r.exit != -1 || !strings.Contains(err.Error(), "pgrex does not run") {
			t.Errorf("%q: %+v, %v", path, r, err)
		}
	}
}

// TestRemoteBounded: the same where root has no capabilities but those of pgrex-rejoin.service, and the group of the
// tools.
func TestRemoteBounded(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has capabilities to lose")
	}
	run := func(tests string, more ...string) (string, error) {
		bounded := append([]string{"--regid=65534", "--clear-groups"}, more...)
		cmd := exec.CommandContext(t.Context(), "setpriv", append(bounded, os.Args[0], "-test.v", "-test.run="+tests)...)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const bound = "--bounding-set=-all,+setuid,+setgid"
	if out, err := run("^(TestRemote|TestRemoteKills|TestRemoteSimulates)$", bound); err != nil || !strings.Contains(out, "--- PASS: TestRemoteSimulates") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("^TestRemote$", "--bounding-set=-all"); err == nil { // the test can fail
		t.Errorf("without any capability it ends well: %s", out)
	}
}

// TestRemoteSimulates: the scheduler's simulator may write into a folder of its own, which is gone afterwards.
func TestRemoteSimulates(t *testing.T) {
	s := serveTools(t, map[string]string{simulator: `cat "$CIB_file" >"$CIB_shadow_dir/x" && cat "$CIB_shadow_dir/x" && echo "$CIB_shadow_dir"`})
	r, err := s.remote.run(t.Context(), call{path: simulator, stdin: []byte("<cib/>\n"), limit: 1000})
	text, folder, _ := strings.Cut(strings.TrimSpace(string(r.stdout)), "\n")
	if err != nil || text != "<cib/>" {
		t.Fatalf("%q, %v, %s", r.stdout, err, r.stderr)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", folder, err)
	}
}
