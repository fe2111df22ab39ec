package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

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
		options := []string{option, "--start=" + start.String(), fmt.Sprintf("--timeline=%d", newest.ID),
			"--path=" + filepath.Join(p.Data, "pg_wal")}
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
