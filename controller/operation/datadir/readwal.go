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

// ReadWAL reads the bytes of a timeline's WAL between two positions from the files here. size is that of a segment.
// What lies behind the last whole record may be half of the next one, or old.
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

var commitRecord = regexp.MustCompile(`desc: COMMIT(?:_PREPARED)? ([0-9]{4}-[0-9-]+ [0-9:.]+ \S+?);? `)

// commitPatience bounds all of LastCommit: it only tells an operator more.
const commitPatience = 5 * time.Second

// LastCommit is when the last transaction before a position was committed, as pg_waldump shows it; "" if that is not
// known, as after several segments without a commit, or not within commitPatience.
func (p Place) LastCommit(ctx context.Context, local reconcile.LocalData, before model.LSN) (when string) {
	const segments = 8 // to look through
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	newest := local.Timelines[len(local.Timelines)-1]
	last := (before - min(before, 1)).Segment(local.Segment)
	for n := last; n+segments > last && when == ""; n-- {
		begin := max(newest.Begin, model.LSN(n*local.Segment))
		name := SegmentName(newest.ID, n, local.Segment)
		// It ends with an error where the WAL does.
		end := min(before, model.LSN((n+1)*local.Segment))
		out, _ := p.Program("pg_waldump", "--rmgr=Transaction", "--start="+begin.String(), "--end="+end.String(),
			"--path="+filepath.Join(p.Data, "pg_wal"), name, name).Run(ctx)
		if ctx.Err() != nil { // what was printed by then may not be the last
			return ""
		}
		if all := commitRecord.FindAllStringSubmatch(out, -1); len(all) > 0 {
			when = all[len(all)-1][1]
		}
		if n == 0 || begin == newest.Begin {
			break
		}
	}
	return when
}
