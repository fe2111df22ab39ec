package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pgrex": main})
}

// TestScripts runs the whole program as a user does, with the real cibadmin on CIB files, and PostgreSQL as the script
// says.
func TestScripts(t *testing.T) {
	for _, tool := range []string{"cibadmin", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; hack/test installs what the tests need", err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			program, err := exec.LookPath("pgrex") // where testscript has put it; for scripts that change PATH
			if err != nil {
				return err
			}
			env.Setenv("PGREX", program)
			// What a user's own environment may say of a cluster or a database is not meant.
			for _, v := range []string{"PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "CIB_shadow"} {
				env.Setenv(v, "")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "big": big, "eventually": eventually, "oneline": oneline,
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

// eventually COMMAND... runs a command until it ends with 0, for at most 20 s; "! eventually" until it does not.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
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
