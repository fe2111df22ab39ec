package reconcile

import (
	"fmt"
	"time"
)

// Absence is a host that is away for a while, and what is known of WAL on the host that would hold it.
type Absence struct {
	Host string
	For  time.Duration
	// Usual and Peak are the rates at which WAL comes, in bytes a second.
	Usual, Peak float64
	Held        uint64 // bytes that the host's slot holds already
	Budget      *int64 // max_slot_wal_keep_size in bytes; -1: unlimited; nil: unknown
	Free        *uint64
}

// Prospect is what an absence comes to.
type Prospect struct {
	Host    string  `json:"host"`
	Seconds float64 `json:"seconds"`
	Usual   Held    `json:"usual"`
	Peak    Held    `json:"peak"`
	// Budget is a value for pgrex-wal-budget that would last even at the peak rate, with a quarter to spare: a budget that
	// differs by less than a tenth once it is rounded down would not be set.
	Budget string `json:"budget_needed"`
}

// Held is the WAL that would be held at some rate. What is unknown is null.
type Held struct {
	Rate        float64 `json:"rate"`       // bytes a second
	Bytes       uint64  `json:"held_bytes"` // at the end, with what is held already
	BudgetLasts *bool   `json:"budget_lasts"`
	// BudgetSeconds is when the budget would end; null when it lasts for ever.
	BudgetSeconds *float64 `json:"budget_ends_after_seconds"`
	DiskLasts     *bool    `json:"disk_lasts"`
}

// budgetUnit is what a budget that is asked for is rounded up to.
const budgetUnit = 64 << 20

// WhatIf tells what an absence comes to. The error says what is wrong with the question, or not known yet.
func WhatIf(a Absence) (Prospect, error) {
	switch {
	case a.For <= 0:
		return Prospect{}, inputErrorf("--for %s: how long the host is away must be more than nothing, such as 3h or 90m", a.For)
	case a.Usual <= 0 && a.Peak <= 0:
		return Prospect{}, inputErrorf("the rate of WAL is not known yet: ask again when pgrex has measured for some minutes")
	}
	peak := a.held(max(a.Usual, a.Peak))
	units := uint64(float64(peak.Bytes)*1.25)/budgetUnit + 1
	return Prospect{Host: a.Host, Seconds: a.For.Seconds(), Usual: a.held(a.Usual), Peak: peak,
		Budget: fmt.Sprintf("%dMB", units*budgetUnit>>20)}, nil
}

func (a Absence) held(rate float64) Held {
	comes := uint64(rate * a.For.Seconds())
	h := Held{Rate: rate, Bytes: a.Held + comes}
	if a.Budget != nil {
		lasts := *a.Budget < 0 || h.Bytes <= uint64(*a.Budget)
		h.BudgetLasts = &lasts
		if *a.Budget >= 0 && rate > 0 {
			after := max(0, float64(*a.Budget)-float64(a.Held)) / rate
			h.BudgetSeconds = &after
		}
	}
	if a.Free != nil {
		grows := comes // but PostgreSQL lets go what is over the budget
		if a.Budget != nil && *a.Budget >= 0 {
			grows = min(comes, uint64(max(0, *a.Budget-int64(a.Held))))
		}
		lasts := grows < *a.Free
		h.DiskLasts = &lasts
	}
	return h
}
