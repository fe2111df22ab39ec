package rejoin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// restoreTimeout bounds one call of restore_command. PostgreSQL has no such bound.
const restoreTimeout = 2 * time.Minute

// archive is the WAL archive as restore_command knows it.
type archive struct {
	place   datadir.Place
	command string
	redo    string // what %r stands for: the oldest WAL file that a restart needs
	folder  string // where files are restored to for a try
}

// openArchive is the WAL archive as restore_command here knows it, with a folder for tries, which the caller removes;
// or why there is none.
func (c *Case) openArchive(ctx context.Context) (a archive, why string, err error) {
	command, err := c.Place.Configured(ctx, "restore_command")
	switch {
	case err != nil:
		return a, "", err
	case command == "":
		return a, "there is no restore_command: the agent's parameter, or postgresql.auto.conf here, has none", nil
	}
	control, err := c.Place.Control(ctx)
	if err != nil {
		return a, "", err
	}
	a = archive{place: c.Place, command: command, redo: control["Latest checkpoint's REDO WAL file"]}
	if a.folder, err = c.Place.TryFolder(); err != nil {
		return a, fmt.Sprintf("the WAL archive cannot be tried: %v", err), nil
	}
	return a, "", nil
}

// tryArchive restores, for a try, all the WAL that the primary can no longer send.
func (r *Rejoin) tryArchive(ctx context.Context, c *Case) error {
	size := c.Return.Local.Segment
	first := c.Return.Local.End.Segment(size)
	sendable, err := c.sendable(ctx, c.Return.Local.End)
	if err != nil || sendable == first {
		return err
	}
	begin := time.Now()
	if c.Return.NoArchive, err = r.archiveLacks(ctx, c, first, sendable); err != nil || c.Return.NoArchive != "" {
		return err
	}
	c.Return.ArchiveBytes = (sendable - first) * size
	c.Return.ArchiveRate = uint64(float64(c.Return.ArchiveBytes) / time.Since(begin).Seconds())
	return nil
}

// archiveLacks is why the WAL archive does not have the WAL segments from one number up to another; "" if all were
// restored for a try.
func (r *Rejoin) archiveLacks(ctx context.Context, c *Case, first, end uint64) (why string, err error) {
	if !r.Archive {
		return "the WAL archive was not tried, since another way is asked for", nil
	}
	a, why, err := c.openArchive(ctx)
	if err != nil || why != "" {
		return why, err
	}
	defer func() { _ = os.RemoveAll(a.folder) }()
	r.Report(fmt.Sprintf("trying the WAL archive, for %s", model.FormatBytes((end-first)*c.Return.Local.Segment)))
	if err := a.has(ctx, c, first, end); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return err.Error(), nil
	}
	return "", nil
}

// has tries the history of the primary's timeline, and the WAL segments from one number up to another.
func (a archive) has(ctx context.Context, c *Case, first, end uint64) error {
	if newest := c.Return.Primary.Timeline; newest > 1 {
		if err := a.restore(ctx, fmt.Sprintf("%08X.history", newest), nil); err != nil {
			return err
		}
	}
	size := c.Return.Local.Segment
	for n := first; n < end; n++ {
		check := func(header []byte) error { return rightSegment(header, c.Return.Local.SystemID, n*size) }
		name := datadir.SegmentName(timelineAt(c.Return.Timelines, n, size), n, size)
		if err := a.restore(ctx, name, check); err != nil {
			return err
		}
		info, err := os.Stat(a.path())
		if err == nil && uint64(info.Size()) != size {
			err = fmt.Errorf("the archive's WAL segment %d has %d bytes, not %d", n, info.Size(), size)
		}
		if b := c.Return.Local.Backup; err == nil && b != nil && b.Checkpoint.Segment(size) == n {
			err = a.begins(b, size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// astray is why PostgreSQL here would follow the WAL archive instead of the primary; "" if it would not. At every start
// as a standby, PostgreSQL asks the archive before the primary, whatever way back was asked for. The archive may have WAL
// of an older timeline from after the primary left that, written by a host that was not fenced yet, and lack the newer
// timeline. PostgreSQL would then replay WAL that the primary does not have.
func (r *Rejoin) astray(ctx context.Context, c *Case) (why string, err error) {
	mine, its, size := c.Return.Local.Timelines, c.Return.Timelines, c.Return.Local.Segment
	if !c.Return.Fits() || len(mine) == len(its) {
		return "", nil
	}
	a, why, err := c.openArchive(ctx)
	if err != nil || why != "" { // without an archive, PostgreSQL follows the primary
		return "", err
	}
	defer func() { _ = os.RemoveAll(a.folder) }()
	for i, newer := range its[len(mine):] {
		older := its[len(mine)+i-1]
		n := newer.Begin.Segment(size)
		last := datadir.SegmentName(older.ID, n, size)
		if a.restore(ctx, last, nil) != nil {
			continue
		}
		history := fmt.Sprintf("%08X.history", c.Return.Primary.Timeline)
		for _, name := range []string{history, datadir.SegmentName(newer.ID, n, size)} {
			if err := a.restore(ctx, name, nil); err != nil && ctx.Err() == nil {
				return fmt.Sprintf("PostgreSQL would follow the WAL archive away from the primary, which left timeline %d at %s: "+
					"%s is in it, and %v", older.ID, newer.Begin, last, err), nil
			}
		}
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return "", nil
}

func (a archive) path() string { return filepath.Join(a.folder, "file") }

// restore has a file restored as PostgreSQL would, and its first bytes checked.
func (a archive) restore(ctx context.Context, name string, check func(header []byte) error) error {
	if err := datadir.RemoveFile(a.path()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, restoreTimeout, fmt.Errorf("no end within %s", restoreTimeout))
	defer cancel()
	command := expand(a.command, name, a.path(), a.redo)
	t := datadir.Tool{Path: "/bin/sh", Args: []string{"-c", command}, Folder: a.place.Data}
	if _, err := t.Run(ctx); err != nil {
		// What the command says may hold a secret of its own; PostgreSQL's log has it.
		if failed := (*datadir.ToolError)(nil); errors.As(err, &failed) {
			err = failed.Unwrap()
		}
		return fmt.Errorf("%s is not in the WAL archive: restore_command ends with %w", name, err)
	}
	f, err := os.Open(a.path())
	if err != nil {
		return fmt.Errorf("%s is not in the WAL archive, though restore_command says so: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	if check == nil {
		return nil
	}
	header := make([]byte, longHeader)
	if _, err = io.ReadFull(f, header); err == nil {
		err = check(header)
	}
	if err != nil {
		return fmt.Errorf("%s of the WAL archive: %w", name, err)
	}
	return nil
}

// longHeader is how much of a segment's first page header is looked at (XLogLongPageHeaderData).
const longHeader = 32

// rightSegment reports whether a WAL segment is of a database, and begins where it should.
func rightSegment(header []byte, system string, begin uint64) error {
	if at := binary.NativeEndian.Uint64(header[8:]); at != begin {
		return fmt.Errorf("it begins at %s, not at %s", model.LSN(at), model.LSN(begin))
	}
	if id := strconv.FormatUint(binary.NativeEndian.Uint64(header[24:]), 10); id != system {
		return fmt.Errorf("it is of another database, with the system identifier %s", id)
	}
	return nil
}

// expand puts in what restore_command's %f, %p, %r and %% stand for; anything else stays, as with PostgreSQL 15.
func expand(command, file, path, redo string) string {
	return strings.NewReplacer("%%", "%", "%f", file, "%p", path, "%r", redo).Replace(command)
}

// sendable is the number of the first WAL segment that the primary still has of those from a position on. It is found
// by halving: WAL is removed from its old end.
func (c *Case) sendable(ctx context.Context, from model.LSN) (uint64, error) {
	size, flushed := c.Return.Local.Segment, c.Return.Primary.Flushed
	first, last := from.Segment(size), (flushed - 1).Segment(size) // the primary writes the last one
	if first >= last {
		return first, nil
	}
	var failed error
	n := sort.Search(int(last-first), func(i int) bool {
		if failed != nil {
			return true
		}
		has, err := c.sends(ctx, first+uint64(i))
		failed = err
		return has
	})
	return first + uint64(n), failed
}

// sends asks the primary for the WAL segment of a number.
func (c *Case) sends(ctx context.Context, n uint64) (bool, error) {
	source, err := postgres.OpenSource(ctx, c.Conninfo)
	if err != nil {
		return false, err
	}
	defer source.Close()
	size := c.Return.Local.Segment
	_, err = source.Has(ctx, model.LSN(n*size), timelineAt(c.Return.Timelines, n, size), 0)
	if errors.Is(err, postgres.ErrNoWAL) {
		return false, nil
	}
	return err == nil, err
}

// timelineAt is the timeline that the file of a segment is named after: the newest with WAL in it.
func timelineAt(timelines []model.Timeline, n, size uint64) uint32 {
	for i := len(timelines) - 1; i > 0; i-- {
		if timelines[i].Begin.Segment(size) <= n {
			return timelines[i].ID
		}
	}
	return timelines[0].ID
}
