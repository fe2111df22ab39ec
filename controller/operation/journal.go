package operation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
)

// The files of an operation in the state folder. The process that works on the operation holds the lock. The lock ends
// with that process.
const (
	journalName = "operation.json"
	lockName    = "operation.lock"
	journalMode = 0o600
	folderMode  = 0o700
	maxJournal  = 1 << 20 // bytes; a journal with hundreds of steps has about ten thousand
	// The lock may be taken for a moment without any operation: the daemon calls isHeld again and again. So hold tries
	// several times.
	holdTries = 20
	holdPause = 10 * time.Millisecond
	// journalFormat is the version of the layout. pgrex reads no other.
	journalFormat = 1
)

// Journal is the record of an operation. It exists from before the first step until the operation is finished or
// undone.
type Journal struct {
	Format    int       `json:"pgrex_operation"`
	Operation string    `json:"operation"` // its command's name
	Who       string    `json:"who"`       // started it
	Begun     time.Time `json:"begun"`
	Node      string    `json:"node"`
	Primitive string    `json:"primitive"`
	Token     string    `json:"token"` // the random value of the token in the CIB
	On        On        `json:"planned_on"`
	// Plan is what the steps are made of, and what they have found. It holds no secret.
	Plan  json.RawMessage `json:"plan"`
	Steps []Entry         `json:"steps"`           // the steps that were begun, in order
	Ended bool            `json:"ended,omitempty"` // nothing is left but the token, and this file
}

// On is the database that an operation was planned for. Unknown fields are zero.
type On struct {
	Folder   string `json:"data_folder"`
	SystemID string `json:"system_id"`
	Timeline uint32 `json:"timeline"`
}

// Entry is a step that was begun.
type Entry struct {
	ID     string    `json:"id"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"` // of the last change
	Done   bool      `json:"done"`
	Undone bool      `json:"undone,omitempty"`
}

// LoadJournal reads the journal in a state folder. It returns nil if there is none.
func LoadJournal(folder string) (*Journal, error) {
	path := filepath.Join(folder, journalName)
	var j Journal
	err := decodeOwn(path, &j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && j.Format != journalFormat {
		err = fmt.Errorf("its format is %d, and this pgrex reads %d", j.Format, journalFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of an unfinished operation: %w; look into %s with the pgrex that wrote it, or see what "+
			"crm_mon and cibadmin --query say, and remove it", err, path)
	}
	return &j, nil
}

// save replaces the journal in a state folder. It is on disk when save returns.
func (j *Journal) save(folder string) error {
	j.Format = journalFormat
	data, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	if err := replace(folder, journalName, data); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// replace replaces a file of the state folder. The new one is on disk when replace returns.
func replace(folder, name string, data []byte) error {
	path := filepath.Join(folder, name)
	f, err := openOwn(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncFolder(folder)
	}
	return err
}

// removeJournal ends an operation.
func removeJournal(folder string) error {
	if err := os.Remove(filepath.Join(folder, journalName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal: %w", err)
	}
	return syncFolder(folder)
}

// openOwn opens a file of the state folder. The data's owner may put anything into that folder. So openOwn follows no
// link, and does not wait for the other end of a pipe: root's Ctrl-C would not end that wait.
func openOwn(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, journalMode)
	if err != nil {
		return nil, err
	}
	switch info, statErr := f.Stat(); {
	case statErr != nil:
		err = statErr
	case info.IsDir():
		err = &fs.PathError{Op: "read", Path: path, Err: unix.EISDIR}
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file", path)
	default:
		return f, nil
	}
	_ = f.Close() // nothing was written
	return nil, err
}

// readOwn reads a file of the state folder, up to the length that pgrex writes there.
func readOwn(path string) ([]byte, error) {
	f, err := openOwn(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, maxJournal+1))
	if err == nil && len(data) > maxJournal {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxJournal)
	}
	return data, err
}

// decodeOwn decodes a file of the state folder. An unknown field is an error.
func decodeOwn(path string, into any) error {
	data, err := readOwn(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// entry returns the entry of a step, or nil if the step was not begun.
func (j *Journal) entry(id string) *Entry {
	if i := slices.IndexFunc(j.Steps, func(e Entry) bool { return e.ID == id }); i >= 0 {
		return &j.Steps[i]
	}
	return nil
}

// HasBegun reports whether a step was begun, whatever became of it.
func (j *Journal) HasBegun(id string) bool { return j.entry(id) != nil }

// isDone reports whether a step was done, and not undone since.
func (j *Journal) isDone(id string) bool {
	e := j.entry(id)
	return e != nil && e.Done && !e.Undone
}

// isHalf reports whether a step was begun, and neither done nor undone.
func (j *Journal) isHalf(id string) bool {
	e := j.entry(id)
	return e != nil && !e.Done && !e.Undone
}

// note records a step as begun, or as done.
func (j *Journal) note(s Step, done bool) {
	now := time.Now().UTC()
	if e := j.entry(s.ID); e != nil {
		*e = Entry{ID: s.ID, Text: s.String(), At: now, Done: done}
		return
	}
	j.Steps = append(j.Steps, Entry{ID: s.ID, Text: s.String(), At: now, Done: done})
}

// ErrUnderWay says that another process does an operation on this host.
var ErrUnderWay = errors.New("another operation is under way on this host")

// hold takes the lock: no other process works on an operation on this host until the file is closed. The kernel closes
// the file when this process ends, for whatever reason.
func hold(folder string) (*os.File, error) {
	if err := os.Mkdir(folder, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	return lock(folder, lockName)
}

// lock takes a lock in the state folder. The error is ErrUnderWay if another process has it.
func lock(folder, name string) (*os.File, error) {
	f, err := openOwn(filepath.Join(folder, name), os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("open the lock in the state folder: %w", err)
	}
	for range holdTries {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		err = ErrUnderWay
		time.Sleep(holdPause)
	}
	_ = f.Close()
	return nil, err
}

// isHeld reports whether a process works on an operation on this host.
func isHeld(folder string) bool { return isLocked(folder, lockName) }

// isLocked reports whether a process has a lock in the state folder.
func isLocked(folder, name string) bool {
	f, err := openOwn(filepath.Join(folder, name), os.O_RDONLY)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // nothing was written
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Owns returns an error unless a token that was in the plan is the operation's own, and one that other hosts
// understand: the plan is the data owner's to write, and what is made of it changes the CIB.
func (j *Journal) Owns(t model.Token) error {
	if now, err := model.ParseToken(t.String()); err != nil || now.Value != j.Token {
		return fmt.Errorf("the token in the plan of the journal is not the operation's own: %q", t)
	}
	return nil
}

// Read reads the operation's plan strictly.
func (j *Journal) Read(plan any) error {
	decoder := json.NewDecoder(bytes.NewReader(j.Plan))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(plan); err != nil {
		return fmt.Errorf("read the plan in the journal: %w; end the operation with the pgrex that began it", err)
	}
	return nil
}
