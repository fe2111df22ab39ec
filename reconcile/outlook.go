package reconcile

import (
	"fmt"
	"slices"

	"github.com/pgrex/pgrex/model"
)

// How much of what a slot can hold it holds when something is said.
const (
	laggingShare     = 0.50
	nearlySpentShare = 0.75
	spentShare       = 0.90
)

// Outlook is how much WAL a slot holds, how much it can hold, and how long that lasts.
type Outlook struct {
	Held  uint64 // bytes
	Limit uint64 // bytes after which PostgreSQL gives the slot up, or the disk is full
	Known bool   // whether Limit is
	// ByDisk is true when the disk ends before the budget, or there is no budget.
	ByDisk bool
	Rate   model.WALRate
}

// OutlookOf is a slot's outlook on this host.
func OutlookOf(in Input, s model.Slot) Outlook {
	v := &view{Who: Who{Input: in}}
	o := Outlook{Held: in.Instance.Held(s), Rate: in.WALRate}
	budget, limited := in.Instance.Budget.Bytes()
	ceiling, known := v.ceiling()
	disk := uint64(ceiling) * model.MiB
	switch {
	case limited && (!known || budget <= disk):
		o.Limit, o.Known = budget, true
	case known:
		o.Limit, o.Known, o.ByDisk = disk, true, true
	}
	return o
}

// Used is the share of the limit that is held, 1 or more when it is spent.
func (o Outlook) Used() float64 { return float64(o.Held) / float64(max(o.Limit, 1)) }

// Left is for how many seconds the rest lasts at a rate. ok is false where that is unknown, or for ever.
func (o Outlook) Left(rate float64) (seconds float64, ok bool) {
	if !o.Known {
		return 0, false
	}
	return model.Lasts(o.Limit-min(o.Held, o.Limit), rate)
}

// String is what the slot holds of its limit, and when that ends: "that is 60% of the 2.0 GiB that the budget allows, which ends
// in about 4 min at 3.2 MiB/s". "" for an unknown limit.
func (o Outlook) String() string {
	if !o.Known {
		return ""
	}
	what := "the budget"
	if o.ByDisk {
		what = "the disk"
	}
	text := fmt.Sprintf("that is %.0f%% of the %s that %s allows", 100*o.Used(), model.FormatBytes(o.Limit), what)
	usual, known := o.Left(o.Rate.Usual)
	if !known || o.Held >= o.Limit {
		return text
	}
	text += fmt.Sprintf(", which ends in about %s at %s/s", model.FormatSeconds(usual), model.FormatBytes(uint64(o.Rate.Usual)))
	if peak, ok := o.Left(o.Rate.Peak); ok && o.Rate.Peak > 1.5*o.Rate.Usual {
		text += fmt.Sprintf(", or in %s at the peak of %s/s", model.FormatSeconds(peak), model.FormatBytes(uint64(o.Rate.Peak)))
	}
	return text
}

// outlooks says which slots are about to cost something: their owner a copy, or this host its disk. A budget is for all
// slots, so that others than ours are told of, too.
func (v *view) outlooks() {
	var worst Outlook
	for _, s := range v.slots {
		o := OutlookOf(v.Input, s)
		if !s.Reserved() || s.Temporary || !o.Known {
			continue
		}
		if o.ByDisk && o.Used() > worst.Used() {
			worst = o
		}
		subject, used := v.ownerOf(s.Name), o.Used()
		switch {
		case !o.ByDisk && used >= spentShare:
			v.say(model.CodeBudgetSpent, model.Critical, subject, "slot %s holds %s of WAL: %s; when it ends, the slot is lost, and its owner "+
				"needs an archive or a copy: bring it back, or raise %s", s.Name, v.retained(s), o, model.MetaWALBudget)
		case !o.ByDisk && used >= nearlySpentShare:
			v.say(model.CodeBudgetNearlySpent, model.Warning, subject, "slot %s holds %s of WAL: %s; bring its owner back before, or raise %s",
				s.Name, v.retained(s), o, model.MetaWALBudget)
		case s.Active && used >= laggingShare:
			v.say(model.CodeSlotLagging, model.Warning, subject, "the owner of slot %s is attached, but %s behind: %s; look at the network, and at "+
				"its disk", s.Name, v.retained(s), o)
		}
	}
	if used := worst.Used(); worst.Known && used >= nearlySpentShare {
		severity := model.Warning
		if used >= spentShare {
			severity = model.Critical
		}
		v.say(model.CodeDiskNearlyFull, severity, "pg_wal", "slots hold %s of WAL: %s; bring their owners back, drop a slot, or make room: "+
			"PostgreSQL stops when the disk is full", model.FormatBytes(worst.Held), worst)
	}
}

// ownerOf is the member whose slot has a name, or else the name.
func (v *view) ownerOf(name string) string {
	i := slices.IndexFunc(v.Others, func(m string) bool { return v.Names[m] == name })
	if i < 0 {
		return name
	}
	return v.Others[i]
}

// lost says that PostgreSQL has given a slot up.
func (v *view) lost(s model.Slot, member string) {
	consequence := "unless it has it already, " + member + " needs an archive or a copy to come back to this host"
	if v.Instance.InRecovery {
		consequence = "after a failover to this host now, " + member + " would need an archive or a copy"
	}
	v.say(model.CodeSlotLost, model.Warning, s.Name, "PostgreSQL has given up the WAL that this slot held for %s: %s", member, consequence)
}

// xminHeld is for a slot on the primary that holds vacuum back while its owner is away: told, and ended by policy.
func (v *view) xminHeld(s model.Slot, member string) {
	limit := v.Policy.XMinAge
	switch {
	case s.XMin == 0:
	case limit == 0 || s.XMinAge < limit || !v.mayDestroy:
		text := "for ever: " + model.MetaXMinAge + " would limit that"
		if limit > 0 {
			text = fmt.Sprintf("until they are %d (%s) and nothing forbids to release it", limit, model.MetaXMinAge)
		}
		v.say(model.CodeXMinHeld, model.Info, member, "slot %s holds vacuum back by %d transactions while %s is away, %s", s.Name, s.XMinAge, member, text)
	default:
		v.release(s, member, fmt.Sprintf("the slot holds vacuum back by %d transactions, more than %s=%d, while %s is away", s.XMinAge, model.MetaXMinAge,
			limit, member))
	}
}
