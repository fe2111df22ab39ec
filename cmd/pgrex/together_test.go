package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// turnsFolder is where a process notes that it is about to make a token, or has made it. Then it waits for its turn.
const turnsFolder = meetingFolder + "/turns"

// together FIRST SECOND... begins the first operation at the same moment as each of the others. An operation is its
// host and its command in one word. Both operations of a pair have found nothing in their way, and are about to make
// the token. The first one makes it. The second one must be refused, with the name of the first. Then the first one is
// killed and undone, and everything must be as before. On one host, the second one is refused before it reaches the
// token.
func together(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.Mkdir(ts.MkAbs(turnsFolder), 0o777))
	ts.Check(os.Chmod(ts.MkAbs(turnsFolder), 0o777)) // for the server's user
	for _, second := range args[1:] {
		beside(ts, args[0], second)
	}
	ts.Check(os.Remove(ts.MkAbs(turnsFolder)))
}

func beside(ts *testscript.TestScript, one, other string) {
	before := configuration(ts)
	first := beginOn(ts, one)
	until(ts, one+" is about to make the token", func() bool { return first.waits("before") })
	second := beginOn(ts, other)
	until(ts, other+" is about to make the token, or ends", func() bool { return second.waits("before") || hasEnded(second.pid()) })

	refusal := fmt.Sprintf(`^pgrex: %s( to pm02)? is under way, or unfinished: on %s, type: sudo pgrex operation show\b.*\n$`, first.name(), first.host)
	if first.host == second.host {
		refusal = fmt.Sprintf(`^pgrex: another operation is under way on this host: %s, started by root.*\n$`, first.name())
	}
	first.goOn("before")
	until(ts, one+" has the token", func() bool { return first.waits("after") })
	if second.waits("before") {
		second.goOn("before")
	}
	said := second.end()
	if !regexp.MustCompile(refusal).MatchString(said) || second.ProcessState.ExitCode() != 1 {
		ts.Fatalf("%s has the token, and %s ends with %s: %q", one, other, second.ProcessState, said)
	}
	token := fmt.Sprintf(`name="pgrex-operation-pgsql" value="%s host=%s `, first.name(), first.host)
	if now := configuration(ts); !strings.Contains(now, token) {
		ts.Fatalf("%s does not have the token:\n%s", one, now)
	}

	work := workOf(ts, first.pid())
	ts.Check(syscall.Kill(work, syscall.SIGKILL))
	ts.Check(first.Process.Kill())
	first.goOn("after")
	first.end()
	until(ts, one+" ends", func() bool { return hasEnded(work) })
	exits(ts, false, append([]string{"0"}, onHost(ts, first.host, "operation", "undo", "--yes")...))
	first.leavesNothing()
	second.leavesNothing()
	if now := configuration(ts); now != before {
		ts.Fatalf("after %s beside %s the CIB is:\n%s\nand was:\n%s", one, other, now, before)
	}
}

// onHost is the command that starts pgrex as on a host: it finds that host's data in the folder that the CIB names.
func onHost(ts *testscript.TestScript, host string, args ...string) []string {
	const see = `mount --bind "$0" here && exec pgrex "$@"`
	return slices.Concat([]string{"unshare", "--mount", "sh", "-c", see, ts.Getenv(host + "_dir")}, args, []string{"--config", host + ".yaml"})
}

// begun is an operation that has begun.
type begun struct {
	*exec.Cmd
	ts     *testscript.TestScript
	host   string
	words  []string
	stderr bytes.Buffer
}

func beginOn(ts *testscript.TestScript, operation string) *begun {
	words := strings.Fields(operation)
	o := &begun{ts: ts, host: words[0], words: words[1:]}
	args := onHost(ts, o.host, append(o.words, "--yes")...)
	path := ts.Getenv("PATH")
	o.Cmd = exec.CommandContext(hostsOf(ts).t.Context(), args[0], args[1:]...)
	o.Dir, o.Stderr = ts.MkAbs("."), &o.stderr
	// PATH has the tools, which take turns: TestMain is not to put others before them.
	o.Env = append(os.Environ(), "PATH="+path, "CIB_file="+ts.Getenv("CIB_file"), "PGREX_PACEMAKER_TOOLS=")
	ts.Check(o.Start())
	return o
}

func (o *begun) name() string { return o.words[0] }

// pid is the process of the part that runs Pacemaker's tools.
func (o *begun) pid() int { return o.Process.Pid }

// waits reports whether the operation waits before or after it makes the token.
func (o *begun) waits(when string) bool {
	_, err := os.Stat(o.turn(when))
	return err == nil
}

func (o *begun) goOn(when string) { o.ts.Check(os.Remove(o.turn(when))) }

func (o *begun) turn(when string) string {
	return o.ts.MkAbs(fmt.Sprintf("%s/%s.%d", turnsFolder, when, o.pid()))
}

// end waits for the end of the operation, and returns its standard error.
func (o *begun) end() string {
	until(o.ts, strings.Join(o.words, " ")+" ends", func() bool { return hasEnded(o.pid()) })
	_ = o.Wait() // ProcessState has the result
	return o.stderr.String()
}

// leavesNothing: no journal is left on the host.
func (o *begun) leavesNothing() {
	path := filepath.Join(o.ts.Getenv(o.host+"_dir"), "state", "operation.json")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		o.ts.Fatalf("%s leaves a journal on %s: %v", o.words, o.host, err)
	}
}

// configuration is the configuration section of the CIB.
func configuration(ts *testscript.TestScript) string {
	ts.Check(ts.Exec("cibadmin", "--query", "--scope", "configuration"))
	return ts.ReadFile("stdout")
}
