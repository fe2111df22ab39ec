package operation_test

import (
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation/handover"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/operation/prune"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/operation/service"
	"github.com/pgrex/pgrex/controller/operation/switchover"
)

// Trap 36: no operation acts under another host's name.
func TestTrap36NoOperationUnderAnotherName(t *testing.T) {
	c := fakes.NewTrio(t)
	for _, variable := range []string{"CIB_file", "CIB_shadow"} {
		t.Setenv(variable, "")
	}
	for name, begin := range map[string]func(o *controller.Observer) error{
		"stop": func(o *controller.Observer) error {
			_, err := (&service.Service{Observer: o}).Stop(t.Context(), false, true)
			return err
		},
		"start": func(o *controller.Observer) error {
			_, err := (&service.Service{Observer: o}).Start(t.Context(), true)
			return err
		},
		"rejoin": func(o *controller.Observer) error {
			_, err := (&rejoin.Rejoin{Observer: o}).Look(t.Context())
			return err
		},
		"adopt": func(o *controller.Observer) error {
			_, err := (&handover.Handover{Observer: o}).Adopt(t.Context())
			return err
		},
		"release": func(o *controller.Observer) error {
			_, err := (&handover.Handover{Observer: o}).Release(t.Context())
			return err
		},
		"switchover": func(o *controller.Observer) error {
			_, err := (&switchover.Switchover{Observer: o}).Job(t.Context())
			return err
		},
		"prune": func(o *controller.Observer) error {
			_, err := (&prune.Archive{Observer: o}).Prune(t.Context())
			return err
		},
	} {
		err := begin(c.On("pm01", "pm03"))
		if err == nil || !strings.Contains(err.Error(), "Pacemaker calls this host pm03, and pgrex takes it for pm01") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
