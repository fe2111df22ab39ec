// Package handover hands the slots over between the agent and pgrex: adopt and release. ready.go decides what has to
// hold before and after.
//
// PostgreSQL must not restart, and Pacemaker restarts it if a parameter changes outside of maintenance-mode. So the
// package must not leave maintenance-mode before Pacemaker knows every host's role again.
//
// A failure before maintenance-mode is left leaves the parameter as it was. After that nothing is undone, and
// operation.LeftError says so. If the undoing fails, maintenance-mode stays on, and the error says what to type.
package handover
