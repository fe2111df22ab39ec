package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
)

const (
	unitName = "pgrex"
	// partLimit is how long one command may take, and partBytes how much it may print: a host in trouble is slow.
	partLimit = 30 * time.Second
	partBytes = 8 << 20
)

func supportCommand() *cobra.Command {
	s := newSettings()
	var file string
	cmd := &cobra.Command{
		Use:   "support",
		Short: "Collect diagnostics of this host into one archive",
		Long: `Writes one archive: versions, a snapshot, the status, what doctor says, the last lines of the journals of the
daemon and of pgrex-rejoin.service, the daemon's unit with every drop-in and its state, pgrex.yaml, and the system's
release. Whatever looks like a secret is replaced by ***. The archive has names and addresses of hosts, and the cluster's configuration: look through it before you hand it on. The command
changes nothing.

Run it as root, which may read the journal; the commands that ask PostgreSQL and Pacemaker are run as the unit's user. Any other
user gets only what that user may read. missing.txt in the archive says what is missing, and why.

Exit status: 0 the archive has everything, 3 something is missing, 1 no archive was written, 64 wrong usage.`,
		Example: "  pgrex support\n  pgrex support --file /tmp/pm01.tar.gz",
		Args:    cobra.NoArgs,
		RunE:    runE(func(cmd *cobra.Command) error { return support(cmd, s, file) }),
	}
	s.observeFlags(cmd.Flags())
	s.socketFlag(cmd.Flags())
	cmd.Flags().StringVarP(&file, "file", "f", "", "a new file for the archive (default: pgrex-support-HOST-TIME.tar.gz here)")
	return cmd
}

// part is a file of the archive: what a command prints.
type part struct {
	file    string
	command []string
	answers []int               // exit statuses, besides 0, that are an answer and no failure
	redact  func(string) string // hides what looks like a secret
	tail    bool                // of too much the end is kept
	empty   bool                // it may say nothing
}

func support(cmd *cobra.Command, s *settings, file string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	given, err := givenFlags(cmd)
	if err != nil {
		return err
	}
	problem := s.load(cmd) // with wrong settings the host needs help all the more
	settingsFile, err := filepath.Abs(s.Config)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	node := strings.Trim(notInNames.ReplaceAllString(cmp.Or(s.Node, host), "_"), ".")
	name := "pgrex-support-" + node + "-" + time.Now().UTC().Format("20060102T150405Z")
	archive, err := create(cmp.Or(file, name+".tar.gz"))
	if err != nil {
		return err
	}
	defer archive.discard()
	var missing []string
	if problem != nil {
		missing = append(missing, "settings: "+redact(printer.OneLine(problem)))
	}
	for _, p := range parts(ownerCommand(cmd.Context(), program, unitOf(given["instance"])), given, settingsFile) {
		text, err := collect(cmd.Context(), p)
		if cmd.Context().Err() != nil {
			return cmd.Context().Err()
		}
		if err != nil {
			missing = append(missing, p.file+": "+redact(printer.OneLine(err)))
		}
		archive.add(name+"/"+p.file, text)
	}
	slices.Sort(missing)
	archive.add(name+"/missing.txt", strings.Join(append(missing, ""), "\n"))
	if err := archive.finish(); err != nil {
		return err
	}
	out := printer.Out(cmd)
	for _, m := range missing {
		out.Line("missing: %s", m)
	}
	out.Line("%s: look through it before you hand it on; it has the names and addresses of hosts", archive.path)
	if len(missing) > 0 {
		return statusError(exitDegraded)
	}
	return nil
}

// parts are what the archive has. The commands of pgrex's own are run as the owner of the database, with the flags
// given.
func parts(pgrex []string, given map[string]string, settingsFile string) []part {
	own := func(file string, answers []int, flags []string, redact func(string) string, arguments ...string) part {
		command := slices.Concat(pgrex, arguments)
		for _, name := range flags {
			if value, ok := given[name]; ok {
				command = append(command, "--"+name+"="+value)
			}
		}
		return part{file: file, answers: answers, redact: redact, command: command}
	}
	unit := unitOf(given["instance"])
	look := []string{"instance", "config", "state-dir", "node", "resource", "pg-data", "pg-socket-dir", "pg-port", "pg-user", "pg-database"}
	daemon := []string{"instance", "config", "socket"}
	degraded := []int{exitDegraded}
	return []part{
		own("version.txt", nil, look, redact, "version"),
		own("snapshot.json", nil, look, redactJSON, "snapshot"),
		own("status.json", degraded, daemon, redactJSON, "status", "--output", "json"),
		own("status.txt", degraded, daemon, redact, "status", "--output", "wide"),
		own("doctor.json", degraded, look, redactJSON, "doctor", "--output", "json"),
		{file: "journal.txt", tail: true, redact: redact,
			command: []string{"journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--lines=5000",
				"--unit=" + unit}},
		{file: "rejoin-journal.txt", tail: true, empty: true, redact: redact,
			command: []string{"journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--lines=5000",
				"--unit=" + strings.Replace(unit, unitName, unitName+"-rejoin", 1)}},
		{file: "unit.txt", redact: redactUnit, command: []string{"systemctl", "--no-pager", "cat", unit}},
		// Not 'systemctl status': that shows the command lines of processes.
		{file: "unit-state.txt", redact: redact,
			command: []string{"systemctl", "show", "--property=" + unitProperties, unit}},
		{file: "pgrex.yaml", empty: true, redact: redactSettings,
			command: []string{"sh", "-c", `[ ! -e "$1" ] || cat -- "$1"`, "sh", settingsFile}},
		{file: "system.txt", redact: redact, command: []string{"cat", "/etc/os-release", "/proc/version"}},
	}
}

// unitProperties are what is told of the unit's state.
const unitProperties = "LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload," +
	"MainPID,User,Group,NRestarts,Result,ExecMainStartTimestamp,ExecMainCode,ExecMainStatus,StatusText," +
	"MemoryCurrent,MemoryPeak,CPUUsageNSec,WatchdogTimestamp"

// notInNames are characters that a file's name had better not have.
var notInNames = regexp.MustCompile(`[^\w.-]+`)

// givenFlags are the flags of the command line. Paths are absolute, because the commands are run in another folder.
func givenFlags(cmd *cobra.Command) (map[string]string, error) {
	given := map[string]string{}
	for _, name := range []string{"instance", "config", "socket", "state-dir", "node", "resource", "pg-data", "pg-socket-dir", "pg-port", "pg-user", "pg-database"} {
		f := cmd.Flag(name)
		if !f.Changed {
			continue
		}
		value := f.Value.String()
		if slices.Contains([]string{"config", "socket", "state-dir", "pg-data", "pg-socket-dir"}, name) {
			path, err := filepath.Abs(value)
			if err != nil {
				return nil, err
			}
			value = path
		}
		given[name] = value
	}
	return given, nil
}

// unitOf returns the name of the daemon's unit, for one of several databases or for the only one ("").
func unitOf(instance string) string {
	if instance == "" {
		return unitName + ".service"
	}
	return unitName + "@" + instance + ".service"
}

// ownerCommand is how to call pgrex itself: for root, as the user and group of the daemon's unit.
func ownerCommand(ctx context.Context, program, unit string) []string {
	if os.Geteuid() != 0 {
		return []string{program}
	}
	propertyOf := func(property, otherwise string) string {
		said, err := collect(ctx, part{command: []string{"systemctl", "show", "--value", "--property=" + property, unit}, redact: redact})
		if err != nil {
			said = "" // no systemd, or no unit
		}
		return cmp.Or(strings.TrimSpace(said), otherwise)
	}
	return []string{"runuser", "-u", propertyOf("User", "postgres"), "-g", propertyOf("Group", "haclient"), "--", program}
}

// collect runs a part's command, and returns its output with everything hidden that looks like a secret. A command
// that does not end in time is killed with all that it started.
func collect(ctx context.Context, p part) (string, error) {
	limited, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	cmd := exec.CommandContext(limited, p.command[0], p.command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	stdout, stderr := &bounded{limit: partBytes, tail: p.tail}, &bounded{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	late := limited.Err() != nil
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	text := printer.PrintableLines(p.redact(stdout.String()))
	problem := func(format string, args ...any) (string, error) {
		return text, fmt.Errorf(strings.Join(p.command, " ")+": "+format, args...)
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case late:
		return problem("not done within %s", partLimit)
	case err != nil && (!exited || !slices.Contains(p.answers, exit.ExitCode())):
		return problem("%w: %s", err, stderr)
	case stdout.cut:
		return problem("it says more than %d bytes, which is not all here", partBytes)
	case len(stdout.kept) == 0 && !p.empty:
		return problem("it says nothing; root may see more: %s", stderr)
	}
	return text, nil
}

// bounded keeps what is written first, or last.
type bounded struct {
	kept  []byte
	limit int
	tail  bool
	cut   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	b.cut = b.cut || len(b.kept)+len(p) > b.limit
	if !b.tail {
		b.kept = append(b.kept, p[:max(0, min(len(p), b.limit-len(b.kept)))]...)
		return len(p), nil
	}
	b.kept = append(b.kept, p...)
	if len(b.kept) > 2*b.limit {
		b.kept = append([]byte(nil), b.kept[len(b.kept)-b.limit:]...)
	}
	return len(p), nil
}

func (b *bounded) String() string { return string(b.kept[max(0, len(b.kept)-b.limit):]) }

// archive is a tar file that gets its name only when it is complete. Until then it is beside that, with ".part"
// behind it.
type archive struct {
	path string
	file *os.File
	zip  *gzip.Writer
	tar  *tar.Writer
	err  error
}

// create begins an archive, for its owner only, where there is no file yet.
func create(path string) (*archive, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s is there already: name another file with --file", path)
	}
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s.part is there: another pgrex support writes it, or was killed; remove it then, or name another file with --file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("write the archive: %w; name another place with --file", err)
	}
	a := &archive{path: path, file: f, zip: gzip.NewWriter(f)}
	a.tar = tar.NewWriter(a.zip)
	return a, nil
}

func (a *archive) add(name, text string) {
	if a.err == nil {
		a.err = a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now().Truncate(time.Second)})
	}
	if a.err == nil {
		_, a.err = io.WriteString(a.tar, text)
	}
}

// finish gives the archive its name. A link never takes the place of a file.
func (a *archive) finish() error {
	err := errors.Join(a.err, a.tar.Close(), a.zip.Close(), a.file.Close())
	if err == nil {
		err = os.Link(a.file.Name(), a.path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) && a.err == nil {
		err = a.rename(err) // a file system without links
	}
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

func (a *archive) rename(cause error) error {
	if !errors.Is(cause, syscall.EPERM) && !errors.Is(cause, syscall.ENOTSUP) {
		return cause
	}
	return os.Rename(a.file.Name(), a.path)
}

// discard removes the name that the archive has until it is finished.
func (a *archive) discard() {
	_ = a.file.Close() // after finish it is closed
	_ = os.Remove(a.file.Name())
}
