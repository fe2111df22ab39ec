// Command pgrex keeps the replication slots of a PG-REX cluster right: see 'pgrex help'.
//
// It is a thin layer: each file is one subcommand, which reads its flags, calls one package and prints. It must not
// decide anything. It fails with one line on standard error that says what to do, and an exit status that
// 'pgrex help' documents for each command.
package main
