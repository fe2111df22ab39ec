package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Class tells the controller what to do about a failure.
type Class string

// The classes of failures.
const (
	Transient     Class = "transient"     // may work in a moment: try again
	Busy          Class = "busy"          // the slot is in use: look again later
	Changed       Class = "changed"       // what the step was planned on is no longer so: plan again
	AlreadyDone   Class = "already done"  // somebody did it: look again
	Capacity      Class = "capacity"      // no free slot
	Permission    Class = "permission"    // the user may not
	Configuration Class = "configuration" // a setting forbids it
	Unknown       Class = "unknown"
)

// Error is a failure with its class.
type Error struct {
	Class Class
	Doing string // what was being done
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

// serverError prints what the server said, on one line and without its codes.
type serverError struct{ *pgconn.PgError }

func (e serverError) Error() string { return e.Message }
func (e serverError) Unwrap() error { return e.PgError }

// codeNotSupported is feature_not_supported.
const codeNotSupported = "0A000"

// classes by SQLSTATE (PostgreSQL documentation, appendix A). What is not here has the class of its first two
// characters, or is unknown.
var classes = map[string]Class{
	"08":    Transient,     // connection exceptions
	"25006": Changed,       // read_only_sql_transaction
	"42501": Permission,    // insufficient_privilege
	"28":    Permission,    // invalid authorization
	"42710": AlreadyDone,   // duplicate_object
	"42704": AlreadyDone,   // undefined_object
	"53400": Capacity,      // configuration_limit_exceeded: all replication slots are in use
	"53":    Transient,     // insufficient resources
	"55000": Configuration, // object_not_in_prerequisite_state: wal_level, max_replication_slots
	"55006": Busy,          // object_in_use
	"55P02": Configuration, // cant_change_runtime_param
	"55P03": Transient,     // lock_not_available
	"57014": Transient,     // query_canceled: statement_timeout
	"57P01": Transient,     // admin_shutdown
	"57P02": Transient,     // crash_shutdown
	"57P03": Transient,     // cannot_connect_now
}

// classify gives an error its class. An error that is not the server's own is one of the connection.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	class := Transient
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		class = Unknown
		for _, code := range []string{pgErr.Code, pgErr.Code[:min(2, len(pgErr.Code))]} {
			if c, ok := classes[code]; ok {
				class = c
				break
			}
		}
		err = serverError{pgErr}
	} else if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in time")
	}
	return &Error{Class: class, Doing: doing, Err: err}
}
