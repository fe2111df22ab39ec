// Package reconcile decides: Plan takes everything that was observed and gives the steps that make one host's slots
// and primary_slot_name right, and the findings worth saying.
//
// Hint decides whether Pacemaker is told at once that this host's primary has crashed.
//
// It must stay pure: no I/O, no clock, no log, no iteration over maps, so that the same input gives the same bytes
// and a snapshot gives on any machine the plan it gave on its host. It imports model and the standard library only.
//
// It fails, with an *InputError, where the input does not say which resource or host is meant: then there is no plan
// at all. Where the input leaves doubt it plans less, down to nothing, and says why in a finding.
package reconcile
