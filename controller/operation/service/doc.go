// Package service starts and stops the database of this host through Pacemaker, and pauses pgrex. here.go decides what
// this host and the others run, and who is left after a stop. proof.go decides whether no other member has newer data, by
// what ask.go finds out.
//
// It must not stop what may be the primary while others run, unless the operator forces it. It must not start a primary
// while there may be one, nor one whose data may be old, unless the operator forces it.
//
// A failure leaves the database as it was, running or stopped. After a forced failover, the error says what to type.
package service
