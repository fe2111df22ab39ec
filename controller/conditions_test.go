package controller

import (
	"fmt"
	"slices"
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
		c.update(findings, begin.Add(time.Duration(i)*time.Minute))
		if len(c.held) != 1 || !c.held[0].Since.Equal(begin) || c.held[0].Finding != findings[0] {
			t.Errorf("after %v there is %v", findings, c.held)
		}
	}
	c.update(nil, begin.Add(time.Hour))
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
