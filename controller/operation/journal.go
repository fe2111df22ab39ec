package operation

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// rewinding is how far pg_rewind has come with the data.
type rewinding int

const (
	notBegun    rewinding = iota
	halfRewound           // it was killed, or has failed: nobody may start a server on what it left
	rewound               // it is through; the files are still to be put back that are this host's own
)

// The journal of pg_rewind is a folder beside the data, place.marker, that is there from before it changes anything until all
// is done. It keeps the node's own files, and has in it:
const (
	journalOf    = "data-folder" // the inode of the data folder: to one that has taken its place it does not apply
	journalWhole = "rewound"     // there once pg_rewind is through
)

// rewinding reads the journal. In doubt the data are half rewound.
func (p place) rewinding() rewinding {
	if _, err := os.Lstat(p.marker()); os.IsNotExist(err) {
		return notBegun
	}
	inode, err := p.inode()
	of, ofErr := os.ReadFile(filepath.Join(p.marker(), journalOf))
	if err == nil && ofErr == nil && string(of) != inode {
		return notBegun
	}
	if _, err := os.Lstat(filepath.Join(p.marker(), journalWhole)); err == nil {
		return rewound
	}
	return halfRewound
}

func (p place) inode() (string, error) {
	var s syscall.Stat_t
	err := syscall.Stat(p.data, &s)
	return strconv.FormatUint(s.Ino, 10), err
}

// begin opens the journal. It appears whole: until then nothing was touched, and nothing must look as if it were.
func (p place) begin() error {
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
	if err := copyFiles(p.data, p.opening()); err != nil {
		return err
	}
	if err := os.Rename(p.opening(), p.marker()); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(p.marker()))
}

// through notes that pg_rewind is through.
func (p place) through() error { return writeWhole(filepath.Join(p.marker(), journalWhole), "") }

// putBack gives the data this host's own files again, and closes the journal.
func (p place) putBack(slot string) error {
	if err := copyFiles(p.marker(), p.data); err != nil {
		return err
	}
	if err := p.setSlotName(slot); err != nil {
		return err
	}
	return p.close()
}

// close ends the journal, at once: without its notes it would mean something else.
func (p place) close() error {
	if err := os.RemoveAll(p.closed()); err != nil {
		return err
	}
	if err := os.Rename(p.marker(), p.closed()); err != nil && !os.IsNotExist(err) {
		return err
	}
	return syncFolder(filepath.Dir(p.marker()))
}

func (p place) opening() string { return p.marker() + "-new" }

func (p place) closed() string { return p.marker() + "-done" }

// finish removes all that an operation has left.
func (p place) finish() error {
	if err := p.close(); err != nil {
		return err
	}
	for _, folder := range []string{p.opening(), p.closed()} {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	return p.clear()
}

func (p place) marker() string { return p.data + ".pgrex-rewind" } // is there while pg_rewind's work is not whole
