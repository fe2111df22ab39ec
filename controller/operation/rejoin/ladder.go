package rejoin

import (
	"cmp"
	"fmt"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Method is a way to bring a host back.
type Method string

// The methods, the cheapest first.
const (
	MethodStart    Method = "start"    // its data are a part of the primary's, which has the rest
	MethodArchive  Method = "archive"  // the same, but a part of the rest is in the WAL archive only
	MethodRestored Method = "restored" // its data were restored from a backup: they recover with the WAL of both
	MethodRewind   Method = "rewind"   // its data parted from the primary's: pg_rewind rewinds them
	MethodCopy     Method = "copy"     // pg_basebackup
)

// Return is what is known of a host that is to come back, and of the primary that it is to follow.
type Return struct {
	Host  string
	Local reconcile.LocalData
	// Primary is who it is to follow: its timelines, and what it said of this host's slot.
	Primary   model.Upstream
	Timelines []model.Timeline
	// Bytes is the size of the primary, without WAL; 0 if that is not known. Unseen then says why.
	Bytes  uint64
	Unseen string
	// Keeps is how much WAL that only this host has is kept aside on the file system of the data, in bytes.
	Keeps uint64
	// Unmeasured is why Bytes is 0 although the primary's tablespaces are known.
	Unmeasured string
	// Spaces are the primary's tablespaces, as a copy has them. NoFolder is why the folder of such a tablespace cannot be
	// made here; "" if all can. Taken is why pg_rewind cannot use such a folder; "" if it can.
	Spaces          []Space
	NoFolder, Taken string
	// Differs: the primary's WAL before Local.End is another one, though the timelines are the same.
	Differs bool
	// NoWAL is why the primary cannot send WAL from Local.End on; "" if it can.
	NoWAL string
	// NoArchive is why the WAL archive does not have what the primary cannot send; "" if all of it, ArchiveBytes, was
	// restored for a try.
	NoArchive    string
	ArchiveBytes uint64
	// NoRewindWAL is why neither the primary nor the archive has the WAL from Parted on; "" if one of them has.
	NoRewindWAL string
	// Rates as measured, in bytes a second: from the primary, and out of the archive; 0 if there was nothing to
	// measure.
	Rate, ArchiveRate uint64
	// MaxRate is the limit of a copy's rate, 0 for none.
	MaxRate uint64
	// Rewound is how much pg_rewind would fetch beside the blocks that have changed; 0 if that is not known.
	Rewound uint64
	// NoFiles is why pg_rewind and a copy could not get all of the primary's files; "" if nothing is known against
	// that. InTheWay names what is here in the place of one of those files, and is not replaced by pg_rewind; "" for
	// nothing.
	NoFiles, InTheWay string
	// Astray is why PostgreSQL here would follow the WAL archive instead of the primary; "" if it does not.
	Astray string
	// TooLow is why PostgreSQL here could not follow the primary by its settings; "" if it could, or if these are not
	// known.
	TooLow string
	// NoBackupEnd is why nobody knows where the backup ended; "" if that is known, or need not be.
	NoBackupEnd string
	// Begun is the method of an earlier attempt that changed the data and was not finished.
	Begun Method
}

// Space is a tablespace as a copy has it.
type Space struct {
	Name, Folder string
	Bytes        uint64 // 0 if that is not known
	FileSystem   uint64 // the number of the one that Folder is on
	Free         uint64 // there, in bytes
}

// Rung is a way back, possible or not, and why.
type Rung struct {
	Method      Method
	Possible    bool
	OnlyIfAsked bool   // by its name
	Why         string // one sentence
	Bytes       uint64 // to be fetched, about; 0 for a copy if that is not known
	Rate        uint64 // at which it is likely fetched, in bytes a second; 0 if that is not known
}

// Ladder returns the ways back, the cheapest first.
func Ladder(r Return) []Rung {
	return []Rung{r.start(), r.archive(), r.restored(), r.rewind(), r.copied()}
}

// Fits reports whether the data can go on as they are, given the WAL.
func (r Return) Fits() bool { return r.unfit() == "" }

// NeedsArchive reports whether the archive is all that the host could go on with as it is.
func (r Return) NeedsArchive() bool { return r.Fits() && r.NoWAL != "" }

// NeedsRewind reports whether a rewind would do it, if there is the WAL from Parted on.
func (r Return) NeedsRewind() bool { return r.notRewindable() == "" }

// Parted tells where the host's WAL and the primary's part: the end of what they share.
func (r Return) Parted() model.LSN {
	_, parted := r.shared()
	return parted
}

// shared returns the last timeline that both have, and the end of what they share; zero if they share nothing.
func (r Return) shared() (timeline uint32, shared model.LSN) {
	for i, mine := range r.Local.Timelines {
		if i >= len(r.Timelines) || r.Timelines[i] != mine {
			break
		}
		timeline, shared = mine.ID, min(end(r.Local.Timelines, i, r.Local.End), end(r.Timelines, i, r.Primary.Flushed))
	}
	return timeline, shared
}

func end(timelines []model.Timeline, i int, last model.LSN) model.LSN {
	if i+1 < len(timelines) {
		return timelines[i+1].Begin
	}
	return last
}

// onlyAhead: on the primary's own timeline, and further than the primary itself.
func (r Return) onlyAhead() bool {
	mine, its := r.Local.Timelines, r.Timelines
	return len(mine) > 0 && len(mine) == len(its) && mine[len(mine)-1] == its[len(its)-1] &&
		r.reaches() > r.Primary.Flushed
}

// reaches is the position up to which WAL is needed in any case: the end of the WAL here, or of the backup, if that is
// known.
func (r Return) reaches() model.LSN {
	if r.Local.Backup == nil {
		return r.Local.End
	}
	return max(r.Local.End, r.Local.Changed)
}

// changedBeyond: pg_rewind, or a backup, has brought changes here that were made on the newest timeline after the
// primary had left it.
func (r Return) changedBeyond() bool {
	next := len(r.Local.Timelines)
	return next < len(r.Timelines) && r.Local.Changed > r.Timelines[next].Begin
}

// unfit is why the data cannot go on as they are, whatever WAL there is; "" if they can.
func (r Return) unfit() string {
	switch parted := r.Parted(); {
	case r.Begun == "" && r.nothing() != "":
		return r.nothing()
	case r.Begun != "":
		return fmt.Sprintf("a %s was begun here and not finished: the data are of no use as they are", r.Begun)
	case r.Local.Unreadable != "":
		return r.Local.Unreadable
	case r.Local.Unconfigured != "":
		return r.Local.Unconfigured
	case r.onlyAhead():
		return fmt.Sprintf("it has WAL up to %s, and the primary, on the same timeline, only up to %s: the primary has lost "+
			"what this host has; find out why before you give it up", r.reaches(), r.Primary.Flushed)
	case r.unfitBackup() != "":
		return r.unfitBackup()
	case parted == 0:
		return "it shares no timeline with the primary"
	case parted != r.Local.End:
		return fmt.Sprintf("its WAL goes on to %s, but parts from the primary's at %s", r.Local.End, parted)
	case r.Differs:
		return fmt.Sprintf("its WAL up to %s is not the primary's, though by number and beginning the timeline is the same: two hosts were "+
			"promoted from the same WAL", r.Local.End)
	case r.NoFolder != "":
		return r.NoFolder
	case r.changedBeyond():
		return fmt.Sprintf("its blocks may hold changes up to %s, which the primary does not have: after pg_rewind another host was promoted", r.Local.Changed)
	}
	return ""
}

// unstartable is why PostgreSQL cannot follow the primary with the data as they are, whatever WAL there is; "" if it
// can.
func (r Return) unstartable() string {
	return cmp.Or(r.unfit(), r.Astray, r.TooLow, r.Local.TooLow)
}

// restoredOnly is why "restored" and "copy" are the only ways back: the data were restored from a backup. It is "" if
// they were not.
func (r Return) restoredOnly() string {
	if r.Local.Backup == nil {
		return ""
	}
	return "its data were restored from a backup, and have not recovered yet"
}

// unfitBackup is why a backup cannot recover with the primary's WAL; "" if it can.
func (r Return) unfitBackup() string {
	b := r.Local.Backup
	if b == nil {
		return ""
	}
	switch parted := r.Parted(); {
	case parted == 0:
		return fmt.Sprintf("the backup is of timeline %d, which is not in the primary's history", b.Timeline)
	case parted < b.Start:
		return fmt.Sprintf("the backup begins at %s, and the primary left its timeline, %d, at %s",
			b.Start, b.Timeline, parted)
	case r.Differs && r.Local.End <= b.Checkpoint:
		return fmt.Sprintf("the primary's WAL does not have the checkpoint at %s with which the backup begins: it is a backup "+
			"of another host that was promoted from the same WAL", b.Checkpoint)
	case r.changedBeyond():
		return fmt.Sprintf("the backup goes on to %s, and the primary left its timeline, %d, at %s",
			r.Local.Changed, b.Timeline, r.Timelines[len(r.Local.Timelines)].Begin)
	}
	return r.NoBackupEnd
}

func (r Return) start() Rung {
	rung := Rung{Method: MethodStart, Bytes: r.Local.End.BytesTo(r.Primary.Flushed), Rate: r.Rate}
	rung.Why = cmp.Or(r.restoredOnly(), r.unstartable())
	switch {
	case rung.Why != "":
	case r.NoWAL != "":
		rung.Why = fmt.Sprintf("it needs WAL from %s on: %s", r.Local.End, r.NoWAL)
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("all it has is a part of the primary's WAL, which the primary has from %s on", r.Local.End)
	}
	return rung
}

func (r Return) archive() Rung {
	rung := Rung{Method: MethodArchive, Bytes: r.Local.End.BytesTo(r.Primary.Flushed), Rate: r.ArchiveRate}
	rung.Why = cmp.Or(r.restoredOnly(), r.unstartable())
	switch {
	case rung.Why != "":
	case r.NoWAL == "":
		rung.Why = "the primary has all the WAL that is needed"
	case r.NoArchive != "":
		rung.Why = r.NoArchive
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("the WAL that the primary no longer has, from %s on, is in the archive: %s of it were restored for a try",
			r.Local.End, model.FormatBytes(r.ArchiveBytes))
	}
	return rung
}

func (r Return) restored() Rung {
	rung := Rung{Method: MethodRestored, Bytes: r.Local.End.BytesTo(r.Primary.Flushed), Rate: r.Rate}
	b := r.Local.Backup
	if b == nil {
		rung.Why = cmp.Or(r.Local.Gone, r.Local.Unreadable, r.Local.Unconfigured,
			"its data were not restored from a backup, or have recovered since: backup_label is not there")
		return rung
	}
	rung.Why = r.unstartable()
	switch {
	case rung.Why != "":
	case r.NoWAL != "" && r.NoArchive != "":
		rung.Why = fmt.Sprintf("the backup, which begins at %s, needs WAL from %s on: %s; %s",
			b.Start, r.Local.End, r.NoWAL, r.NoArchive)
	case r.NoWAL != "":
		rung.Possible, rung.Rate = true, r.ArchiveRate
		rung.Why = fmt.Sprintf("the backup begins at %s, and the WAL that the primary no longer has, from %s on, is in the "+
			"archive: %s of it were restored for a try", b.Start, r.Local.End, model.FormatBytes(r.ArchiveBytes))
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("the backup begins at %s, and the primary has the WAL from %s on", b.Start, r.Local.End)
	}
	return rung
}

func (r Return) rewind() Rung {
	parted := r.Parted()
	// It fetches the blocks that changed, at most about the WAL that changed them, and some files whole: among them the
	// primary's pg_wal, which has to do where the others are not known.
	rung := Rung{
		Method: MethodRewind, Rate: r.Rate,
		Bytes: parted.BytesTo(r.Primary.Flushed) + parted.BytesTo(r.Local.End) + cmp.Or(r.Rewound, r.Local.WAL),
		Why:   r.notRewindable(),
	}
	switch {
	case rung.Why != "":
	case r.NoRewindWAL != "":
		rung.Why = fmt.Sprintf("its WAL parted from the primary's at %s, and %s", parted, r.NoRewindWAL)
	default:
		rung.Possible = true
		rung.Why = fmt.Sprintf("its WAL parted from the primary's at %s: what was written here since is given up", parted)
	}
	return rung
}

// notRewindable is why pg_rewind has nothing to do or cannot do it here, whatever WAL there is; "" if it can.
func (r Return) notRewindable() string {
	switch parted := r.Parted(); {
	case r.Begun == "" && r.nothing() != "":
		return r.nothing()
	case r.Begun != "":
		return fmt.Sprintf("a %s was begun here and not finished: pg_rewind must not be run on what it left", r.Begun)
	case r.restoredOnly() != "":
		return r.restoredOnly()
	case r.Local.Unreadable != "":
		return r.Local.Unreadable
	case r.Local.Unconfigured != "":
		return r.Local.Unconfigured
	case r.onlyAhead():
		return "the timelines have not parted: pg_rewind would do nothing"
	case parted == r.Local.End:
		return "its WAL has not parted from the primary's: pg_rewind would do nothing"
	case parted == 0:
		return "it shares no timeline with the primary"
	case r.sameNumber():
		return fmt.Sprintf("its newest timeline has the number of the primary's, %d, and is another one: pg_rewind would not tell them apart", r.Primary.Timeline)
	case r.NoFolder != "":
		return r.NoFolder
	case r.Taken != "":
		return r.Taken
	case r.Local.Changed > r.Local.End:
		return fmt.Sprintf("its blocks may hold changes up to %s, of an earlier pg_rewind, and its WAL ends at %s: pg_rewind would not find them",
			r.Local.Changed, r.Local.End)
	}
	return cmp.Or(r.Local.NoRewind, r.NoFiles, r.InTheWay, r.TooLow)
}

// sameNumber: two hosts that did not know of each other were promoted, and chose the same number.
func (r Return) sameNumber() bool {
	mine, its := r.Local.Timelines, r.Timelines
	last := mine[len(mine)-1]
	return last.ID == its[len(its)-1].ID && last != its[len(its)-1]
}

func (r Return) copied() Rung {
	rung := Rung{Method: MethodCopy, Bytes: cmp.Or(r.Bytes, r.Local.Bytes), Rate: r.Rate}
	if r.MaxRate > 0 && (r.Rate == 0 || r.MaxRate < r.Rate) {
		rung.Rate = r.MaxRate
	}
	local, size := r.Local, model.FormatBytes
	elsewhere, noRoom := r.elsewhere()
	needs := rung.Bytes - min(rung.Bytes, elsewhere) + r.Keeps
	if !local.WALApart {
		needs += local.WAL
	}
	switch {
	case r.Begun == MethodCopy:
		return Rung{Method: MethodCopy, Possible: true, Why: "it is whole, and its files are being put in their place"}
	case cmp.Or(local.NoCopy, r.NoFiles, r.TooLow) != "":
		rung.Why = cmp.Or(local.NoCopy, r.NoFiles, r.TooLow)
	case local.Free < needs:
		rung.Why = fmt.Sprintf("%s are free, but the copy beside the old data needs about %s: make room, or copy by hand",
			size(local.Free), size(needs))
	case local.WALApart && local.WALFree < local.WAL:
		rung.Why = fmt.Sprintf("%s are free on the file system of pg_wal, but the copy's WAL may take %s (max_wal_size), beside the old "+
			"WAL, which stays until the host streams: make room there, or copy by hand", size(local.WALFree), size(local.WAL))
	case noRoom != "":
		rung.Why = noRoom
	case r.onlyAhead(), r.otherSystem() != "":
		rung.Possible, rung.OnlyIfAsked = true, true
		rung.Why = "only if --method copy asks for it: what is here and nowhere else would be lost"
	case local.Gone != "":
		rung.Possible, rung.OnlyIfAsked = true, true
		rung.Why = "only if --method copy asks for it: first see that every file system is mounted here"
	case local.SystemID == "" || local.Unconfigured != "":
		rung.Possible, rung.OnlyIfAsked = true, true
		rung.Why = "only if --method copy asks for it: it is not known what is here and nowhere else"
	default:
		rung.Possible, rung.Why = true, "always possible; the old data are kept until the copy is whole"
	}
	if rung.Possible && rung.Bytes == 0 {
		rung.Why += fmt.Sprintf("; whether there is room for it is not known (%s)", cmp.Or(r.Unseen, r.Unmeasured))
	}
	return rung
}

// elsewhere returns how much of a copy goes to other file systems than that of the data folder, in bytes, and why there
// is no room for it; "" if there is.
func (r Return) elsewhere() (bytes uint64, noRoom string) {
	needs := map[uint64]uint64{}
	for _, s := range r.Spaces {
		if s.FileSystem == r.Local.FileSystem {
			continue
		}
		bytes += s.Bytes
		if needs[s.FileSystem] += s.Bytes; s.Free < needs[s.FileSystem] && noRoom == "" {
			noRoom = fmt.Sprintf("%s are free for the tablespace %s in %s, but what the copy puts there needs about %s: make room, or copy by hand",
				model.FormatBytes(s.Free), s.Name, s.Folder, model.FormatBytes(needs[s.FileSystem]))
		}
	}
	return bytes, noRoom
}

// nothing explains why the primary's database, or a part of it, is not here; "" if it is.
func (r Return) nothing() string {
	if r.Local.Gone != "" {
		return r.Local.Gone
	}
	return r.otherSystem()
}

// otherSystem explains why the data are of another database; "" if they are of the primary's, or if that is not known.
func (r Return) otherSystem() string {
	if r.Local.SystemID == "" || r.Local.SystemID == r.Primary.SystemID {
		return ""
	}
	return fmt.Sprintf("its data are of another database: the system identifier is %s, the primary's %s", r.Local.SystemID, r.Primary.SystemID)
}
