// Package datadir is the data folder of a database on this host, and what lies beside it: the control file, the WAL and its
// timelines, settings, the agent's lock, the journal of pg_rewind, a copy and its swap, and PostgreSQL's programs that are run
// on it.
//
// It must not know of operations: it makes no steps, asks no cluster, and decides nothing. Whoever changes the data through it
// sees to it first that no server runs on them. A file is replaced whole or not at all, also after a power cut.
//
// It fails with an error that says what could not be read or done, and leaves what it found, or what Left sees and Clear or
// Finish removes. In doubt the data count as half rewound.
package datadir
