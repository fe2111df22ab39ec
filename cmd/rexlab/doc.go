// Command rexlab boots a real PG-REX cluster of several hosts on one machine, breaks it, and mends it: for tests, and for
// operators who want to rehearse a procedure. Everything it does is done by package testenv.
//
// It exits with 0, with 1 and one line on standard error that says what to do, or with 64 when it was called wrongly;
// 'rexlab exec' exits with the command's status.
package main
