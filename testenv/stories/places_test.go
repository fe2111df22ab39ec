package stories

import (
	"slices"
	"testing"

	"github.com/pgrex/pgrex/testenv"
)

// TestPlaces: --long tells every story on every system that the lab knows, and only --long needs Debian sid.
func TestPlaces(t *testing.T) {
	for _, system := range testenv.Systems() {
		for _, layout := range []string{testenv.LayoutPGREX, testenv.LayoutDebian} {
			at := place{system.Name, layout}
			if !slices.Contains(everywhere, at) {
				t.Errorf("nothing is told of %s", at)
			}
		}
	}
	if slices.ContainsFunc(releases, func(p place) bool { return p.system == sid.system }) {
		t.Error("Debian sid is needed without --long")
	}
}
