// Package cib is everything pgrex knows about Pacemaker: it asks for the CIB and for what that means (Client), notices
// that a CIB may have changed (Watcher), and has the commands that change the cluster (Command), as data: of these the
// daemon runs SetAttribute only.
//
// What a CIB means is Pacemaker's to say: node states, the DC and the role of each instance come from crm_mon, which
// is given the very bytes that cibadmin printed (crmmon.go, roles.go). What is written is read here: versions,
// quorum, options, attributes, the agent's parameters, meta attributes, location constraints (parse.go, clones.go).
// So a release that writes its CIB in another way needs no change here.
//
// Where the tools need rights that this process must not have, another one runs them (Remote, Serve).
//
// It must not decide anything about slots, retry, wait for better news, or log. A CIB that it cannot understand is an
// error and never an empty cluster: unknown is not empty. What crm_mon does not say is unknown, and never "stopped":
// that needs an online node with an operation that has ended in its history, in a look in which no instance is
// astray.
//
// What is left out, on purpose:
//
//   - Rules are not evaluated. An attribute set with a rule yields no values. The agent's parameters and pgrex-
//     meta attributes that such a set could decide are named in Clone.Conditional, and where one could take a resource
//     or the cluster out of Pacemaker's hands, it counts as out of them.
//   - A bundle is no clone here, even when its replicas are promotable. The nodes it makes are listed.
//
// It fails with an error of one line that says what happened, to what, and what to do, and that errors.Is recognizes
// as one of ErrClusterDown, ErrTimeout, ErrNotInstalled, ErrPermission, ErrUnparseable, ErrEnded and ErrFailed. Input
// is limited
// to MaxSize bytes, and to what no real cluster reaches in depth, elements and references.
package cib
