// Package handover hands the slots over between the agent and pgrex: adopt and release. What has to be so before and after
// is decided in ready.go.
//
// It must not let PostgreSQL be restarted, which Pacemaker does where a parameter is changed outside of maintenance-mode, nor
// leave maintenance-mode before Pacemaker knows every host's role again.
//
// It fails with the parameter as it was, as long as maintenance-mode was not left; after that nothing is undone, and
// operation.LeftError says so. Where that cannot be undone, maintenance-mode stays on, and the error says what to type.
package handover
