// Package switchover makes another host the primary, and the old one its standby. Who can take over is decided in
// successor.go.
//
// It must not let two hosts be the primary, nor shut down a primary while anything speaks against the other host. It must not
// undo anything once Pacemaker has the database back.
//
// It fails with the old primary serving again as long as Pacemaker has not got the database back; after that
// operation.LeftError says how the cluster is left, and what to type.
package switchover
