package datadir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// ReadWAL reads a timeline's WAL between two positions from pg_wal. size is the size of a segment, in bytes. The bytes
// after the last complete record may be a part of the next record, or old.
func (p Place) ReadWAL(timeline uint32, from, to model.LSN, size uint64) ([]byte, error) {
	all := make([]byte, 0, from.BytesTo(to))
	for from < to {
		n := from.Segment(size)
		begin, end := model.LSN(n*size), model.LSN((n+1)*size)
		part := make([]byte, from.BytesTo(min(to, end)))
		f, err := os.Open(filepath.Join(p.Data, "pg_wal", SegmentName(timeline, n, size)))
		if err != nil {
			return nil, err
		}
		_, err = f.ReadAt(part, int64(begin.BytesTo(from)))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		all, from = append(all, part...), end
	}
	return all, nil
}

// commitRecord is a commit as pg_waldump prints it (xact_desc_commit). Only some commits have something after the time,
// such as invalidations.
var commitRecord = regexp.MustCompile(`desc: COMMIT(?:_PREPARED [0-9]+:)? ([0-9]{4}-[0-9-]+ [0-9:.]+ [^\s;]+)`)

// commitPatience bounds all of LastCommit: it only tells an operator more.
const commitPatience = 5 * time.Second

// LastCommit is the time of the last commit before a position, as pg_waldump shows it; "" if that is not known, for
// example if the last segments have no commit, or if pg_waldump takes longer than commitPatience.
func (p Place) LastCommit(ctx context.Context, local reconcile.LocalData, before model.LSN) (when string) {
	return p.LastCommitSince(ctx, local, 0, before)
}

// LastCommitSince is LastCommit for the WAL from a position on.
func (p Place) LastCommitSince(ctx context.Context, local reconcile.LocalData, from, before model.LSN) (when string) {
	const segments = 8 // how many to search
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	newest := local.Timelines[len(local.Timelines)-1]
	from = max(from, newest.Begin)
	last := (before - min(before, 1)).Segment(local.Segment)
	for n := last; n+segments > last && when == ""; n-- {
		begin := max(from, model.LSN(n*local.Segment))
		name := SegmentName(newest.ID, n, local.Segment)
		// pg_waldump ends with an error at the end of the WAL. That is no failure here.
		end := min(before, model.LSN((n+1)*local.Segment))
		out, _ := p.Program("pg_waldump", "--rmgr=Transaction", "--start="+begin.String(), "--end="+end.String(),
			"--path="+filepath.Join(p.Data, "pg_wal"), name, name).Run(ctx)
		if ctx.Err() != nil { // what was printed by then may not be the last
			return ""
		}
		if all := commitRecord.FindAllStringSubmatch(out, -1); len(all) > 0 {
			when = all[len(all)-1][1]
		}
		if n == 0 || begin == from {
			break
		}
	}
	return when
}
