// Package printer is the only way by which pgrex and rexlab write to standard output and standard error.
//
// What the commands print comes from servers, CIBs, snapshots, files and archives, and may hold what a terminal takes
// for a command, or a line break that forges a second line. A Printer makes each value printable before it puts it into
// a line (model.Line): once they are in one, nobody can tell a value's line break from the program's own. Colours and
// movements of the cursor are the printer's.
//
// It must not print a value in any other way, or let other code write to the stream. Err returns the first write error.
package printer
