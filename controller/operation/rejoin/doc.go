// Package rejoin brings a host back that does not come back by itself. Look finds out what the host and the primary have,
// the ladder (ladder.go) decides which ways back there are, and Steps makes the steps of one.
//
// It must not touch data before Pacemaker has let go of them, nor let anybody start data that are half rewound. It must not take
// a dearer way than the one asked for: where pg_rewind cannot do it (ErrNoRewind), the caller chooses.
//
// It fails with nothing lost: what was begun is undone, or the journal beside the data and the agent's lock keep the server from
// being started, and to run it again is the way on.
package rejoin
