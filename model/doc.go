// Package model holds the plain values that flow through pgrex: what Pacemaker says (Cluster), what the local
// PostgreSQL says (Instance) and what the one it replicates from says (Upstream), what the operator wants
// (Policy), and what is to be done (Step, Finding, Plan).
//
// It must not do I/O, read a clock, log, or import anything but the standard library. Values are compared and
// encoded, never mutated behind a reader's back. Maps occur only as lookups that nobody iterates to decide.
//
// It fails only where text is turned into values (ParseLSN, PolicyOf), with an error that names the text.
package model
