package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/pgrex/pgrex/model"
)

// TestConditionsLogged: what holds is told when it begins, becomes graver or milder, and ends; new figures are no news, and
// it holds since it began.
func TestConditionsLogged(t *testing.T) {
	var said []string
	c := conditions{log: funcr.NewJSON(func(line string) {
		said = append(said, line)
	}, funcr.Options{})}
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	disk := func(severity model.Severity, used int) []model.Finding {
		return []model.Finding{{Code: model.CodeDiskNearlyFull, Severity: severity, Subject: "pg_wal", Text: fmt.Sprint(used, "%")}}
	}
	for i, findings := range [][]model.Finding{
		disk(model.Warning, 76), disk(model.Warning, 80), disk(model.Critical, 91), disk(model.Critical, 92), disk(model.Warning, 85),
	} {
		c.update(model.Plan{Findings: findings}, begin.Add(time.Duration(i)*time.Minute))
		if len(c.held) != 1 || !c.held[0].Since.Equal(begin) || c.held[0].Finding != findings[0] {
			t.Errorf("after %v there is %v", findings, c.held)
		}
	}
	c.update(model.Plan{}, begin.Add(time.Hour))
	line := func(msg, severity, rest string) string {
		return `{"logger":"","level":0,"msg":"` + msg + `","code":"DiskNearlyFull","severity":"` + severity + `",` + rest + `}`
	}
	want := []string{
		line("condition began", "warning", `"subject":"pg_wal","text":"76%"`),
		line("condition changed", "critical", `"was":"warning","subject":"pg_wal","text":"91%"`),
		line("condition changed", "warning", `"was":"critical","subject":"pg_wal","text":"85%"`),
		`{"logger":"","level":0,"msg":"condition ended","code":"DiskNearlyFull","subject":"pg_wal","since":"2026-01-02T03:04:05Z"}`,
	}
	if !slices.Equal(said, want) {
		t.Errorf("said was %q, not %q", said, want)
	}
}

// TestConditionsOutliveBlindLooks: a look that saw nothing of the slots ends no condition that tells of them.
func TestConditionsOutliveBlindLooks(t *testing.T) {
	var said []string
	c := conditions{log: funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{})}
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	look := func(minutes int, complete bool, codes ...model.Code) {
		plan := model.Plan{Complete: complete}
		for _, code := range codes {
			plan.Findings = append(plan.Findings, model.Finding{Code: code, Severity: model.Critical, Subject: "pm03"})
		}
		c.update(plan, begin.Add(time.Duration(minutes)*time.Minute))
	}
	count := func(what string, code model.Code) (n int) {
		for _, line := range said {
			if strings.Contains(line, what) && strings.Contains(line, `"`+string(code)+`"`) {
				n++
			}
		}
		return n
	}
	look(0, true, model.CodeRebuildRequired, model.CodeSlotLost)
	look(1, false, model.CodeClusterUnknown)
	look(2, false, model.CodeServerDown)
	if len(c.held) != 1 || c.held[0].Code != model.CodeServerDown || count("ended", model.CodeClusterUnknown) != 1 {
		t.Errorf("what a blind look shows must be all that holds, and end with the next: %v, said %q", c.held, said)
	}
	look(3, true, model.CodeRebuildRequired)
	if len(c.held) != 1 || !c.held[0].Since.Equal(begin) || count("began", model.CodeRebuildRequired) != 1 {
		t.Errorf("it began anew: %v, said %q", c.held, said)
	}
	if count("ended", model.CodeRebuildRequired) != 0 || count("ended", model.CodeSlotLost) != 1 || count("ended", model.CodeServerDown) != 1 {
		t.Errorf("ends are wrong: %q", said)
	}
	// It was seen blindly first, and then with everything.
	look(4, false, model.CodePaused)
	look(5, true, model.CodePaused, model.CodeRebuildRequired)
	look(6, false)
	look(7, true, model.CodePaused, model.CodeRebuildRequired)
	if c.held[0].Code != model.CodePaused || !c.held[0].Since.Equal(begin.Add(4*time.Minute)) || count("began", model.CodePaused) != 1 {
		t.Errorf("it began anew: %v, said %q", c.held, said)
	}
	look(8, false)
	look(9, true)
	if len(c.held)+len(c.unseen) != 0 || count("ended", model.CodeRebuildRequired) != 1 {
		t.Errorf("it has no end: %v %v, said %q", c.held, c.unseen, said)
	}
}
