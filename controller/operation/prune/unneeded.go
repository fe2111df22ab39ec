package prune

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/pgrex/pgrex/model"
)

// Need is a position from which on somebody needs WAL, and who that is, in a few words.
type Need struct {
	Who  string
	From model.LSN
}

// AllBackups keeps what every backup needs that a history file in the archive tells of.
const AllBackups = -1

// Pruning is what may go from a WAL archive, and why not more.
type Pruning struct {
	Needs   []Need   // the earliest first: the first one counts
	Names   []string // of the files that may be removed, the oldest WAL first
	Backups int      // how many have a history file in the archive
}

// archived is the name of a file in a WAL archive, that of a timeline's history left out: a segment, whole or partial,
// or a backup's history file, which is named after the segment and the offset where the backup begins
// (xlog_internal.h). A compressing archive_command adds a suffix.
var archived = regexp.MustCompile(`^[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})(?:\.partial|\.([0-9A-F]{8})\.backup)?(?:\.(?:gz|bz2|xz|zst|lz4|lzo))?$`)

// archiveFile is a file of an archive.
type archiveFile struct {
	name    string
	segment uint64
	backup  bool
	begin   model.LSN // of the segment, or of the backup
}

// parseArchived reads a file's name; ok is false where the file is none of ours to judge.
func parseArchived(name string, segment uint64) (f archiveFile, ok bool) {
	m := archived.FindStringSubmatch(name)
	if m == nil || segment == 0 {
		return f, false
	}
	log, errLog := strconv.ParseUint(m[1], 16, 32)
	low, errLow := strconv.ParseUint(m[2], 16, 32)
	perLog := uint64(1<<32) / segment
	if errLog != nil || errLow != nil || low >= perLog {
		return f, false // of another segment size
	}
	f = archiveFile{name: name, segment: log*perLog + low, backup: m[3] != ""}
	offset := uint64(0)
	if f.backup {
		var err error
		if offset, err = strconv.ParseUint(m[3], 16, 32); err != nil || offset >= segment {
			return f, false
		}
	}
	f.begin = model.LSN(f.segment*segment + offset)
	return f, true
}

// unneeded decides which files of a WAL archive nobody needs: those whose segment lies before the earliest need,
// whatever their timeline, as pg_archivecleanup has it. The newest backups, all or as many as said, are needs, too; a
// backup's history file goes with its WAL. Timeline histories stay, and so does every file that is none of
// PostgreSQL's. Without a need, or with one whose position is not known, nothing goes.
func unneeded(names []string, needs []Need, backups int, segment uint64) Pruning {
	files := make([]archiveFile, 0, len(names))
	for _, name := range names {
		if f, ok := parseArchived(name, segment); ok {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b archiveFile) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.name, b.name))
	})
	p := Pruning{Needs: slices.Clone(needs), Backups: countBackups(files)}
	if oldest, ok := oldestBackup(files, backups); ok {
		p.Needs = append(p.Needs, Need{Who: fmt.Sprintf("the backup of %s", oldest.name), From: oldest.begin})
	}
	slices.SortFunc(p.Needs, func(a, b Need) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Who, b.Who)) })
	if len(needs) == 0 || !p.Needs[0].From.IsValid() {
		return p
	}
	first := p.Needs[0].From.Segment(segment)
	for _, f := range files {
		if f.segment < first {
			p.Names = append(p.Names, f.name)
		}
	}
	return p
}

// countBackups counts the backups with a history file. The files are sorted. A compressed and an uncompressed history
// file of one backup count once.
func countBackups(files []archiveFile) (n int) {
	var last model.LSN
	for _, f := range files {
		if f.backup && (n == 0 || f.begin != last) {
			n, last = n+1, f.begin
		}
	}
	return n
}

// oldestBackup is the oldest one of the backups that are kept; the files are in order.
func oldestBackup(files []archiveFile, keep int) (oldest archiveFile, ok bool) {
	var last model.LSN // two names of one backup, compressed and not, are one
	for _, f := range slices.Backward(files) {
		if !f.backup {
			continue
		}
		if !ok || f.begin != last {
			if keep == 0 {
				break
			}
			keep--
		}
		oldest, last, ok = f, f.begin, true
	}
	return oldest, ok
}
