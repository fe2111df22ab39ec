// Package operation is the engine of PG-REX's operations: what an operator does by hand, as steps that are shown before
// they are done. Each operation has a room, a folder below this one. A room looks first, refuses with a reason, and
// makes the steps. A dry run prints these very steps. The engine does them in order. If a step fails, or the operator
// interrupts, the engine undoes the steps in reverse order, down to the point of no return. The error says how the
// cluster was left, and what to type.
//
// The package must not decide about slots, must not leave the cluster in maintenance-mode, and must not import a room.
// Every wait has a deadline, and checks its condition again and again.
//
// PostgreSQL's programs, and a server that is started again, get the rights of this process: those of the data folder's
// owner, without the group haclient. Pacemaker's tools need that group; another process runs them (cib.Remote).
package operation
