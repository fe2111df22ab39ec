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
	Since    time.Time `json:"since"`
	complete bool      // a complete plan has found it
}

// conditions remembers which findings hold, to log each once when it begins, when its severity changes, and when it
// ends. What a complete plan has found only another one can end: one that says nothing but that the primary does not
// answer does not.
type conditions struct {
	log    logr.Logger
	held   []Condition
	unseen []Condition // have held when everything was seen last
}

// update takes the findings of a pass.
func (c *conditions) update(plan model.Plan, now time.Time) {
	known := slices.Concat(c.held, c.unseen)
	c.held, c.unseen = nil, nil
	for _, f := range plan.Findings {
		condition := Condition{f, now, plan.Complete}
		if i := slices.IndexFunc(known, sameAs(f)); i >= 0 {
			condition.Since, condition.complete = known[i].Since, known[i].complete || plan.Complete
			if was := known[i].Severity; was != f.Severity {
				c.log.Info("condition changed", keyCode, f.Code, KeySeverity, f.Severity, keyWas, was,
					keySubject, f.Subject, keyText, f.Text)
			}
		} else {
			c.log.Info("condition began", keyCode, f.Code, KeySeverity, f.Severity, keySubject, f.Subject, keyText, f.Text)
		}
		c.held = append(c.held, condition)
	}
	for _, old := range known {
		switch {
		case slices.ContainsFunc(c.held, sameAs(old.Finding)):
		case old.complete && !plan.Complete:
			c.unseen = append(c.unseen, old)
		default:
			c.log.Info("condition ended", keyCode, old.Code, keySubject, old.Subject, keySince, old.Since.Format(time.RFC3339))
		}
	}
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
