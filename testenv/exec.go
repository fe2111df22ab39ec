package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// execLimit bounds a command whose caller set no deadline.
const execLimit = 10 * time.Minute

// baseEnv is the environment of what the lab runs, beside what the command needs.
var baseEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
}

// Exec runs a command as root in a host and returns its standard output, even if it fails. The error then carries its
// standard error and wraps the *exec.ExitError. At the deadline the whole process group is killed.
func (l *Lab) Exec(ctx context.Context, host string, argv ...string) (string, error) {
	return named(host, argv)(l.run(ctx, host, "", argv))
}

// ExecAs is Exec as another user. The group is the only one that the command has.
func (l *Lab) ExecAs(ctx context.Context, user, group, host string, argv ...string) (string, error) {
	as, err := l.asUser(user, group, argv)
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
func (l *Lab) asUser(user, group string, argv []string) ([]string, error) {
	_, home, err := l.config.system().user(user)
	if err != nil {
		return nil, err
	}
	if user == dba {
		home = l.Paths().Home
	}
	return append([]string{"setpriv", "--reuid=" + user, "--regid=" + group, "--clear-groups", "--",
		"env", "HOME=" + home, "USER=" + user, "LOGNAME=" + user}, argv...), nil
}

// Command is how to run a command in a host from outside: for a caller that wants its own terminal or pipes. It has no
// right that the host's own processes do not have.
func (l *Lab) Command(ctx context.Context, host string, argv ...string) ([]string, []string, error) {
	state, err := l.state(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	if !state.On {
		return nil, nil, fmt.Errorf("%s has no power: run 'rexlab on %s'", host, host)
	}
	if !state.Ready {
		return nil, nil, fmt.Errorf("%s is being booted", host)
	}
	var denied []string
	for _, c := range deniedCapabilities {
		denied = append(denied, "-"+c.name)
	}
	command := []string{"/usr/bin/nsenter", "--target", strconv.Itoa(state.Process.PID),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
		"setpriv", "--inh-caps=-all", "--bounding-set=" + strings.Join(denied, ","), "--"}
	return append(command, argv...), append([]string{"HOME=/root", "USER=root", "LOGNAME=root"}, baseEnv...), nil
}

// CommandAs is Command as another user, with one group.
func (l *Lab) CommandAs(ctx context.Context, user, group, host string, argv ...string) ([]string, []string, error) {
	as, err := l.asUser(user, group, argv)
	if err != nil {
		return nil, nil, err
	}
	return l.Command(ctx, host, as...)
}

// CopyIn copies a file of this machine into a host, owned by root and with a mode.
func (l *Lab) CopyIn(ctx context.Context, host, source, target string, mode os.FileMode) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if err := l.install(ctx, host, from, target, mode); err != nil {
		return fmt.Errorf("copy %s to %s: %w", source, host, err)
	}
	return nil
}

// WriteFile writes a file in a host, owned by root and with a mode.
func (l *Lab) WriteFile(ctx context.Context, host, target, text string, mode os.FileMode) error {
	if err := l.install(ctx, host, strings.NewReader(text), target, mode); err != nil {
		return fmt.Errorf("write %s on %s: %w", target, host, err)
	}
	return nil
}

// install writes a file beside its name first, so that a program that runs can be replaced.
func (l *Lab) install(ctx context.Context, host string, from io.Reader, target string, mode os.FileMode) error {
	command, env, err := l.Command(ctx, host, "sh", "-ec",
		`umask 022; mkdir -p "$(dirname "$1")"; rm -f "$1.new"; cat >"$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"`,
		"sh", target, fmt.Sprintf("%o", mode))
	if err != nil {
		return err
	}
	_, err = runGroup(ctx, from, env, command)
	return err
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
	return runGroup(ctx, strings.NewReader(stdin), env, command)
}

// runGroup runs a command in a process group of its own.
func runGroup(ctx context.Context, stdin io.Reader, env, command []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = env
	cmd.Dir = "/"
	cmd.Stdin = stdin
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
	at := l.Paths()
	argv, err := l.asUser(dba, dba, []string{
		"PGPASSFILE=" + at.Pass, at.Bin + "/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", conninfo,
	})
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
