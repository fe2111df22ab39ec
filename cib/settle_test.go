package cib

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hangs stands for a crm_resource that waits for a monitor that is not under way. About a CIB that it is given, it asks the
// real one.
const hangs = `#!/bin/sh
case "$*" in
*--timeout=25s) echo waits >>"$WAITS" && exec sleep 1000 ;;
*) echo looks >>"$WAITS"
! grep -q 'rc-code="193"' ;;
esac
`

// A monitor that has failed may be said to be under way for ever. Nobody waits for it, and everybody for one that has
// not failed.
func TestSettleForgetsStaleMonitors(t *testing.T) {
	healthy := string(readFile(t, "../../shared/cib/lab/3node-healthy.xml"))
	const history = `<lrm_resource id="pgsql" type="pgsql" class="ocf" provider="heartbeat">`
	const pending = `<lrm_rsc_op id="pgsql_monitor_10000" operation_key="pgsql_monitor_10000" operation="monitor" call-id="-1" rc-code="193" op-status="-1" interval="10000"/>`
	const failed = `<lrm_rsc_op id="pgsql_last_failure_0" operation_key="pgsql_monitor_10000" operation="monitor" call-id="70" rc-code="7" op-status="0" interval="10000"/>`
	const probe = `<lrm_rsc_op id="pgsql_last_0" operation_key="pgsql_monitor_0" operation="monitor" call-id="-1" rc-code="193" op-status="-1" interval="0"/>`
	for name, test := range map[string]struct {
		history string
		ends    bool
	}{
		"stale":                {pending + failed, true},
		"stale, after":         {failed + pending, true},
		"the first":            {pending, false},
		"another has failed":   {pending + strings.ReplaceAll(failed, "10000", "9000"), false},
		"a probe":              {probe + strings.ReplaceAll(failed, "monitor_10000", "monitor_0"), false},
		"nothing is under way": {failed, true},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file, waits := filepath.Join(folder, "cib.xml"), filepath.Join(folder, "waits")
			at := strings.Index(healthy, history)
			if at < 0 {
				t.Fatal("the CIB has no history of the database")
			}
			// The first node's history is another's now, so that no id is there twice.
			text := healthy[:at] + history + test.history + "</lrm_resource>" +
				strings.Replace(healthy[at:], `id="pgsql"`, `id="other"`, 1)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "crm_resource"), []byte(hangs), 0o700); err != nil { //nolint:gosec // it is a program
				t.Fatal(err)
			}
			t.Setenv("CIB_file", file)
			t.Setenv("WAITS", waits)
			t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if !test.ends {
				time.AfterFunc(4*lookAgain, cancel)
			}
			err := Settle().Run(ctx)
			said := string(readFile(t, waits))
			if test.ends && (err != nil || said != "waits\nlooks\n") {
				t.Errorf("%v, %q", err, said)
			}
			if !test.ends && (!errors.Is(err, context.Canceled) || !strings.Contains(said, "looks")) {
				t.Errorf("it does not wait: %v, %q", err, said)
			}
		})
	}
}
