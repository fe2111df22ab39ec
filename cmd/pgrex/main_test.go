package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

// patience bounds every wait of a script.
const patience = time.Minute

// TestMain lets another release of Pacemaker's tools come first, where PGREX_PACEMAKER_TOOLS names their folder
// (hack/debian13).
func TestMain(m *testing.M) {
	if folder := os.Getenv("PGREX_PACEMAKER_TOOLS"); folder != "" {
		if err := os.Setenv("PATH", folder+string(filepath.ListSeparator)+os.Getenv("PATH")); err != nil {
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){"pgrex": main, "starter": startPrograms})
}

// TestScripts runs the whole program as a user does, with Pacemaker's real tools on CIB files, and real PostgreSQL
// servers where the script starts any.
func TestScripts(t *testing.T) {
	for _, tool := range append([]string{"flock", "sh"}, pacemakerTools...) {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; hack/test installs what the tests need", err)
		}
	}
	if _, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() {
			if _, err := os.Stat(stateDir); err == nil {
				t.Errorf("a script has made %s, a folder of this machine", stateDir)
			}
		})
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits, "big": big, "eventually": eventually, "oneline": oneline,
		"cluster": cluster, "operation": lrmOperation, "agrees": agrees,
		"killed": killed, "signaled": signaled, "together": together,
	}
	maps.Copy(commands, serverCommands)
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: commands,
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("no condition %s", name)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("TESTDATA", testdata)
			// Of root's operations a part runs as the server's user, who has to find what the script has made.
			if err := os.Chmod(filepath.Dir(env.WorkDir), 0o711); err != nil {
				return err
			}
			env.Values[hostsKey{}] = &hosts{t: env.T().(testing.TB), servers: map[string]*pgserver.Server{}}
			program, err := exec.LookPath("pgrex") // where testscript has put it; for scripts that change PATH
			if err != nil {
				return err
			}
			env.Setenv("PGREX", program)
			return nil
		},
	})
}

// exits STATUS COMMAND... runs a command to its end and wants exactly that exit status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s exits with %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}

// big FILE BYTES writes a CIB of that size.
func big(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	const node = `<node id="1" uname="pm01"/>`
	data := append([]byte(`<cib><configuration><nodes>`), bytes.Repeat([]byte(node), size/len(node))...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// eventually COMMAND... runs a command until it ends with 0, as long as patience lasts; "! eventually" until it does
// not.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(patience)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not in time: %s: %v", strings.Join(args, " "), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// oneline wants the last command's standard error to be one line.
func oneline(ts *testscript.TestScript, _ bool, _ []string) {
	text := ts.ReadFile("stderr")
	if !strings.HasPrefix(text, "pgrex: ") || strings.Count(text, "\n") != 1 {
		ts.Fatalf("not one line of an error: %q", text)
	}
}
