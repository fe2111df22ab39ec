package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Class tells the controller what to do about a failure.
type Class string

// The classes of failures.
const (
	Transient     Class = "transient"     // may work in a moment: try again; what was asked may have been done
	NoAnswer      Class = "no answer"     // it hangs: ask nothing more until it answers; what was asked may still be done
	Busy          Class = "busy"          // the slot is in use: look again later
	Changed       Class = "changed"       // what the step was planned on is no longer so: plan again
	AlreadyDone   Class = "already done"  // somebody did it: look again
	Capacity      Class = "capacity"      // no free slot, or no room on the disk
	Permission    Class = "permission"    // the user may not
	Configuration Class = "configuration" // a setting forbids it
	Unknown       Class = "unknown"
)

// Error is a failure with its class. It prints as one line.
type Error struct {
	Class Class
	Doing string // what was being done, to what
	Err   error
}

// Error implements error.
func (e *Error) Error() string { return e.Doing + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of an error of this package, Unknown for any other, "" for none.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Unknown
}

// SQLSTATEs that are handled by themselves.
const (
	codeNotSupported     = "0A000"
	codeAdminShutdown    = "57P01"
	codeCrashShutdown    = "57P02"
	codeCannotConnectNow = "57P03"
)

// classes by SQLSTATE (PostgreSQL documentation, appendix A). What is not here has the class of its first two
// characters, or is unknown.
var classes = map[string]Class{
	"08":                 Transient,     // connection exceptions
	codeNotSupported:     Configuration, // feature_not_supported: allow_alter_system (17) is off
	"22023":              Configuration, // invalid_parameter_value: a setting's value is refused
	"25006":              Changed,       // read_only_sql_transaction
	"28":                 Permission,    // invalid authorization
	"3D000":              Configuration, // invalid_catalog_name: the database is not there
	"40":                 Transient,     // a conflict with recovery, a deadlock
	"42501":              Permission,    // insufficient_privilege
	"42602":              Configuration, // invalid_name: a slot cannot be called that
	"42704":              AlreadyDone,   // undefined_object
	"42710":              AlreadyDone,   // duplicate_object
	"53":                 Transient,     // insufficient resources
	"53100":              Capacity,      // disk_full
	"53400":              Capacity,      // configuration_limit_exceeded: all replication slots are in use
	"55000":              Configuration, // object_not_in_prerequisite_state: wal_level, max_replication_slots
	"55006":              Busy,          // object_in_use
	"55P02":              Configuration, // cant_change_runtime_param
	"55P03":              Transient,     // lock_not_available: lock_timeout
	"57014":              Transient,     // query_canceled: statement_timeout
	codeAdminShutdown:    Transient,
	codeCrashShutdown:    Transient,
	codeCannotConnectNow: Transient,
	"57P05":              Transient, // idle_session_timeout
}

// classOfCode is the class of a SQLSTATE.
func classOfCode(code string) Class {
	for _, key := range []string{code, code[:min(2, len(code))]} {
		if c, ok := classes[key]; ok {
			return c
		}
	}
	return Unknown
}

// refused tells whether the server would not let the user in.
func refused(e *pgconn.PgError) bool { return strings.HasPrefix(e.Code, "28") }

// serverError prints what the server said, on one line and without its codes.
type serverError struct{ *pgconn.PgError }

func (e serverError) Error() string {
	if e.Detail == "" {
		return oneLine(e.Message)
	}
	return oneLine(e.Message + " (" + e.Detail + ")")
}

func (e serverError) Unwrap() error { return e.PgError }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// What becomes of a statement's answer beyond what the server says.
var (
	errNotAsPlanned = errors.New("the system, the role, the timeline, the slot or the setting is no longer as planned on: nothing was changed, plan again")
	errNotReserved  = errors.New("PostgreSQL did it, but the slot reserves no WAL")
	errNoAnswer     = errors.New("no answer in time")
	errCut          = errors.New("the connection was cut, so that it is not known whether it was done")
)

// classify gives an error its class. An error that is neither the server's nor ours is one of the connection; then it is
// not known what became of the statement.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Class: e.Class, Doing: doing, Err: e.Err}
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return &Error{Class: classOfCode(pgErr.Code), Doing: doing, Err: serverError{pgErr}}
	}
	if hangs, ok := errors.AsType[hangsError](err); ok {
		return &Error{Class: NoAnswer, Doing: doing, Err: hangs}
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &Error{Class: Changed, Doing: doing, Err: errNotAsPlanned}
	case errors.Is(err, errNotReserved):
		return &Error{Class: Unknown, Doing: doing, Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Class: Transient, Doing: doing, Err: context.Canceled}
	case timedOut(err):
		return &Error{Class: Transient, Doing: doing, Err: errNoAnswer}
	}
	return &Error{Class: Transient, Doing: doing, Err: errCut}
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
