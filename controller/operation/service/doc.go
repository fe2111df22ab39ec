// Package service starts and stops the database of this host through Pacemaker, and pauses pgrex. What this host and the
// others run, and whom a stop leaves, is decided in here.go.
//
// It must not stop what may be the primary while others run, unless it is told to, nor start a primary while there may be one.
//
// It fails with the database as it was, running or stopped; after a failover that was asked for, the error says what to type.
package service
