package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// execLimit bounds a command whose caller set no deadline.
const execLimit = 10 * time.Minute

// Exec runs a command as root in a host and gives its standard output, also when it fails. The error then carries its
// standard error and wraps the *exec.ExitError. At the deadline the whole process group is killed.
func (l *Lab) Exec(ctx context.Context, host string, argv ...string) (string, error) {
	return named(host, argv)(l.run(ctx, host, "", argv))
}

// ExecAs is Exec as another user. The group is the only one that the command has.
func (l *Lab) ExecAs(ctx context.Context, user, group, host string, argv ...string) (string, error) {
	as, err := asUser(user, group, argv)
	if err != nil {
		return "", err
	}
	return named(host, argv)(l.run(ctx, host, "", as))
}

// named says in an error what was run where.
func named(host string, argv []string) func(string, error) (string, error) {
	return func(out string, err error) (string, error) {
		if err != nil {
			err = fmt.Errorf("%s on %s: %w", strings.Join(argv, " "), host, err)
		}
		return out, err
	}
}

// asUser runs a command as a user with one group, in the user's environment.
func asUser(user, group string, argv []string) ([]string, error) {
	u, err := Service{Name: "command", User: user, Group: group, Argv: argv}.resolve()
	if err != nil {
		return nil, err
	}
	return append([]string{"setpriv", fmt.Sprintf("--reuid=%d", u.UID), fmt.Sprintf("--regid=%d", u.GID), "--clear-groups", "--",
		"env", "HOME=" + u.Home, "USER=" + user, "LOGNAME=" + user}, argv...), nil
}

// Command is how to run a command in a host from outside: for a caller that wants its own terminal or pipes.
func (l *Lab) Command(ctx context.Context, host string, argv ...string) ([]string, []string, error) {
	state, err := l.state(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	if !state.On {
		return nil, nil, fmt.Errorf("%s has no power: 'rexlab on %s' gives it", host, host)
	}
	command := []string{"/usr/bin/nsenter", "--target", strconv.Itoa(state.Process.PID),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	return append(command, argv...), append([]string{"HOME=/root", "USER=root", "LOGNAME=root"}, baseEnv...), nil
}

// CommandAs is Command as another user, with one group.
func (l *Lab) CommandAs(ctx context.Context, user, group, host string, argv ...string) ([]string, []string, error) {
	as, err := asUser(user, group, argv)
	if err != nil {
		return nil, nil, err
	}
	return l.Command(ctx, host, as...)
}

func (l *Lab) run(ctx context.Context, host, stdin string, argv []string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("no command")
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, execLimit)
		defer cancel()
	}
	command, env, err := l.Command(ctx, host, argv...)
	if err != nil {
		return "", err
	}
	return runGroup(ctx, stdin, env, command)
}

// runGroup runs a command in a process group of its own.
func runGroup(ctx context.Context, stdin string, env, command []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = env
	cmd.Dir = "/"
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	if said := strings.TrimSpace(stderr.String()); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return stdout.String(), err
}

// psql runs SQL, given on standard input, as the database's owner.
func (l *Lab) psql(ctx context.Context, host, conninfo, sql string) (string, error) {
	argv, err := asUser(dba, dba, []string{"PGPASSFILE=" + passFile, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", conninfo})
	if err != nil {
		return "", err
	}
	out, err := l.run(ctx, host, sql, argv)
	if err != nil {
		return out, fmt.Errorf("SQL on %s: %w", host, err)
	}
	return out, nil
}

// SQL runs statements as postgres on a host's own server, and gives psql's unaligned output without headings. Each
// statement is a transaction of its own.
func (l *Lab) SQL(ctx context.Context, host, sql string) (string, error) {
	return l.psql(ctx, host, "host="+socketDir+" dbname=postgres connect_timeout=10", sql)
}

// VIPSQL runs statements as postgres through the virtual IP, from a host that has power and network.
func (l *Lab) VIPSQL(ctx context.Context, sql string) (string, error) {
	states, err := l.control.hosts(ctx)
	if err != nil {
		return "", err
	}
	for i := len(states) - 1; i >= 0; i-- { // the first host often is the primary: rather ask over the network
		if s := states[i]; s.On && !s.Cut {
			return l.psql(ctx, s.Name, "host="+VIP+" user="+dba+" dbname=postgres connect_timeout=3", sql)
		}
	}
	return "", errors.New("no host has power and network")
}
