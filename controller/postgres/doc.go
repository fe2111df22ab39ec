// Package postgres is everything about PostgreSQL: it reads the local server into model.Instance, the server it
// replicates from into model.Upstream, and carries out the steps of a plan.
//
// It must not decide, retry, log, or let the password of primary_conninfo out of the package, except to a program's
// environment (AccessFor). All SQL is in sql.go. Every statement that changes something asserts, within itself,
// what its step was planned on; only the release of an xmin, for which the replication protocol has no condition, asserts it
// just before. Source is the primary as a host sees it that is to come back. The package keeps one session on the local
// server, for which a smart shutdown waits and a fast one does not. It keeps none on other hosts' servers.
//
// A call that has no answer by its deadline is left in flight, and nothing more is asked of that server until it ends
// (lane). On a server that hangs, each pgrex then has one statement or one attempt to connect. Close cuts it.
//
// It fails with an *Error of a class (ClassOf) that tells the controller what to do about it. A local server that is
// down, starting or hanging is no error but a state of model.Instance.
//
// Slots are not transactional. When a connection is cut, what was asked may have been done or not: the class is Transient,
// and as the step asserts what it was planned on, trying it again does no harm. Between a statement's look at a slot and
// the function that changes it, PostgreSQL itself refuses a slot that has become active (Busy).
package postgres
