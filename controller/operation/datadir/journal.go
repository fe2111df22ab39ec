package datadir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Rewinding is how far pg_rewind has come with the data.
type Rewinding int

// How far it has come.
const (
	NotBegun    Rewinding = iota
	HalfRewound           // it was killed, or has failed: nobody may start a server on what it left
	Rewound               // it is through; the files are still to be put back that are this host's own
)

// The journal of pg_rewind is a folder beside the data, Marker. It exists from before pg_rewind changes anything until
// all is done. It keeps the node's own files, and holds:
const (
	journalMark  = "mark"      // the name of the mark in the data that the journal belongs to
	journalWhole = "rewound"   // there once pg_rewind is through
	journalOwn   = "own-files" // the names of the host's own files, also of files that do not exist
)

var notes = []string{journalMark, journalWhole, journalOwn}

// markPrefix begins the name of the mark in the data. While the mark is there, the data are half rewound, wherever they
// are moved. The mark is a named pipe, because pg_rewind removes every file, folder and link that its source does not
// have, and ignores anything else (seen with 15 and 17). mv and cp -a take the mark along; pg_basebackup does not.
// PostgreSQL ignores the mark.
const markPrefix = "pgrex-rewind."

// Rewinding reads the mark and the journal. In doubt the data are half rewound.
func (p Place) Rewinding() Rewinding {
	_, missing := os.Lstat(p.Marker())
	marks, err := p.marks()
	of, ofErr := readFile(filepath.Join(p.Marker(), journalMark))
	_, halfWay := os.Lstat(filepath.Join(p.Marker(), journalWhole))
	switch {
	case len(marks) == 0 && os.IsNotExist(missing):
		return NotBegun
	case len(marks) == 0 && err == nil && ofErr == nil: // nothing was changed yet, or other data are in their place
		return NotBegun
	case len(marks) == 1 && marks[0] == string(of) && halfWay == nil:
		return Rewound
	}
	return HalfRewound
}

// RestoredOver returns an error if a backup was restored over data that are half rewound, or were. The journal and each
// mark have to go, because either of them says that the data are half rewound. The error has their full names, because
// only the owner of the data may list them. The journal is to be kept under another name: nothing else may have this
// host's own files.
func (p Place) RestoredOver() error {
	if !p.HasBackupLabel() || p.Rewinding() == NotBegun { // pg_rewind leaves no such label
		return nil
	}
	marks, err := p.marks()
	if err != nil {
		return err
	}
	var do []string
	if len(marks) > 0 {
		for i, name := range marks {
			marks[i] = filepath.Join(p.Data, name)
		}
		do = append(do, "type "+sudo(append([]string{"rm", "-r"}, marks...)...))
	}
	marker := p.Marker()
	if _, err := os.Lstat(marker); err == nil {
		do = append(do, fmt.Sprintf("type %s, and keep that folder until you have seen that this host's own files "+
			"are right: it has them (%s)",
			sudo("mv", "-T", marker, marker+".old"), strings.Join(NodeLocal, ", ")))
	}
	return fmt.Errorf("a rewind was begun here before a backup was restored, and what it has left says that the "+
		"data are half rewound: %s",
		strings.Join(do, "; "))
}

// marks returns the names of the marks in the data. There is at most one, unless somebody has put another one there.
func (p Place) marks() (names []string, err error) {
	entries, err := os.ReadDir(p.Data)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), markPrefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// mark marks the data as half rewound.
func (p Place) mark(name string) error {
	if err := unix.Mkfifo(filepath.Join(p.Data, name), newMode); err != nil {
		return fmt.Errorf("mark %s, which pg_rewind is about to change: %w", p.Data, err)
	}
	return SyncFolder(p.Data)
}

func (p Place) unmark() error {
	marks, err := p.marks()
	if err != nil || len(marks) == 0 {
		return err
	}
	for _, name := range marks {
		if err := RemoveFile(filepath.Join(p.Data, name)); err != nil {
			return err
		}
	}
	return SyncFolder(p.Data)
}

// ownFilesLost explains why this host's own files are lost; "" if they are not. They are lost if half rewound data were
// moved without their journal: the files in the data may be the primary's by now.
func (p Place) ownFilesLost() string {
	if _, err := os.Lstat(p.Marker()); !os.IsNotExist(err) || p.Rewinding() == NotBegun {
		return ""
	}
	return fmt.Sprintf("the data are half rewound (%s*), and %s, which keeps this host's own %s, is not there: move "+
		"it there; if it is lost, make that folder, with those files", markPrefix, p.Marker(),
		strings.Join(NodeLocal, ", "))
}

// Begin opens the journal, copies this host's own files into it, and marks the data as half rewound. The journal
// appears as a whole, and the mark comes last: before the mark is there, the data are unchanged and must count as
// whole.
func (p Place) Begin(ctx context.Context, own []string) error {
	mark := markPrefix + rand.Text()
	if err := p.close(); err != nil { // a journal that is not about these data
		return err
	}
	if err := os.RemoveAll(p.opening()); err != nil {
		return err
	}
	if err := os.Mkdir(p.opening(), 0o700); err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(p.opening(), journalMark), mark); err != nil {
		return err
	}
	names, err := json.Marshal(own)
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(p.opening(), journalOwn), string(names)); err != nil {
		return err
	}
	if err := CopyFiles(ctx, p.Data, p.opening(), own); err != nil {
		return err
	}
	if err := os.Rename(p.opening(), p.Marker()); err != nil {
		return err
	}
	if err := SyncFolder(filepath.Dir(p.Marker())); err != nil {
		return err
	}
	return p.mark(mark)
}

// Through notes that pg_rewind is through.
func (p Place) Through() error { return writeWhole(filepath.Join(p.Marker(), journalWhole), "") }

// PutBack puts this host's own files back into the data, and closes the journal. It removes the mark first: a mark
// without a journal would mean half rewound data.
func (p Place) PutBack(ctx context.Context, slot string) error {
	own, err := p.kept()
	if err == nil {
		err = CopyFiles(ctx, p.Marker(), p.Data, own)
	}
	if err != nil {
		return err
	}
	if err := p.SetSlotName(slot); err != nil {
		return err
	}
	if err := p.unmark(); err != nil {
		return err
	}
	return p.close()
}

// kept returns the names of this host's own files that the journal keeps. The journal of an earlier pgrex has no list:
// then they are the files of NodeLocal that are in it.
func (p Place) kept() (own []string, err error) {
	text, err := readFile(filepath.Join(p.Marker(), journalOwn))
	if os.IsNotExist(err) {
		return (Place{Data: p.Marker()}).Here(NodeLocal), nil
	}
	if err == nil {
		err = json.Unmarshal(text, &own)
	}
	if err == nil && slices.ContainsFunc(own, func(name string) bool { return !filepath.IsLocal(name) || name == "." }) {
		err = errors.New("a name in it leads out of the data folder")
	}
	if err != nil {
		err = fmt.Errorf("read which files %s keeps: %w", p.Marker(), err)
	}
	return own, err
}

// close ends the journal at once: without its notes it would mean something else. It ends one of other data, too.
func (p Place) close() error {
	for _, marker := range p.markers() {
		if err := os.RemoveAll(marker + closedSuffix); err != nil {
			return err
		}
		err := os.Rename(marker, marker+closedSuffix)
		if err == nil {
			err = SyncFolder(filepath.Dir(marker))
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

const (
	openingSuffix = "-new"  // of a journal that is not whole yet
	closedSuffix  = "-done" // of one that has ended
)

func (p Place) opening() string { return p.Marker() + openingSuffix }

// Finish removes all that an operation has left.
func (p Place) Finish(ctx context.Context) error {
	if p.HalfSwapped() { // a server runs, so only the old data have not got their name yet
		if err := p.Swap(); err != nil {
			return err
		}
	}
	if err := p.unmark(); err != nil {
		return err
	}
	if err := p.close(); err != nil {
		return err
	}
	if err := p.removeAll(ctx, p.leftOfJournals()...); err != nil {
		return err
	}
	return p.Clear(ctx)
}

// Marker is the journal's folder, which is there while pg_rewind's work is not whole. It is where it was begun, even if
// this user may write elsewhere by now. If there are two, it is the one that belongs to the mark in the data.
func (p Place) Marker() string {
	var found []string
	for _, marker := range p.markers() {
		if _, err := os.Lstat(marker); err == nil {
			found = append(found, marker)
		}
	}
	switch len(found) {
	case 0:
		return p.side() + markerSuffix
	case 1:
		return found[0]
	}
	marks, _ := p.marks()
	for _, marker := range found {
		if of, err := readFile(filepath.Join(marker, journalMark)); err == nil && slices.Contains(marks, string(of)) {
			return marker
		}
	}
	return found[0]
}

const markerSuffix = ".pgrex-rewind"

// markers are the folders in which a journal may be.
func (p Place) markers() (markers []string) {
	for _, side := range p.sides() {
		markers = append(markers, side+markerSuffix)
	}
	return markers
}

// leftOfJournals are what a kill may leave of journals.
func (p Place) leftOfJournals() (paths []string) {
	for _, marker := range p.markers() {
		paths = append(paths, marker+openingSuffix, marker, marker+closedSuffix)
	}
	return paths
}
