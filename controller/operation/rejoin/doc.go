// Package rejoin brings a host back into replication. Look finds out what the host and the primary have. The ladder
// (ladder.go) decides which ways back there are. Steps makes the steps of one way.
//
// The package must not touch data before Pacemaker has let go of them, and must not let anybody start data that are
// half rewound. It must not take a dearer way than the one asked for: if pg_rewind cannot do it (ErrNoRewind), the
// caller chooses.
//
// A failure loses nothing. The steps are undone, or the journal beside the data and the agent's lock keep the server
// from starting. Then rejoin, run again, goes on.
package rejoin
