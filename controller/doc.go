// Package controller is the loop: observe, plan, apply, publish, on one host.
//
// Every second it looks at the local PostgreSQL; on a hint, every ten seconds, and whenever a look would change
// something it reads the CIB and the upstream afresh and plans on that. Nothing is ever changed on an old
// observation. It is the only place with retries, and the only one that logs.
//
// It must not decide (reconcile does), know SQL (controller/postgres does) or XML (cib does), or act on an event: only
// on a difference. There is one exception: the end of the local postmaster may be told to Pacemaker at once (crash.go).
//
// A pass ends at the first call that has no answer by its deadline: after that it asks nobody and tries no step. The
// call stays in flight, and later passes do not wait for it. Every call that ends feeds the watchdog.
//
// It fails by saying so: a host whose PostgreSQL or Pacemaker is down is waited for quietly, a step that fails is kept
// in the status and tried again later, ever less often. Run returns an error only if it cannot start.
package controller
