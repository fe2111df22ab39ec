package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
)

// Place is where a host's database is, by the agent's parameters.
type Place struct {
	Data string // pgdata
	Tmp  string // tmpdir: the agent's lock and recovery.conf
	Bin  string // folder of pgctl, and of the other programs

	Config   string // config: the main file of settings, "" for postgresql.conf in the data folder
	StartOpt string // start_opt: further options of the server, as a shell reads them

	// FreshFolders are the folders that a copy makes for tablespaces, or that an earlier copy has made.
	FreshFolders []string

	// Count counts the files and folders that are looked at or removed, for whoever shows how far that is. It may be nil.
	Count *atomic.Int64
}

// Of finds the data folder of a clone on this host. It must hold a database, and belong to the user of this process.
func Of(clone model.Clone) (Place, error) {
	p := placed(clone)
	info, err := os.Stat(filepath.Join(p.Data, "PG_VERSION"))
	if err != nil {
		return p, p.noDatabase(err)
	}
	return p, p.mine(info)
}

// noDatabase explains why the data folder holds no database, after its PG_VERSION could not be read.
func (p Place) noDatabase(err error) error {
	if !os.IsNotExist(err) {
		return fmt.Errorf("look at the data folder: %w", err)
	}
	why, err := p.empty()
	if err == nil && why == "" {
		why = p.Data + " holds no whole database: PG_VERSION is not there"
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: see that every file system is mounted here, and that pgdata is right; if the data are gone, "+
		"type: sudo pgrex rejoin --method copy", why)
}

// Find is Of for a data folder that may be damaged, empty or missing, because a copy can take its place.
func Find(clone model.Clone) (Place, error) {
	p := placed(clone)
	info, err := os.Stat(filepath.Join(p.Data, "PG_VERSION"))
	if err != nil {
		info, err = os.Stat(p.Data)
	}
	switch {
	case err == nil:
		return p, p.mine(info)
	case !os.IsNotExist(err):
		return p, fmt.Errorf("look at the data folder: %w", err)
	}
	if target, err := os.Readlink(p.Data); err == nil {
		return p, fmt.Errorf("the data folder %s is a symbolic link to %s, which is not there: type: %s", p.Data,
			target, install(target))
	}
	return p, nil
}

// placed returns where the agent's parameters place a clone's database, whether that exists or not.
func placed(clone model.Clone) Place {
	p := Place{
		Data: clone.DataFolder(), Tmp: clone.TmpFolder(), Bin: filepath.Dir(clone.Parameters["pgctl"]),
		Config: clone.ConfigFile(), StartOpt: clone.Parameters["start_opt"],
	}
	if clone.Parameters["pgctl"] == "" {
		p.Bin = "/usr/bin"
	}
	if folder, err := filepath.EvalSymlinks(p.Data); err == nil {
		p.Data = folder // a copy is made beside it, and not beside a link to it
	}
	return p
}

// mine returns an error unless a file or folder of the data belongs to the user of this process.
func (p Place) mine(info fs.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	if int(owner) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to the user %s: run pgrex as root (sudo pgrex), which does its work as the user "+
		"that owns the data",
		p.Data, userName(int(owner)))
}

// userName is a user's name, or the number of a user without one.
func userName(uid int) string {
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return name
}

// install is the command with which root makes a folder that this user can use.
func install(folder string) string {
	owner := userName(os.Geteuid())
	return sudo("install", "-d", "-o", owner, "-m", "700", folder)
}

// sudo is a command for root to type. Its words are quoted, because a path may hold what a shell takes for something else.
func sudo(words ...string) string { return cib.Command{Path: "sudo", Args: words}.String() }

// Program is one of PostgreSQL's programs, of the version of the data.
func (p Place) Program(name string, args ...string) Tool {
	return Tool{Path: filepath.Join(p.Bin, name), Args: args}
}

// Runs reports whether a server has the data folder open: its postmaster.pid names a process that is one.
func (p Place) Runs() bool {
	name := p.lockedBy()
	return strings.HasPrefix(name, "postgres") || strings.HasPrefix(name, "postmaster")
}

// Status is the status of the server that has the data folder open, from line 8 of postmaster.pid (utils/pidfile.h):
// "starting", "stopping", "ready" or "standby". It is "" if no server runs, and "starting" as long as that line is
// missing.
func (p Place) Status() string {
	const line = 8
	text, err := readFile(p.PIDFile())
	if err != nil || !p.Runs() {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < line {
		return "starting"
	}
	return cmp.Or(strings.TrimSpace(lines[line-1]), "starting")
}

// PIDFile is there while a server has the data folder open, or one has crashed.
func (p Place) PIDFile() string { return filepath.Join(p.Data, "postmaster.pid") }

// lockedBy is the name of the process that postmaster.pid names, "" if there is none.
func (p Place) lockedBy() string {
	text, err := readFile(p.PIDFile())
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return ""
	}
	if pid < 0 {
		pid = -pid // a server in single-user mode: the crash recovery of an attempt that was killed
	}
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // there may be no such process
	return string(name)
}

// Control is what pg_controldata says.
type Control map[string]string

// wrongSum is what pg_controldata says of a damaged control file, on standard output or, in later versions, on standard
// error. It ends well then, and prints whatever is there.
const wrongSum = "CRC checksum does not match"

// errDamaged says that the control file is missing, or cannot be used.
var errDamaged = errors.New("the control file is damaged")

// Control reads the control file.
func (p Place) Control(ctx context.Context) (Control, error) {
	damaged := false
	tool := p.Program("pg_controldata", "-D", p.Data)
	tool.Progress = func(line string) { damaged = damaged || strings.Contains(line, wrongSum) }
	out, err := tool.Run(ctx)
	switch _, ran := errors.AsType[*ToolError](err); {
	case ran && ctx.Err() == nil:
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	case err != nil:
		return nil, err
	case damaged || strings.Contains(out, wrongSum):
		return nil, fmt.Errorf("%w: the checksum of the one in %s is wrong", errDamaged, p.Data)
	}
	c := Control{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ":")
		c[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return c, nil
}

func (c Control) lsn(name string) (model.LSN, error) {
	l, err := model.ParseLSN(c[name])
	if err != nil {
		return 0, fmt.Errorf("pg_controldata's %q: %w", name, err)
	}
	return l, nil
}

// Identity is which database the data are of. What pg_controldata does not tell is zero.
type Identity struct {
	Folder   string
	SystemID string
	Timeline uint32
}

// Identity reads it from the control file.
func (p Place) Identity(ctx context.Context) Identity {
	i := Identity{Folder: p.Data}
	c, err := p.Control(ctx)
	if err != nil { // damaged data, or none: an operation can be for just that
		return i
	}
	timeline, _ := strconv.ParseUint(c["Latest checkpoint's TimeLineID"], 10, 32)
	i.SystemID, i.Timeline = c["Database system identifier"], uint32(timeline)
	return i
}

// Newest returns the newest timeline that a stopped server has WAL of. Right after a promotion it is newer than the
// control file's.
func (p Place) Newest(ctx context.Context) (uint32, error) {
	c, err := p.Control(ctx)
	if err != nil {
		return 0, err
	}
	b, err := p.backup(ctx, c)
	if err != nil {
		return 0, err
	}
	all, err := p.timelines(c, b)
	if err != nil {
		return 0, err
	}
	return all[len(all)-1].ID, nil
}

// PutHere returns when the data were put here, or later. Nothing changes PG_VERSION in data that are in use, and
// PostgreSQL renames backup_label once it begins to recover a backup. A tool that restores files can set every time but
// that of the last change of the inode.
func (p Place) PutHere() (latest time.Time, err error) {
	for _, name := range []string{"PG_VERSION", backupLabel, backupLabel + ".old"} {
		info, err := os.Lstat(filepath.Join(p.Data, name))
		if os.IsNotExist(err) && name != "PG_VERSION" {
			continue
		}
		if err != nil {
			return latest, fmt.Errorf("look when the data were put here: %w", err)
		}
		if changed := time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()); changed.After(latest) {
			latest = changed
		}
	}
	return latest, nil
}

// Clean reports whether the server was shut down, and did not crash.
func (c Control) Clean() bool { return strings.HasPrefix(c["Database cluster state"], "shut down") }
