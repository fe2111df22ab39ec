// Package datadir is the data folder of a database on this host, and what lies beside it: the control file, the WAL and
// its timelines, settings, tablespaces, the agent's lock, the journal of pg_rewind, a copy and its swap, and
// PostgreSQL's programs that run on it.
//
// It must not know of operations: it makes no steps, asks no cluster, and decides nothing. The caller first makes sure
// that no server runs on the data. Files are replaced whole or not at all, even after a power cut.
//
// An error says what could not be read or done. After it the data are as they were, or Left reports what is left, and
// Clear or Finish removes it. In doubt the data count as half rewound.
package datadir
