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
	Needs   []Need // the earliest first: the first one counts
	Backups int    // how many have a history file in the archive
	First   uint64 // the number of the first segment that is needed; 0 if nothing may go
	Segment uint64 // bytes of a segment
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

// decide finds out from where on WAL is needed, given the backups with a history file in the archive. The newest
// backups, all or as many as said, are needs, too. Without a need, or with one whose position is not known, nothing
// goes.
func decide(backups []archiveFile, needs []Need, keep int, segment uint64) Pruning {
	sortFiles(backups)
	p := Pruning{Needs: slices.Clone(needs), Backups: countBackups(backups), Segment: segment}
	if oldest, ok := oldestBackup(backups, keep); ok {
		p.Needs = append(p.Needs, Need{Who: fmt.Sprintf("the backup of %s", oldest.name), From: oldest.begin})
	}
	slices.SortFunc(p.Needs, func(a, b Need) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Who, b.Who)) })
	if len(needs) > 0 && p.Needs[0].From.IsValid() {
		p.First = p.Needs[0].From.Segment(segment)
	}
	return p
}

// goes reports whether nobody needs a file: its segment lies before the earliest need, whatever its timeline, as
// pg_archivecleanup has it. A backup's history file goes with its WAL. Timeline histories stay, and so does every file
// that is none of PostgreSQL's.
func (p Pruning) goes(name string) (archiveFile, bool) {
	f, ok := parseArchived(name, p.Segment)
	return f, ok && f.segment < p.First
}

// sortFiles sorts files, the oldest WAL first.
func sortFiles(files []archiveFile) {
	slices.SortFunc(files, func(a, b archiveFile) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.name, b.name))
	})
}

// oldest holds the oldest ones of any number of files. An archive may have millions.
type oldest struct{ files []archiveFile }

func (o *oldest) add(f archiveFile) {
	if o.files = append(o.files, f); len(o.files) >= 2*atOnce {
		o.sorted()
	}
}

// sorted returns the oldest files, at most atOnce.
func (o *oldest) sorted() []archiveFile {
	sortFiles(o.files)
	o.files = o.files[:min(len(o.files), atOnce)]
	return o.files
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
