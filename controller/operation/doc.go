// Package operation is the engine of the operations of PG-REX: what an operator does by hand, as steps that are shown
// before they are done. Each operation has a room, a folder below this one. It looks first, refuses with a reason what it must not
// do, and makes its steps; a dry run prints these very steps. Then they are done in order. When one fails, or the operator
// interrupts, those done are undone where that can be, in reverse order, and the error says how the cluster was left and what to
// type.
//
// It must not decide about slots, must not leave the cluster in maintenance-mode, and must not import a room. Everything it
// waits for has a deadline, and is a condition that is looked at again.
//
// PostgreSQL's programs, and a server that is started again, get the rights of this process: they have to be those of the
// data folder's owner, without the group haclient. Where Pacemaker's tools need that, another process runs them
// (cib.Remote).
package operation
