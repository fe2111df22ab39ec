package datadir

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
)

// killDelay is how long a tool may go on after its context has ended, before it is killed.
const killDelay = 5 * time.Second

// Tool is one of PostgreSQL's programs. No secret is ever among its arguments.
type Tool struct {
	Name   string // for errors; "" for the base name of Path
	Path   string
	Args   []string
	Access postgres.Access // to another host, whose address is among the arguments
	Folder string          // where it runs, "" for here
	// OnlyFrom is what lines of standard error begin with that errors may quote, "" for any: others may be another
	// program's.
	OnlyFrom string
	// progress is told each line that is written to standard error, or part of a line that is written over.
	Progress func(line string)
}

// String is the command line.
func (t Tool) String() string { return strings.Join(append([]string{t.Path}, t.Args...), " ") }

// Called is the name of the program.
func (t Tool) Called() string { return cmp.Or(t.Name, filepath.Base(t.Path)) }

// Run runs the program to its end, in a session of its own. So pgrex handles an interrupt from the terminal, and what
// the server's configuration runs, such as restore_command, cannot type at root's terminal. Run returns standard
// output. Its error quotes standard error.
func (t Tool) Run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, t.Path, t.Args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool { // who has it speaks for pgrex's unit
		return strings.HasPrefix(variable, "NOTIFY_SOCKET=")
	})
	cmd.Env = append(cmd.Env, "LC_ALL=C", "PGAPPNAME=pgrex")
	closeFile, err := t.Access.Give(cmd)
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.Called(), err)
	}
	defer func() { _ = closeFile() }() // it is in memory
	cmd.Dir = t.Folder
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	// All of the group, which may hold on to our pipe: pg_basebackup's child that receives WAL, what a shell has
	// started.
	var kill *time.Timer
	cmd.Cancel = func() error {
		kill = time.AfterFunc(killDelay, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}
	cmd.WaitDelay = killDelay
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	// Use our own pipe. The end of the command's own pipe may never come: what the command left in the background, as
	// ssh does, may hold it for ever.
	pipe, stderr := io.Pipe()
	cmd.Stderr = stderr
	listened := make(chan []string, 1)
	go func() { listened <- t.listen(pipe) }()
	err = cmd.Run()
	_ = stderr.Close() // it always succeeds
	said := <-listened
	if kill != nil {
		kill.Stop()
	}
	switch {
	case err != nil && cmd.ProcessState == nil:
		return "", fmt.Errorf("%s: %w", t.Called(), err)
	case errors.Is(err, exec.ErrWaitDelay): // it ended well
		err = nil
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return stdout.String(), &ToolError{t.Called(), err, said}
	}
	return stdout.String(), nil
}

// ToolError is what a tool said, and how it ended.
type ToolError struct {
	name string
	err  error
	said []string // its last lines
}

// Error implements error.
func (e *ToolError) Error() string {
	if len(e.said) == 0 {
		return e.name + ": " + e.err.Error()
	}
	return e.name + ": " + strings.Join(e.said, "; ")
}

// Unwrap is how the tool ended.
func (e *ToolError) Unwrap() error { return e.err }

// transferred is how PostgreSQL's programs report their progress, without their name.
var transferred = regexp.MustCompile(`^[0-9]+/[0-9]+ kB \(`)

// listen reads standard error to its end, and keeps the last lines.
func (t Tool) listen(r io.Reader) (said []string) {
	const keep = 4
	scanner := bufio.NewScanner(r)
	scanner.Split(linesAndReturns)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if line == "" {
			continue
		}
		own := strings.HasPrefix(line, t.OnlyFrom)
		if t.Progress != nil && (own || transferred.MatchString(line)) {
			t.Progress(line)
		}
		if !own {
			continue
		}
		said = append(said, line)
		said = said[max(0, len(said)-keep):]
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
	return said
}

// linesAndReturns splits at "\n" and at "\r", with which a progress report is written over.
func linesAndReturns(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
