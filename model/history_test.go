package model

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHistory(t *testing.T) {
	const file = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tbefore 2026-01-01\n"
	got, err := ParseHistory(3, file)
	if diff := cmp.Diff([]Timeline{{1, 0}, {2, 0x3000148}, {3, 0x5000000}}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := ParseHistory(1, ""); err != nil || len(got) != 1 || got[0].ID != 1 {
		t.Errorf("the first timeline: %v, %v", got, err)
	}
	for _, bad := range []string{"1", "x\t0/1", "1\tnowhere"} {
		if _, err := ParseHistory(2, bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}
