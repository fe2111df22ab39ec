package controller

import (
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/pgrex/pgrex/model"
)

// Condition is a finding that holds, and since when.
type Condition struct {
	model.Finding
	Since time.Time `json:"since"`
}

// conditions remembers which findings hold, to log each once when it begins, when its severity changes, and when it ends.
type conditions struct {
	log  logr.Logger
	held []Condition
}

// update takes the findings of a pass.
func (c *conditions) update(findings []model.Finding, now time.Time) {
	var held []Condition
	for _, f := range findings {
		since := now
		if i := slices.IndexFunc(c.held, sameAs(f)); i >= 0 {
			since = c.held[i].Since
			if was := c.held[i].Severity; was != f.Severity {
				c.log.Info("condition changed", keyCode, f.Code, keySeverity, f.Severity, keyWas, was, keySubject, f.Subject, keyText, f.Text)
			}
		} else {
			c.log.Info("condition began", keyCode, f.Code, keySeverity, f.Severity, keySubject, f.Subject, keyText, f.Text)
		}
		held = append(held, Condition{f, since})
	}
	for _, old := range c.held {
		if !slices.ContainsFunc(held, sameAs(old.Finding)) {
			c.log.Info("condition ended", keyCode, old.Code, keySubject, old.Subject, keySince, old.Since.Format(time.RFC3339))
		}
	}
	c.held = held
}

// sameAs compares by code and subject: the text carries figures, which change all the time.
func sameAs(f model.Finding) func(Condition) bool {
	return func(c Condition) bool { return c.Code == f.Code && c.Subject == f.Subject }
}

// shape is a plan without its figures: two looks with the same shape call for no closer look.
func shape(p model.Plan) string {
	var b strings.Builder
	b.WriteString(string(p.Standing))
	for _, s := range p.Steps {
		b.WriteString("\n" + s.Text())
	}
	for _, f := range p.Findings {
		b.WriteString("\n" + string(f.Code) + " " + f.Subject)
	}
	return b.String()
}
