package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

func TestWhatIf(t *testing.T) {
	const mib = 1 << 20
	budget, free := int64(10800*mib), uint64(20000*mib)
	base := reconcile.Absence{Host: "pm03", For: 3 * time.Hour, Usual: mib, Peak: 4 * mib, Budget: &budget, Free: &free}
	p, err := reconcile.WhatIf(base)
	if err != nil {
		t.Fatal(err)
	}
	if p.Usual.Bytes != 10800*mib || !*p.Usual.BudgetLasts || p.Peak.Bytes != 43200*mib || *p.Peak.BudgetLasts ||
		*p.Peak.BudgetSeconds != 2700 || p.Budget != "54016MB" || !*p.Peak.DiskLasts {
		t.Errorf("%+v", p)
	}
	// What it says to set can be set, however much it is.
	for _, away := range []time.Duration{time.Minute, 48 * time.Hour, 1000 * time.Hour} {
		long := base
		long.For, long.Peak = away, 600*mib
		p, err := reconcile.WhatIf(long)
		policy, problems := model.PolicyOf(model.Clone{Meta: map[string]string{model.MetaWALBudget: p.Budget}})
		if err != nil || len(problems) > 0 || policy.WALBudget.Bytes < p.Peak.Bytes {
			t.Errorf("%s for %s: %q, %v", p.Budget, away, problems, err)
		}
	}
	unlimited := int64(-1)
	for name, test := range map[string]struct {
		change func(a *reconcile.Absence)
		holds  func(p reconcile.Prospect) bool
	}{
		"away already": {func(a *reconcile.Absence) { a.Held = mib }, func(p reconcile.Prospect) bool {
			return !*p.Usual.BudgetLasts && p.Usual.Bytes == 10801*mib
		}},
		"without a limit the disk fills": {func(a *reconcile.Absence) { a.Budget = &unlimited }, func(p reconcile.Prospect) bool {
			return *p.Peak.BudgetLasts && p.Peak.BudgetSeconds == nil && !*p.Peak.DiskLasts
		}},
		"nothing known": {func(a *reconcile.Absence) { a.Budget, a.Free = nil, nil }, func(p reconcile.Prospect) bool {
			return p.Peak.BudgetLasts == nil && p.Peak.DiskLasts == nil
		}},
		"a peak below the usual": {func(a *reconcile.Absence) { a.Peak = 0 }, func(p reconcile.Prospect) bool { return p.Peak == p.Usual || p.Peak.Rate == p.Usual.Rate }},
	} {
		a := base
		test.change(&a)
		if p, err := reconcile.WhatIf(a); err != nil || !test.holds(p) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for want, change := range map[string]func(a *reconcile.Absence){
		"must be more than nothing": func(a *reconcile.Absence) { a.For = 0 },
		"not known yet":             func(a *reconcile.Absence) { a.Usual, a.Peak = 0, 0 },
	} {
		a := base
		change(&a)
		if _, err := reconcile.WhatIf(a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %s", err, want)
		}
	}
}
