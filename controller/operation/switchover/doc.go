// Package switchover makes another host the primary, and the old primary its standby. successor.go decides who can take
// over.
//
// It must not let two hosts be the primary, and must not shut down a primary while anything speaks against the other
// host. It must not undo anything once Pacemaker has the database back.
//
// A failure before that leaves the old primary serving again. After it, operation.LeftError says how the cluster is
// left, and what to type.
package switchover
