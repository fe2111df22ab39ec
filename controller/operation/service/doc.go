// Package service starts and stops the database of this host through Pacemaker, and pauses pgrex. here.go decides what
// this host and the others run, and who is left after a stop.
//
// It must not stop what may be the primary while others run, unless the operator forces it. It must not start a primary
// while there may be one.
//
// A failure leaves the database as it was, running or stopped. After a forced failover, the error says what to type.
package service
