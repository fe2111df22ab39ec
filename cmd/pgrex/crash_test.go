package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestPrintCrashHint: what status says of the last end of a postmaster. Where nobody wants a hint, an end without one is
// nothing to say.
func TestPrintCrashHint(t *testing.T) {
	at := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		status controller.CrashHintStatus
		want   string // a part of what is said; "" for nothing
	}{
		"given":             {controller.CrashHintStatus{Given: 2, Last: &model.CrashHint{At: at, Given: true}}, "ago; Pacemaker was told at once (crash hints since pgrex started: 2)"},
		"failed":            {controller.CrashHintStatus{Last: &model.CrashHint{At: at, Failed: true, Why: "no attrd"}}, "ago; Pacemaker could not be told: no attrd"},
		"unanswered":        {controller.CrashHintStatus{Last: &model.CrashHint{At: at, Unanswered: true, Why: "it may still take it"}}, "ago; it may still take it"},
		"ended":             {controller.CrashHintStatus{Enabled: true, Would: true, Last: &model.CrashHint{At: at, Why: "it was told to stop"}}, "ago, without a crash hint: it was told to stop"},
		"ended, not wanted": {controller.CrashHintStatus{Last: &model.CrashHint{At: at, Why: "it was told to stop"}}, ""},
	} {
		var out strings.Builder
		printCrashHint(printer.To(&out), c.status)
		said := strings.Join(strings.Fields(out.String()), " ")
		if !strings.Contains(said, c.want) || c.want == "" && said != "" {
			t.Errorf("%s: %q, not %q", name, said, c.want)
		}
	}
}
