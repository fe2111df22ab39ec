package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestScope: where the part that works lives under systemd, and how it ends there. The names are those of D-Bus
// (org.freedesktop.systemd1(5)), the values in GVariant's text format.
func TestScope(t *testing.T) {
	if name := scopeName("pgrex archive prune", 4711); name != "pgrex-archive-prune-4711.scope" {
		t.Error(name)
	}
	got := map[string]string{}
	for _, p := range scopeProperties("pgrex switchover", 4711) {
		got[p.Name] = p.Value.String()
	}
	want := map[string]string{
		"Description":     `"pgrex switchover, and the PostgreSQL that it starts to undo a step"`,
		"Slice":           `"system.slice"`,
		"PIDs":            `@au [4711]`,
		"Before":          `["pacemaker.service"]`, // which stops first, then
		"After":           `["basic.target", "network.target", "remote-fs.target"]`,
		"CollectMode":     `"inactive-or-failed"`,
		"KillMode":        `"control-group"`,
		"KillSignal":      `15`,
		"SendSIGHUP":      `false`,
		"TimeoutStopUSec": `@t 60000000`,
		"TasksMax":        `@t 18446744073709551615`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
