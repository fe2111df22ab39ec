// Package world is a simulated PG-REX cluster that tests package reconcile: hosts with write-ahead log, checkpoints and
// restartpoints, slots and timelines, a Pacemaker and a resource agent with their habits and delays, and a pgrex on each
// host that sees the others late or not at all and whose steps are interrupted anywhere. Random schedules of events are
// played to it; after each event, and once the faults are over, the design's promises are checked against what the hosts
// really hold, which is found without asking reconcile.
//
// It must know nothing of how reconcile decides: only Plan is called. It does no I/O and reads no clock, so that a seed
// gives the same schedule and the same end every time. It fails with the event after which a promise did not hold, and the
// shortest schedule found that leads there.
package world
