package operation

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// What is remembered survives, is readable by its owner only, and says whether the service runs.
func TestRemembered(t *testing.T) {
	folder := t.TempDir()
	if a := AutoRejoin(folder); a == nil || a.Tries != 0 || a.Running {
		t.Errorf("without a file: %+v", a)
	}
	at := time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)
	want := model.AutoRejoin{Tries: 2, Next: at, Problem: "the network", Returns: []time.Time{at}, Last: &model.Returned{
		At: at, By: "pgrex-rejoin", Way: "rewind", Primary: "pm02",
		GivenUp: &model.GivenUp{Timeline: 3, From: 0x5000000, To: 0x5000100, Bytes: 256, Folder: "/var/lib/pgrex/given-up"},
	}}
	if err := Remember(folder, want); err != nil {
		t.Fatal(err)
	}
	running, err := RunsAutoRejoin(folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RunsAutoRejoin(folder); err == nil {
		t.Error("two run on one state folder")
	}
	want.Running = true
	if diff := cmp.Diff(&want, AutoRejoin(folder)); diff != "" {
		t.Error(diff)
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	if AutoRejoin(folder).Running {
		t.Error("it still runs")
	}
	path := filepath.Join(folder, rememberedName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	// In doubt nothing is tried.
	for _, text := range []string{"", "{", `{"pgrex_auto_rejoin": 2}`, `{"pgrex_auto_rejoin": 1, "trys": 1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a := AutoRejoin(folder); a == nil || !a.Failed() || a.Problem == "" {
			t.Errorf("of %q it remembers %+v", text, a)
		}
	}
}
