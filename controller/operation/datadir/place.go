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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
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
		return p, fmt.Errorf("the data folder %s is a symbolic link to %s, which is not there: type: %s", p.Data, target, install(target))
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
	return fmt.Errorf("%s belongs to the user %s: run pgrex as root (sudo pgrex), which does its work as the user that owns the data",
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

// WAL is what is known of a stopped server's WAL. Where an error comes with a segment's size, the WAL cannot be read.
func (p Place) WAL(ctx context.Context, c Control) (local reconcile.LocalData, err error) {
	local.SystemID = c["Database system identifier"]
	if local.Segment, err = strconv.ParseUint(c["Bytes per WAL segment"], 10, 64); err != nil || local.Segment == 0 {
		return local, fmt.Errorf("pg_controldata's WAL segment size %q is no number", c["Bytes per WAL segment"])
	}
	if local.Backup, err = p.backup(ctx, c); err != nil {
		return local, err
	}
	if local.Timelines, err = p.timelines(c, local.Backup); err != nil {
		return local, err
	}
	if local.End, err = p.endOfWAL(ctx, c, local); err != nil {
		return local, err
	}
	if local.Changed, err = c.lsn("Minimum recovery ending location"); err != nil {
		return local, err
	}
	if local.Backup != nil {
		local.Changed = max(local.Changed, local.Backup.Checkpoint, local.Backup.End)
	}
	return local, nil
}

var walFile = regexp.MustCompile(`^([0-9A-F]{8})[0-9A-F]{16}$`)

// timelines is the server's history up to the newest timeline that it has WAL of. A backup may come without history
// files.
func (p Place) timelines(c Control, b *reconcile.Backup) ([]model.Timeline, error) {
	newest := uint64(0)
	if b != nil {
		newest = uint64(b.Timeline)
	}
	for _, name := range []string{"Latest checkpoint's TimeLineID", "Min recovery ending loc's timeline"} {
		if id, err := strconv.ParseUint(c[name], 10, 32); err == nil {
			newest = max(newest, id)
		}
	}
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return nil, fmt.Errorf("look at the WAL here: %w", err)
	}
	for _, e := range entries {
		if m := walFile.FindStringSubmatch(e.Name()); m != nil {
			if id, err := strconv.ParseUint(m[1], 16, 32); err == nil {
				newest = max(newest, id)
			}
		}
	}
	if newest <= 1 {
		return model.ParseHistory(1, "")
	}
	text, err := readFile(filepath.Join(p.Data, "pg_wal", fmt.Sprintf("%08X.history", newest)))
	if os.IsNotExist(err) && b != nil && newest == uint64(b.Timeline) {
		return []model.Timeline{{ID: b.Timeline}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", newest, err)
	}
	return model.ParseHistory(uint32(newest), string(text))
}

// What pg_waldump says where it finds no further record, as recovery would not: after which one, or that there is none.
var (
	lastRecord   = regexp.MustCompile(`error in WAL record at ([0-9A-F]+/[0-9A-F]+):`)
	noRecord     = regexp.MustCompile(`could not find a valid record after`)
	noFile       = regexp.MustCompile(`could not find file "([0-9A-F]{8})([0-9A-F]{16})"`)
	recordLength = regexp.MustCompile(`len \(rec/tot\): *[0-9]+/ *([0-9]+),`)
	switchRecord = regexp.MustCompile(`desc: SWITCH`)
)

// endOfWAL finds the end of the last whole record here, from the last checkpoint on or, if the newest timeline began
// after that, from there on.
func (p Place) endOfWAL(ctx context.Context, c Control, local reconcile.LocalData) (model.LSN, error) {
	from, err := c.lsn("Latest checkpoint's REDO location")
	if err != nil {
		return 0, err
	}
	if b := local.Backup; b != nil {
		if from = b.Start; !p.hasWALOf(b, local.Segment) {
			return from, nil
		}
		if err := p.gap(b, local.Segment); err != nil {
			return 0, err
		}
	}
	newest := local.Timelines[len(local.Timelines)-1]
	from = max(from, newest.Begin)
	if from == newest.Begin && p.lacksTimeline(local) {
		return from, nil
	}
	first, last := p.segments(from, newest.ID, local.Segment)
	dump := func(start model.LSN, option string) (string, error) {
		options := []string{option, "--start=" + start.String(), fmt.Sprintf("--timeline=%d", newest.ID), "--path=" + filepath.Join(p.Data, "pg_wal")}
		if first != "" {
			options = append(options, SegmentName(newest.ID, start.Segment(local.Segment), local.Segment), last)
		}
		return p.Program("pg_waldump", options...).Run(ctx)
	}
	const doing = "find the end of the WAL here"
	_, err = dump(from, "--stats")
	if err == nil {
		return p.endOf(last, local.Segment)
	}
	if noRecord.MatchString(err.Error()) {
		return from, nil
	}
	if end, ok := p.endsWithFile(err.Error(), local); ok && end > from {
		return end, nil
	}
	m := lastRecord.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	record, err := model.ParseLSN(m[1])
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	out, err := dump(record, "--limit=1")
	length := recordLength.FindStringSubmatch(out)
	if length == nil {
		return 0, fmt.Errorf("%s: pg_waldump does not show the record at %s (%w)", doing, record, err)
	}
	total, err := strconv.ParseUint(length[1], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if switchRecord.MatchString(out) { // the rest of the segment is its own
		return model.LSN((uint64(record)/local.Segment + 1) * local.Segment), nil
	}
	return recordEnd(record, total, local.Segment), nil
}

// segments are the files of a timeline in which WAL begins at a position, and the newest; "" where there is no first
// one.
//
// pg_waldump takes from the first file that it is named how big a segment is. With a folder alone that is whichever the
// file system lists first, and may be one that was made for WAL to come and is all zeros, on which it gives up.
func (p Place) segments(from model.LSN, timeline uint32, size uint64) (first, last string) {
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return "", "" // pg_waldump says why
	}
	begin := SegmentName(timeline, from.Segment(size), size)
	for _, e := range entries {
		name := e.Name()
		if !walFile.MatchString(name) || name[:8] != begin[:8] {
			continue
		}
		if name == begin {
			first = begin
		}
		last = max(last, name)
	}
	return first, last
}

// endOf is where a segment ends, by its file's name.
func (p Place) endOf(name string, size uint64) (model.LSN, error) {
	if !walFile.MatchString(name) {
		return 0, errors.New("find the end of the WAL here: pg_waldump does not tell")
	}
	high, err := strconv.ParseUint(name[8:16], 16, 32)
	if err != nil {
		return 0, err
	}
	low, err := strconv.ParseUint(name[16:], 16, 32)
	return model.LSN(high<<32 + (low+1)*size), err
}

// lacksTimeline reports whether only the part before the newest timeline is here of the segment in which that timeline
// began. After pg_rewind the rest is received once the server runs, though later segments may have come with the
// primary's files.
func (p Place) lacksTimeline(local reconcile.LocalData) bool {
	last := len(local.Timelines) - 1
	newest := local.Timelines[last]
	here := func(timeline uint32) bool {
		name := SegmentName(timeline, newest.Begin.Segment(local.Segment), local.Segment)
		_, err := os.Stat(filepath.Join(p.Data, "pg_wal", name))
		return err == nil
	}
	if here(newest.ID) {
		return false
	}
	return slices.ContainsFunc(local.Timelines[:last], func(t model.Timeline) bool { return here(t.ID) })
}

// endsWithFile is the end of the newest segment here, if that is what pg_waldump has come to: a copy has no further
// one, nor has a standby that received all of a segment and nothing more. A gap is not the end.
func (p Place) endsWithFile(said string, local reconcile.LocalData) (model.LSN, bool) {
	m := noFile.FindStringSubmatch(said)
	if m == nil {
		return 0, false
	}
	newest, missing := "", m[1]+m[2]
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return 0, false
	}
	for _, e := range entries {
		if walFile.MatchString(e.Name()) {
			newest = max(newest, e.Name())
		}
	}
	if newest >= missing {
		return 0, false
	}
	high, err := strconv.ParseUint(m[2][:8], 16, 32)
	if err != nil {
		return 0, false
	}
	low, err := strconv.ParseUint(m[2][8:], 16, 32)
	return model.LSN(high<<32 + low*local.Segment), err == nil
}

// recordEnd is where a record ends that begins at a position: records are aligned to 8 bytes, and every page begins
// with a header, that of a segment's first page being longer (xlog_internal.h).
func recordEnd(start model.LSN, length, segment uint64) model.LSN {
	const page, header, firstHeader = 8192, 24, 40
	at, left := uint64(start), (length+7)/8*8
	for {
		room := page - at%page
		if left <= room {
			return model.LSN(at + left)
		}
		at, left = at+room+header, left-room
		if (at-header)%segment == 0 {
			at += firstHeader - header
		}
	}
}

// SegmentName is the name of a segment's file (XLogFileName).
func SegmentName(timeline uint32, n, size uint64) string {
	each := (1 << 32) / size
	return fmt.Sprintf("%08X%08X%08X", timeline, n/each, n%each)
}
