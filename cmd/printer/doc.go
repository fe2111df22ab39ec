// Package printer is the only way from pgrex and rexlab to standard output and standard error.
//
// What the commands print comes from servers, CIBs, snapshots, files and archives, and may hold what a terminal takes
// for a command, or a line break that forges a second line. A Printer makes each value printable before it puts it into
// a line (model.Line): once they are in one, nobody can tell a value's line break from the program's own. Colours and
// movements of the cursor are the printer's.
//
// It must not print a value in any other way, or let anybody else at the stream. Errors of writing are kept for Err.
package printer
