// Package metrics says what the daemon knows as Prometheus metrics.
//
// It renders a status and nothing else: it asks no server, looks at nothing and keeps nothing. What the status does not know has
// no sample. Every label has a bounded set of values: members, slots that stay, settings, and words of pgrex's own.
//
// It fails only where the output cannot be written. docs/metrics.md is made from the table in families.go.
package metrics
