package cib

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Histories of the database on a host that keeps it stopped.
const (
	stopped = `<lrm_rsc_op id="pgsql_last_0" operation_key="pgsql_stop_0" operation="stop" crm_feature_set="3.16.1" transition-key="5:16:0:7" ` +
		`transition-magic="0:0;5:16:0:7" call-id="80" rc-code="0" op-status="0" interval="0" last-rc-change="103"/>`
	begun = `<lrm_rsc_op id="pgsql_monitor_10000" operation_key="pgsql_monitor_10000" operation="monitor" crm_feature_set="3.16.1" ` +
		`transition-key="11:15:0:7" transition-magic="-1:193;11:15:0:7" call-id="-1" rc-code="193" op-status="-1" interval="10000" last-rc-change="100"/>`
	hasFailed = `<lrm_rsc_op id="pgsql_last_failure_0" operation_key="pgsql_monitor_10000" operation="monitor" crm_feature_set="3.16.1" ` +
		`transition-key="11:15:0:7" transition-magic="0:7;11:15:0:7" call-id="79" rc-code="7" op-status="0" interval="10000" last-rc-change="101"/>`
)

// withHistory is the CIB of three hosts, with another history of the database on pm02.
func withHistory(t *testing.T, constraint, history string) string {
	t.Helper()
	healthy := string(readFile(t, "../../shared/cib/lab/3node-healthy.xml"))
	at := strings.Index(healthy, `<node_state id="2" uname="pm02"`)
	old := regexp.MustCompile(`(?s)(<lrm_resource id="pgsql" [^>]*>).*?(</lrm_resource>)`)
	before, after, found := strings.Cut(healthy[:at], `<constraints>`)
	if at < 0 || !found || !old.MatchString(healthy[at:]) {
		t.Fatal("the CIB is another one")
	}
	replaced := false
	return before + `<constraints>` + constraint + after + old.ReplaceAllStringFunc(healthy[at:], func(all string) string {
		if replaced {
			return all
		}
		replaced = true
		return old.ReplaceAllString(all, "${1}"+history+"${2}")
	})
}

// A monitor that has failed may be said to be under way for ever. Nobody waits for it, and everybody for what is under
// way, or still to be done.
func TestSettleForgetsStaleMonitors(t *testing.T) {
	const away = `<rsc_location id="pgrex-stop-pgsql-pm02" rsc="msPostgresql" node="pm02" score="-INFINITY"/>`
	const another = `"pgsql_monitor_9000" operation="monitor"`
	stopping := strings.NewReplacer(`"0:0;`, `"-1:193;`, `rc-code="0" op-status="0"`, `rc-code="193" op-status="-1"`).Replace(stopped)
	for name, test := range map[string]struct {
		constraint, history string
		idle                bool
	}{
		"at rest":             {away, stopped, true},
		"stale":               {away, stopped + begun + hasFailed, true},
		"stale, before":       {away, hasFailed + begun + stopped, true},
		"it never failed":     {away, stopped + begun, false},
		"another has failed":  {away, stopped + begun + strings.Replace(hasFailed, `"pgsql_monitor_10000" operation="monitor"`, another, 1), false},
		"it failed before":    {away, stopped + begun + strings.Replace(hasFailed, `change="101"`, `change="99"`, 1), false},
		"no time":             {away, stopped + strings.Replace(begun, ` last-rc-change="100"`, "", 1) + hasFailed, false},
		"it is being stopped": {away, hasFailed + stopping, false},
		"it is to be started": {"", stopped, false},
	} {
		text := withHistory(t, test.constraint, test.history)
		for _, s := range systems(t) {
			t.Run(name+" "+s.name, func(t *testing.T) {
				settles(t, s, text, test.idle)
			})
		}
	}
}

// settles lets the tool hang, and wants an end if the cluster is idle.
func settles(t *testing.T, s system, text string, idle bool) {
	t.Helper()
	folder := t.TempDir()
	looks := filepath.Join(folder, "looks")
	simulate, err := exec.LookPath(s.tool("crm_simulate"))
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"crm_resource": "#!/bin/sh\nexec sleep 1000\n",
		"cibadmin":     fmt.Sprintf("#!/bin/sh\necho look >>%s\nexec cat %s\n", looks, filepath.Join(folder, "cib.xml")),
		"crm_simulate": fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", simulate),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "cib.xml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Settle().Run(ctx) }()
	for {
		select {
		case err := <-ended:
			if idle && err != nil || !idle && !errors.Is(err, context.Canceled) {
				t.Errorf("idle %t: %v", idle, err)
			}
			return
		case <-time.After(lookAgain / 10):
		}
		said, _ := os.ReadFile(looks)
		if !idle && strings.Count(string(said), "look") >= 2 { // the first one found something to wait for
			cancel()
		}
	}
}
