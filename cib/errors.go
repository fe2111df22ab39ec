package cib

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What can go wrong, for a caller to branch on. Each is wrapped in an error that says what to do.
var (
	// ErrClusterDown: Pacemaker is not running on this host, or is just starting or stopping. It is worth a retry.
	ErrClusterDown = errors.New("Pacemaker is not running") //nolint:staticcheck // a name
	// ErrTimeout: one of Pacemaker's tools did not answer within the deadline and was killed. It is worth a retry.
	ErrTimeout = errors.New("no answer in time")
	// ErrNotInstalled: a tool is missing.
	ErrNotInstalled = errors.New("Pacemaker's tools are not installed") //nolint:staticcheck // a name
	// ErrPermission: this user may not talk to Pacemaker, or not run its tools.
	ErrPermission = errors.New("no permission to use Pacemaker's tools")
	// ErrUnparseable: there is an answer, but this version does not understand it, or it is too big.
	ErrUnparseable = errors.New("the CIB cannot be understood")
	// ErrEnded: the process that runs the tools for this one has ended (Remote). It does not come back.
	ErrEnded = errors.New("the part of pgrex that runs Pacemaker's tools has ended")
	// ErrExists, beside ErrFailed: the CIB already has what was to be made (CreateToken).
	ErrExists = errors.New("the CIB already has it")
	// ErrNoMatch, beside ErrFailed: the CIB does not have what was to be changed, or it has changed since (ChangeToken,
	// SetMaintenance).
	ErrNoMatch = errors.New("the CIB does not have it, or it has changed")
	// ErrFailed: a tool failed in a way that is none of the above.
	ErrFailed = errors.New("Pacemaker's tools failed") //nolint:staticcheck // a name
)

// unparseable makes the error for a CIB that is not understood; the text says why, and what to do.
func unparseable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnparseable, oneLine(fmt.Sprintf(format, args...)))
}

// maxDetail is how much of somebody else's text an error repeats, in bytes.
const maxDetail = 300

// oneLine makes text fit for one line of a log: control characters become spaces, runs of spaces one, and of a long
// text only the end is kept, because that is where commands say what failed.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "?")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxDetail {
		return text
	}
	cut := len(text) - maxDetail
	for !utf8.RuneStart(text[cut]) {
		cut++
	}
	return "..." + text[cut:]
}
