package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// MaxKeptWAL limits all WAL that is kept aside on a host, in bytes.
const MaxKeptWAL = 1 << 30

// keptReadme is a file beside WAL that is kept aside: how to read it.
const keptReadme = "how-to-read.txt"

// KeepWAL copies the WAL from a position to the end of the WAL here into a new folder, with the histories of the
// timelines. That WAL is of the timeline with that number and of later ones. The folder above has earlier ones like it:
// the oldest are removed until all of them take no more than most bytes. The WAL also takes no more than half of what
// is free there. short is why not all of it is kept: then it is the oldest part. If the folder exists, it is complete,
// and nothing is done.
func (p Place) KeepWAL(ctx context.Context, g model.GivenUp, local reconcile.LocalData, most uint64) (short string, err error) {
	if _, err := os.Stat(g.Folder); err == nil {
		return "", nil
	}
	above := filepath.Dir(g.Folder)
	if err := os.MkdirAll(above, 0o700); err != nil {
		return "", err
	}
	files, err := p.walSince(g.Timeline, g.From, local)
	if err != nil {
		return "", err
	}
	_, free, err := Disk(above)
	if err != nil {
		return "", err
	}
	room := min(most, free/2)
	segments := int(min(uint64(len(files)), room/local.Segment))
	if segments < len(files) {
		short = fmt.Sprintf("there is room for %d of %d files of WAL (%s free, and at most %s are kept)", segments, len(files),
			model.FormatBytes(free), model.FormatBytes(most))
	}
	if err := removeOldest(ctx, above, most-uint64(segments)*local.Segment); err != nil {
		return "", err
	}
	temporary := g.Folder + temporarySuffix
	if err := errors.Join(os.RemoveAll(temporary), os.Mkdir(temporary, 0o700)); err != nil {
		return "", err
	}
	for _, name := range append(files[:segments:segments], p.histories(g.Timeline, local)...) {
		if err := ctx.Err(); err != nil {
			return "", errors.Join(err, os.RemoveAll(temporary))
		}
		if err := copySynced(filepath.Join(p.Data, "pg_wal", name), filepath.Join(temporary, name)); err != nil {
			return "", errors.Join(fmt.Errorf("keep the WAL that only this host has: %w", err), os.RemoveAll(temporary))
		}
	}
	if err := writeWhole(filepath.Join(temporary, keptReadme), p.howToRead(g, local, short)); err != nil {
		return "", err
	}
	return short, errors.Join(os.Rename(temporary, g.Folder), SyncFolder(above))
}

// howToRead is the text beside WAL that is kept aside.
func (p Place) howToRead(g model.GivenUp, local reconcile.LocalData, short string) string {
	newest := local.Timelines[len(local.Timelines)-1]
	t := p.Program("pg_waldump", "--path="+g.Folder, fmt.Sprintf("--timeline=%d", newest.ID),
		"--start="+max(g.From, newest.Begin).String(), "--end="+g.To.String())
	text := fmt.Sprintf("WAL that only this host had, from %s to %s, before its data became those of another host.\nTo read it:\n%s\n", g.From, g.To, t)
	if short != "" {
		text += "Not all of it is here: " + short + "\n"
	}
	return text
}

// walSince returns the names of the files with the WAL from a position to the end, the oldest first.
func (p Place) walSince(timeline uint32, from model.LSN, local reconcile.LocalData) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return nil, fmt.Errorf("keep the WAL that only this host has: %w", err)
	}
	for _, e := range entries {
		if !walFile.MatchString(e.Name()) {
			continue
		}
		id, _ := strconv.ParseUint(e.Name()[:8], 16, 32) // the pattern allows nothing else
		for n := from.Segment(local.Segment); n <= (local.End - 1).Segment(local.Segment); n++ {
			if uint32(id) >= timeline && e.Name() == SegmentName(uint32(id), n, local.Segment) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// histories returns the names of the history files of a timeline and of later ones, as far as they are here.
func (p Place) histories(timeline uint32, local reconcile.LocalData) (names []string) {
	for _, t := range local.Timelines {
		name := fmt.Sprintf("%08X.history", t.ID)
		if _, err := os.Stat(filepath.Join(p.Data, "pg_wal", name)); err == nil && t.ID >= timeline {
			names = append(names, name)
		}
	}
	return names
}

// removeOldest removes folders of WAL that was kept aside, those with the lowest names first, until the rest take no
// more than most bytes.
func removeOldest(ctx context.Context, above string, most uint64) error {
	entries, err := os.ReadDir(above) // in order of name
	if err != nil {
		return err
	}
	sizes := make([]uint64, len(entries))
	var total uint64
	for i, e := range entries {
		files, err := os.ReadDir(filepath.Join(above, e.Name()))
		if err != nil {
			continue // it is no folder
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				sizes[i] += uint64(info.Size())
			}
		}
		total += sizes[i]
	}
	for i, e := range entries {
		if total <= most || ctx.Err() != nil {
			break
		}
		if err := os.RemoveAll(filepath.Join(above, e.Name())); err != nil {
			return err
		}
		total -= sizes[i]
	}
	return ctx.Err()
}

// copySynced copies a file. The copy is on disk when copySynced returns.
func copySynced(from, to string) error {
	in, err := openFile(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, newMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
