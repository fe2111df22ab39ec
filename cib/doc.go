// Package cib is everything pgrex knows about Pacemaker: it runs cibadmin (Client), turns a CIB into model.Cluster
// (Parse), notices that a CIB may have changed (Watcher), and has the commands that change the cluster (Command), as data:
// the daemon runs none of them.
//
// Parse concludes from a CIB what crm_mon concludes from it: which nodes are online, in standby, in maintenance,
// pending or unclean, and what every promotable clone's instances do. The rules are those of Pacemaker's scheduler
// library, release 2.1.5; each function here names the one whose rule it holds.
//
// It must not decide anything about slots, retry, wait for better news, or log. A CIB that it
// cannot understand is an error and never an empty cluster: unknown is not empty.
//
// What is left out, on purpose:
//
//   - Rules are not evaluated. An attribute set with a rule gives no values. The agent's parameters and pgrex-
//     meta attributes that such a set could decide are named in Clone.Conditional, and where one could take a resource
//     or the cluster out of Pacemaker's hands, it counts as out of them.
//   - failure-timeout is not applied, because the same bytes must always give the same cluster. A failed operation
//     counts until Pacemaker's controller removes it from the CIB.
//   - A bundle is no clone here, even when its replicas are promotable. The nodes it makes are listed.
//
// It fails with an error of one line that says what happened, to what, and what to do, and that errors.Is recognizes
// as one of ErrClusterDown, ErrTimeout, ErrNotInstalled, ErrPermission, ErrUnparseable and ErrFailed. Input is limited
// to MaxSize bytes, and to what no real cluster reaches in depth and elements. The effort of following references is
// limited to a multiple of the size (effort.go), so that time and memory grow with the size and no faster.
package cib
