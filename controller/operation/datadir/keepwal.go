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
	"strings"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// MaxKeptWAL limits all WAL that is kept aside on a host, in bytes.
const MaxKeptWAL = 1 << 30

// keptReadme is a file beside WAL that is kept aside: how to read it.
const keptReadme = "how-to-read.txt"

// Kept is how much of some WAL is kept aside.
type Kept struct {
	// Short is why not all of it is kept; "" if all is. What is kept is then the oldest part.
	Short string
	// Nothing reports whether not even one file is kept.
	Nothing bool
}

// KeepWAL copies the WAL from a position to the end of the WAL here into a new folder, with the histories of the
// timelines. That WAL is of the timeline with that number and of later ones. It takes no more than most bytes, and no
// more than half of what is free there. If the folder exists, it is complete, and nothing is done. The folder above has
// earlier ones like it: see ForgetOldest.
func (p Place) KeepWAL(ctx context.Context, g model.GivenUp, local reconcile.LocalData, most uint64) (kept Kept, err error) {
	above := filepath.Dir(g.Folder)
	if err := os.MkdirAll(above, 0o700); err != nil {
		return Kept{}, err
	}
	files, kept, err := p.Keeps(g, local, most)
	if err != nil || files == nil {
		return kept, err
	}
	temporary := g.Folder + temporarySuffix
	cutOff, err := filepath.Glob(filepath.Join(above, "*"+temporarySuffix))
	for _, folder := range cutOff {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	if err := errors.Join(err, os.Mkdir(temporary, 0o700)); err != nil {
		return Kept{}, err
	}
	for _, name := range append(files, p.histories(g.Timeline, local)...) {
		if err := ctx.Err(); err != nil {
			return Kept{}, errors.Join(err, os.RemoveAll(temporary))
		}
		if err := copySynced(filepath.Join(p.Data, "pg_wal", name), filepath.Join(temporary, name)); err != nil {
			return Kept{}, errors.Join(fmt.Errorf("keep the WAL that only this host has: %w", err), os.RemoveAll(temporary))
		}
	}
	if err := writeWhole(filepath.Join(temporary, keptReadme), p.howToRead(g, local, kept.Short)); err != nil {
		return Kept{}, err
	}
	if err := SyncFolder(temporary); err != nil {
		return Kept{}, err
	}
	return kept, errors.Join(os.Rename(temporary, g.Folder), SyncFolder(above))
}

// Keeps returns the files that KeepWAL would copy now; nil if the folder exists. It changes nothing.
func (p Place) Keeps(g model.GivenUp, local reconcile.LocalData, most uint64) (files []string, kept Kept, err error) {
	if _, err := os.Stat(g.Folder); err == nil {
		return nil, Kept{Short: g.Short}, nil
	}
	files, kept.Short, err = p.walSince(g.Timeline, g.From, local)
	if err != nil {
		return nil, Kept{}, err
	}
	_, free, err := Disk(filepath.Dir(g.Folder))
	if err != nil {
		return nil, Kept{}, err
	}
	segments := int(min(uint64(len(files)), min(most, free/2)/local.Segment))
	if segments < len(files) {
		room := fmt.Sprintf("there is room for %d of %d files of WAL (%s free, and at most %s are kept)", segments, len(files),
			model.FormatBytes(free), model.FormatBytes(most))
		kept.Short = strings.TrimPrefix(kept.Short+"; "+room, "; ")
	}
	kept.Nothing = segments == 0 && kept.Short != ""
	return append([]string{}, files[:segments]...), kept, nil
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

// walSince returns the names of the files with the WAL from a position to the end, the oldest first. missing names the
// WAL between them that is in no file; "" if there is none.
func (p Place) walSince(timeline uint32, from model.LSN, local reconcile.LocalData) (names []string, missing string, err error) {
	entries, err := os.ReadDir(filepath.Join(p.Data, "pg_wal"))
	if err != nil {
		return nil, "", fmt.Errorf("keep the WAL that only this host has: %w", err)
	}
	first, last := from.Segment(local.Segment), (local.End - 1).Segment(local.Segment)
	there := map[uint64]bool{}
	for _, e := range entries {
		if !walFile.MatchString(e.Name()) {
			continue
		}
		id, _ := strconv.ParseUint(e.Name()[:8], 16, 32) // the pattern allows nothing else
		for n := first; n <= last; n++ {
			if uint32(id) >= timeline && e.Name() == SegmentName(uint32(id), n, local.Segment) {
				names, there[n] = append(names, e.Name()), true
			}
		}
	}
	slices.Sort(names)
	var gaps []string
	for n := first; n <= last; n++ {
		if begin := n; !there[n] {
			for n < last && !there[n+1] {
				n++
			}
			gaps = append(gaps, fmt.Sprintf("WAL from %s to %s is no longer here",
				max(from, model.LSN(begin*local.Segment)), min(local.End, model.LSN((n+1)*local.Segment))))
		}
	}
	return names, strings.Join(gaps, "; "), nil
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

// ForgetOldest removes folders of WAL that was kept aside, those with the lowest names first, until all take no more
// than most bytes. It never removes newest, and returns what it has removed.
func ForgetOldest(ctx context.Context, newest string, most uint64) (removed []string, err error) {
	above := filepath.Dir(newest)
	entries, err := os.ReadDir(above) // in order of name
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	sizes := make([]uint64, len(entries))
	var total uint64
	for i, e := range entries {
		files, err := os.ReadDir(filepath.Join(above, e.Name()))
		if err != nil {
			continue // it is no folder
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil && walFile.MatchString(f.Name()) {
				sizes[i] += uint64(info.Size())
			}
		}
		total += sizes[i]
	}
	for i, e := range entries {
		if total <= most || ctx.Err() != nil {
			break
		}
		folder := filepath.Join(above, e.Name())
		if folder == newest || sizes[i] == 0 {
			continue
		}
		if err := os.RemoveAll(folder); err != nil {
			return removed, err
		}
		removed = append(removed, folder)
		total -= sizes[i]
	}
	return removed, ctx.Err()
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
