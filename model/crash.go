package model

import "time"

// DatabaseState is what a control file says of its database, in the words of pg_controldata.
type DatabaseState string

// InProduction is the state of a primary that runs, and of one that has ended without a clean stop.
const InProduction DatabaseState = "in production"

// PostmasterEnd is what is found where a postmaster has ended.
type PostmasterEnd struct {
	PID int32
	// State is the control file's, "" if it cannot be read; Problem then says why.
	State   DatabaseState
	Problem string
	// Told: the postmaster was told to stop, in whatever mode: it had said so in postmaster.pid.
	Told bool
	// Replaced: another postmaster has the data folder.
	Replaced bool
}

// CrashHint is what became of the end of this host's postmaster: the promotion score of a host whose primary has
// crashed is lowered at once, so that Pacemaker promotes another host before its next monitor.
type CrashHint struct {
	At    time.Time `json:"at"`    // when the end was noticed
	PID   int32     `json:"pid"`   // of the postmaster
	Given bool      `json:"given"` // Pacemaker was told
	Why   string    `json:"why"`   // why it was not; "" where it was
	// Failed: Pacemaker was to be told, and that did not succeed.
	Failed bool `json:"failed"`
	// Unanswered: Pacemaker was to be told, and has not answered in time; it may still take the hint.
	Unanswered bool `json:"unanswered,omitempty"`
}
