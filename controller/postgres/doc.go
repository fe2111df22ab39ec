// Package postgres is everything about PostgreSQL: it reads the local server into model.Instance, the server it
// replicates from into model.Upstream, and carries out the steps of a plan.
//
// It must not decide, retry, log, or let primary_conninfo, which may hold a password, out of the package. All SQL is in
// sql.go. Every statement that changes something asserts, within itself, what its step was planned on.
//
// It fails with an *Error of a class (ClassOf) that tells the controller what to do about it. A local server that is
// down, starting or hanging is no error but a state of model.Instance.
package postgres
