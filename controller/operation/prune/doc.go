// Package prune removes WAL that nobody needs from an archive. unneeded.go decides what may go.
//
// It must not remove anything while somebody's need is unknown. It must not remove files that PostgreSQL did not write,
// WAL of another database, or the histories of timelines.
//
// A failure comes before the first file is removed, or after the oldest files are gone. So the archive has no gap, and
// prune can run again.
package prune
