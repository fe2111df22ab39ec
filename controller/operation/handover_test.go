package operation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
)

// TestHandoverHalfUndone: where Pacemaker cannot be told to look again, maintenance-mode stays: leaving it would restart the
// database. Where nothing was changed yet, it is left.
func TestHandoverHalfUndone(t *testing.T) {
	for _, test := range []struct {
		fails string // the option of crm_resource
		left  bool   // maintenance-mode
	}{
		{"--wait", true},
		{"--refresh", false},
	} {
		t.Run(test.fails, func(t *testing.T) {
			folder := t.TempDir()
			log := filepath.Join(folder, "log")
			for _, tool := range []string{"crm_resource", "crm_attribute"} {
				script := "#!/bin/sh\necho " + tool + " \"$@\" >>" + log + "\ncase $1 in " + test.fails + ") exit 1;; esac\n"
				if err := os.WriteFile(filepath.Join(folder, tool), []byte(script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
			h := &Handover{Node: "pm01"}
			b := before{clone: model.Clone{Primitive: "pgsql"}}
			var said []string
			err := Do(t.Context(), h.change(b, cib.DeleteParameter("pgsql", slotParameter), cib.SetParameter("pgsql", slotParameter, "rex")),
				func(line string) { said = append(said, line) })
			if err == nil {
				t.Fatal("it has not failed")
			}
			text, readErr := os.ReadFile(log)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if left := strings.Contains(string(text), cib.DeleteProperty(maintenanceMode).String()); left != test.left {
				t.Errorf("maintenance-mode is left: %t, not %t; run were:\n%s", left, test.left, text)
			}
			if stays := strings.Contains(strings.Join(said, "\n"), "could restart the database"); stays == test.left {
				t.Errorf("it says: %q", said)
			}
		})
	}
}
