package cib

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// An operation of root's is two processes (Remote, Serve). Between them go messages of JSON, each behind its length:
// calls and
// the orders to kill them one way, what the tools left behind the other.

// tools are Pacemaker's tools that pgrex runs, and nothing else is run for the other part.
var tools = []string{"cibadmin", "crm_mon", "crm_node", "crm_attribute", "crm_resource", simulator}

// packageManagers tell an agent's version (Client.AgentVersion).
var packageManagers = []string{"rpm", "dpkg-query"}

// isTool reports whether a program is one of Pacemaker's tools, by the name that is looked for on PATH.
func isTool(path string) bool { return slices.Contains(tools, path) }

// isKnown reports whether this process may run a program itself: one of Pacemaker's tools, wherever a Client was told
// to find it, or a package manager.
func isKnown(path string) bool {
	return isTool(filepath.Base(path)) || slices.Contains(packageManagers, path)
}

const (
	// maxCall limits a call in bytes: a CIB, in base64, with the arguments. maxOutcome is the same for what a tool
	// printed.
	maxCall    = MaxSize/3*4 + 1<<20
	maxOutcome = maxReport/3*4 + 1<<20
	// maxTime is how long a tool may run for the other part, and maxCalls how many at a time.
	maxTime  = time.Minute
	maxCalls = 16
)

// remoteCall asks for a tool to be run. With Kill it asks to end the call of that number. With HoldOut it asks the
// other process to resist being suspended.
type remoteCall struct {
	ID      uint64        `json:"id"`
	Kill    bool          `json:"kill,omitempty"`
	HoldOut bool          `json:"hold-out,omitempty"`
	Tool    string        `json:"tool,omitempty"`
	Args    []string      `json:"args,omitempty"`
	Stdin   []byte        `json:"stdin,omitempty"`
	Limit   int           `json:"limit,omitempty"`
	Time    time.Duration `json:"time,omitempty"` // until its deadline
}

// outcome is what a call left behind, and why it did not end well.
type outcome struct {
	ID     uint64        `json:"id"`
	Stdout []byte        `json:"stdout,omitempty"`
	Stderr string        `json:"stderr,omitempty"`
	Exit   int           `json:"exit"`
	End    end           `json:"end,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"` // why it was not started
	Text   string        `json:"text,omitempty"`  // the error
}

// end is how a call ended that did not end well, as far as somebody branches on it.
type end string

const (
	endDeadline end = "deadline" // killed
	endKilled   end = "killed"   // as the other part wanted
	endTooLong  end = "too-long" // killed, because of its output
	endMissing  end = "missing"  // there is no such tool
	endOther    end = "other"    // by itself, or it was not even started
)

// send writes a message in one go.
func send(w io.Writer, turn *sync.Mutex, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	turn.Lock()
	defer turn.Unlock()
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// receive reads a message. The error is io.EOF where the connection ends, also in the middle of a message: whoever ends
// may leave one half sent. A message that is longer than limit, or has a field that is not known, is an error, too.
func receive(r io.Reader, limit uint32, message any) error {
	var length [4]byte
	if err := readFull(r, length[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > limit {
		return fmt.Errorf("a message of %d bytes; at most %d are expected", n, limit)
	}
	text := make([]byte, n)
	if err := readFull(r, text); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(message)
}

func readFull(r io.Reader, buf []byte) error {
	_, err := io.ReadFull(r, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// result is the outcome as run returns it.
func (o outcome) result() (result, error) {
	r := result{o.Stdout, o.Stderr, o.Exit}
	switch o.End {
	case "":
		return r, nil
	case endDeadline:
		return r, context.DeadlineExceeded
	case endTooLong:
		return r, errOutputTooLong
	case endMissing:
		return r, exec.ErrNotFound
	case endKilled, endOther:
	}
	if o.Errno != 0 {
		return r, startError{o.Text, o.Errno}
	}
	return r, errors.New(o.Text)
}

// startError is an error of the other process's, as that one has worded it.
type startError struct {
	text  string
	errno syscall.Errno
}

func (e startError) Error() string { return e.text }
func (e startError) Unwrap() error { return e.errno }
