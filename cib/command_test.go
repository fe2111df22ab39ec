package cib

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The real tools change a real CIB file, and Parse sees what they did.
func TestCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cib.xml")
	if err := os.WriteFile(file, readFile(t, "../../shared/cib/lab/3node-healthy.xml"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CIB_file", file)
	for _, step := range []struct {
		command Command
		want    string // what is new, or gone with a "!"
	}{
		{SetProperty("maintenance-mode", "true"), `name="maintenance-mode" value="true"`},
		{DeleteProperty("maintenance-mode"), `!name="maintenance-mode"`},
		{SetMeta("pgsql", "pgrex-paused", "is on"), `name="pgrex-paused" value="is on"`},
		{DeleteMeta("pgsql", "pgrex-paused"), `!name="pgrex-paused"`},
		{SetParameter("pgsql", "replication_slot_name", "rex"), `name="replication_slot_name" value="rex"`},
		{DeleteParameter("pgsql", "replication_slot_name"), `!name="replication_slot_name"`},
		{SetStandby("pm01", true), `name="standby" value="true"`},
		{DeleteStandby("pm01"), `!name="standby"`},
		{KeepAway("msPostgresql", "pgsql", "pm01"), `id="pgrex-stop-pgsql-pm01" node="pm01" rsc="msPostgresql" score="-INFINITY"`},
		{KeepAway("msPostgresql", "pgsql", "pm01"), `id="pgrex-stop-pgsql-pm01"`}, // again
		{ClearBan("msPostgresql", "pm01"), `id="pgrex-stop-pgsql-pm01"`},
		{LetBack("pgsql", "pm02"), `id="pgrex-stop-pgsql-pm01"`},
		{LetBack("pgsql", "pm01"), `!id="pgrex-stop-pgsql-pm01"`},
		{LetBack("pgsql", "pm01"), `!id="pgrex-stop-pgsql-pm01"`}, // again
		{BanPromoted("msPostgresql", "pm02"), `id="cli-ban-msPostgresql-on-pm02"`},
		{ClearBan("msPostgresql", "pm02"), `!id="cli-ban-msPostgresql-on-pm02"`},
	} {
		if err := step.command.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := string(readFile(t, file))
		if want, gone := strings.CutPrefix(step.want, "!"); strings.Contains(text, want) == gone {
			t.Errorf("after %s: %s in the CIB: %t", step.command, want, gone)
		}
		if _, err := written([]byte(text)); err != nil {
			t.Errorf("after %s: %v", step.command, err)
		}
	}
	err := SetMeta("nobody", "a", "b").Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "nobody") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a resource that is not there: %v", err)
	}
}

func TestCommandString(t *testing.T) {
	for want, c := range map[string]Command{
		"crm_attribute --type crm_config --name maintenance-mode --update=true":                       SetProperty("maintenance-mode", "true"),
		`crm_resource --resource pgsql --meta --set-parameter a --parameter-value 'it'\''s; $(here)'`: SetMeta("pgsql", "a", "it's; $(here)"),
		"crm_resource --refresh --resource pgsql":                                                     Refresh("pgsql", ""),
		"crm_resource --cleanup --resource pgsql --node pm01":                                         Cleanup("pgsql", "pm01"),
	} {
		if diff := cmp.Diff(want, c.String()); diff != "" {
			t.Error(diff)
		}
	}
}
