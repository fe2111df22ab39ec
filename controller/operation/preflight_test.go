package operation

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
)

// Trap 36: no operation acts under another host's name.
func TestTrap36NoOperationUnderAnotherName(t *testing.T) {
	c := newTrio(t)
	for _, variable := range []string{"CIB_file", "CIB_shadow"} {
		t.Setenv(variable, "")
	}
	for name, begin := range map[string]func(o *controller.Observer) error{
		"stop":   func(o *controller.Observer) error { _, err := (&Service{o}).Stop(t.Context(), false, true); return err },
		"start":  func(o *controller.Observer) error { _, err := (&Service{o}).Start(t.Context(), true); return err },
		"rejoin": func(o *controller.Observer) error { _, err := (&Rejoin{Observer: o}).Look(t.Context()); return err },
		"adopt":  func(o *controller.Observer) error { _, err := (&Handover{Observer: o}).Adopt(t.Context()); return err },
		"release": func(o *controller.Observer) error {
			_, err := (&Handover{Observer: o}).Release(t.Context())
			return err
		},
		"switchover": func(o *controller.Observer) error {
			_, err := (&Switchover{Observer: o}).Steps(t.Context())
			return err
		},
		"prune": func(o *controller.Observer) error { _, err := (&Archive{Observer: o}).Prune(t.Context()); return err },
	} {
		err := begin(c.on("pm01", "pm03"))
		if err == nil || !strings.Contains(err.Error(), "Pacemaker calls this host pm03, and pgrex takes it for pm01") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
