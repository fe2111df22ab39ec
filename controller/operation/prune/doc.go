// Package prune removes WAL from an archive that nobody needs any more. What may go is decided in unneeded.go.
//
// It must not remove anything as long as somebody's need is not known, nor files that are none of PostgreSQL's or of another
// database, nor the histories of timelines.
//
// It fails before it removes anything, or after the oldest files are gone: no gap is left, and it can be run again.
package prune
