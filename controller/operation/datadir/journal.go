package datadir

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
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
	journalOf    = "data-folder" // the inode of the data folder: to one that has taken its place it does not apply
	journalWhole = "rewound"     // there once pg_rewind is through
)

// Rewinding reads the journal. In doubt the data are half rewound.
func (p Place) Rewinding() Rewinding {
	if _, err := os.Lstat(p.Marker()); os.IsNotExist(err) {
		return NotBegun
	}
	inode, err := p.inode()
	of, ofErr := readFile(filepath.Join(p.Marker(), journalOf))
	if err == nil && ofErr == nil && string(of) != inode {
		return NotBegun
	}
	if _, err := os.Lstat(filepath.Join(p.Marker(), journalWhole)); err == nil {
		return Rewound
	}
	return HalfRewound
}

func (p Place) inode() (string, error) {
	var s syscall.Stat_t
	err := syscall.Stat(p.Data, &s)
	return strconv.FormatUint(s.Ino, 10), err
}

// Begin opens the journal. It appears whole: until then nothing was touched, and nothing must look as if it were.
func (p Place) Begin() error {
	inode, err := p.inode()
	if err != nil {
		return err
	}
	if err := p.close(); err != nil { // one that does not apply
		return err
	}
	if err := os.RemoveAll(p.opening()); err != nil {
		return err
	}
	if err := os.Mkdir(p.opening(), 0o700); err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(p.opening(), journalOf), inode); err != nil {
		return err
	}
	if err := CopyFiles(p.Data, p.opening()); err != nil {
		return err
	}
	if err := os.Rename(p.opening(), p.Marker()); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(p.Marker()))
}

// Through notes that pg_rewind is through.
func (p Place) Through() error { return writeWhole(filepath.Join(p.Marker(), journalWhole), "") }

// PutBack puts this host's own files back into the data, and closes the journal.
func (p Place) PutBack(slot string) error {
	if err := CopyFiles(p.Marker(), p.Data); err != nil {
		return err
	}
	if err := p.SetSlotName(slot); err != nil {
		return err
	}
	return p.close()
}

// close ends the journal at once: without its notes it would mean something else.
func (p Place) close() error {
	if err := os.RemoveAll(p.closed()); err != nil {
		return err
	}
	if err := os.Rename(p.Marker(), p.closed()); err != nil && !os.IsNotExist(err) {
		return err
	}
	return SyncFolder(filepath.Dir(p.Marker()))
}

func (p Place) opening() string { return p.Marker() + "-new" }

func (p Place) closed() string { return p.Marker() + "-done" }

// Finish removes all that an operation has left.
func (p Place) Finish() error {
	if p.HalfSwapped() { // but for the old data's name: a server runs
		if err := p.Swap(); err != nil {
			return err
		}
	}
	if err := p.close(); err != nil {
		return err
	}
	for _, folder := range []string{p.opening(), p.closed()} {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	return p.Clear()
}

// Marker is the journal's folder, which is there while pg_rewind's work is not whole.
func (p Place) Marker() string {
	const suffix = ".pgrex-rewind"
	if _, err := os.Lstat(p.Data + suffix); err == nil { // from when this user could write there
		return p.Data + suffix
	}
	return p.side() + suffix
}
