// Package autorejoin brings this host back without a person, as far as pgrex-auto-rejoin allows. It looks again and
// again; the decision is reconcile's (Who.Comeback). It does what pgrex rejoin, or pgrex start, does, through the same
// engine: with a journal, the token, and an undo.
//
// The package must not take a dearer way than is allowed, give up what nobody can name, or try again before the wait is
// over. What it has tried is on disk before it begins.
//
// A try that fails is undone, and counts. If this process ends in the middle, the next one goes on.
package autorejoin
