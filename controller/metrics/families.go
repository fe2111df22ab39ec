package metrics

import (
	"math"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// family is a metric: what it is, and its samples in a status.
type family struct {
	name, help string
	kind       prometheus.ValueType // 0 for a histogram, whose samples are histograms'
	labels     []string
	samples    func(s controller.Status, add adder)
}

// adder takes a sample: a value, and the values of the family's labels in their order.
type adder func(value float64, labels ...string)

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// The words of pgrex and PostgreSQL that labels have, one series each, of which one is 1.
var (
	modes       = []string{"active", "dry_run", "paused"}
	roles       = []string{"primary", "standby", "in_transition"}
	walStatuses = []string{"reserved", "extended", "unreserved", "lost"}
	ways        = []string{string(model.WayStream), string(model.WayUnheld), string(model.WayRewind), string(model.WayCopy), string(model.WayUnknown)}
	severities  = []model.Severity{model.Info, model.Warning, model.Critical}
)

// up is the only one that says something where no daemon answers.
var up = family{name: "pgrex_up", kind: gauge, help: "Whether the daemon on this host has answered."}

const (
	lookDuration = "pgrex_look_duration_seconds"
	slotLabels   = "slot member"
)

// families are in the order of docs/metrics.md.
var families = []family{
	{name: "pgrex_build_info", kind: gauge, labels: words("version"),
		help: "The daemon's version; always 1.",
		samples: func(s controller.Status, add adder) {
			add(1, s.Version)
		}},
	{name: "pgrex_start_timestamp_seconds", kind: gauge,
		help: "When the daemon started.",
		samples: func(s controller.Status, add adder) {
			add(stamp(s.Started))
		}},
	{name: "pgrex_mode", kind: gauge, labels: words("mode"),
		help: "Whether the daemon works in this mode: active, dry_run (it only says what it would do) or paused (pgrex-paused).",
		samples: func(s controller.Status, add adder) {
			mode := "active"
			switch {
			case s.DryRun:
				mode = "dry_run"
			case holds(s, model.CodePaused):
				mode = "paused"
			}
			oneOf(add, modes, mode)
		}},
	{name: "pgrex_role", kind: gauge, labels: words("role"),
		help: "Whether this host has this role: primary, standby or in_transition. It is primary only when every sign agrees.",
		samples: func(s controller.Status, add adder) {
			oneOf(add, roles, strings.ReplaceAll(string(s.Role), " ", "_"))
		}},
	{name: "pgrex_healthy", kind: gauge,
		help: "Whether all is well on this host: a known role, nothing to do, and no condition but those to know.",
		samples: func(s controller.Status, add adder) {
			add(truth(s.Healthy))
		}},
	{name: "pgrex_last_look_timestamp_seconds", kind: gauge, labels: words("source"),
		help: "When the last look ended that had an answer: of the CIB (cib), of this host's server (postgresql), and on a standby of the primary.",
		samples: func(s controller.Status, add adder) {
			for _, l := range s.Looks {
				if l.Last != nil {
					add(stamp(*l.Last), string(l.Source))
				}
			}
		}},
	{name: "pgrex_look_errors_total", kind: counter, labels: words("source"),
		help: "Looks without an answer since the daemon's start.",
		samples: func(s controller.Status, add adder) {
			for _, l := range s.Looks {
				add(float64(l.Errors), string(l.Source))
			}
		}},
	{name: lookDuration, labels: words("source"),
		help: "How long looks took, with an answer or without."},
	{name: "pgrex_steps_total", kind: counter, labels: words("kind result"),
		help: "Steps that were carried out (done) or failed since the daemon's start, by kind; each further try counts.",
		samples: func(s controller.Status, add adder) {
			for _, c := range s.Steps {
				add(float64(c.Done), c.Kind, "done")
				add(float64(c.Failed), c.Kind, "failed")
			}
		}},
	{name: "pgrex_planned_steps", kind: gauge,
		help: "Steps that are to be done.",
		samples: func(s controller.Status, add adder) {
			add(float64(len(s.Planned)))
		}},
	{name: "pgrex_conditions", kind: gauge, labels: words("severity"),
		help: "Conditions that hold, by severity: info, warning or critical.",
		samples: func(s controller.Status, add adder) {
			for _, severity := range severities {
				n := 0
				for _, c := range s.Conditions {
					if c.Severity == severity {
						n++
					}
				}
				add(float64(n), string(severity))
			}
		}},
	{name: "pgrex_condition_start_timestamp_seconds", kind: gauge, labels: words("code severity subject"),
		help:    "Since when a condition holds. The code is that of docs/findings.md; the subject a host, a slot or a setting, but for ForeignSlot none.",
		samples: conditions},
	{name: "pgrex_member_online", kind: gauge, labels: words("member"),
		help:    "Whether Pacemaker has this member's node as online.",
		samples: members(func(m controller.Member) (float64, bool) { return truth(m.Online), true })},
	{name: "pgrex_member_streaming", kind: gauge, labels: words("member"),
		help: "Whether WAL is sent to this standby. The primary knows it of all, a standby of itself.",
		samples: members(func(m controller.Member) (float64, bool) {
			return truth(m.Streaming != nil && *m.Streaming), m.Streaming != nil
		})},
	{name: "pgrex_member_lag_bytes", kind: gauge, labels: words("member"),
		help:    "WAL from the end of this standby's to the end of the primary's.",
		samples: members(func(m controller.Member) (float64, bool) { return value(m.LagBytes) })},
	{name: "pgrex_member_replay_lag_seconds", kind: gauge, labels: words("member"),
		help:    "PostgreSQL's replay_lag of this standby; on the primary only.",
		samples: members(func(m controller.Member) (float64, bool) { return value(m.LagSeconds) })},
	{name: "pgrex_slot_active", kind: gauge, labels: words(slotLabels),
		help:    "Whether somebody is attached to this physical slot of this host. The member is empty for a slot that is no member's.",
		samples: slots(func(s controller.SlotStatus) (float64, bool) { return truth(s.Active), true })},
	{name: "pgrex_slot_retained_bytes", kind: gauge, labels: words(slotLabels),
		help:    "WAL that this slot holds.",
		samples: slots(func(s controller.SlotStatus) (float64, bool) { return float64(s.Retained), true })},
	{name: "pgrex_slot_wal_status", kind: gauge, labels: words(slotLabels + " status"),
		help: "Whether PostgreSQL says this of the slot's WAL: reserved, extended, unreserved or lost.",
		samples: func(s controller.Status, add adder) {
			for _, slot := range lasting(s) {
				oneOf(add, walStatuses, slot.WALStatus, slot.Name, slot.Member)
			}
		}},
	{name: "pgrex_slot_budget_used_ratio", kind: gauge, labels: words(slotLabels),
		help:    "Share of the WAL budget that this slot holds: 1 when it is spent. Not there without a budget.",
		samples: slots(func(s controller.SlotStatus) (float64, bool) { return value(s.BudgetUsed) })},
	{name: "pgrex_slot_time_left_seconds", kind: gauge, labels: words(slotLabels),
		help:    "Time until this slot is given up, or the disk is full, at the usual rate of WAL. Only for a slot that nobody is attached to.",
		samples: slots(func(s controller.SlotStatus) (float64, bool) { return value(s.TimeLeft) })},
	{name: "pgrex_slot_xmin_age_transactions", kind: gauge, labels: words(slotLabels),
		help:    "Age of the slot's xmin, up to which it holds vacuum back. Only for a slot with an xmin.",
		samples: slots(func(s controller.SlotStatus) (float64, bool) { return value(s.XMinAge) })},
	{name: "pgrex_wal_budget_bytes", kind: gauge,
		help: "WAL that a slot may hold (max_slot_wal_keep_size); +Inf without a limit.",
		samples: func(s controller.Status, add adder) {
			if v, ok := value(s.WAL.Budget); ok && v == model.Unlimited {
				add(math.Inf(1))
			} else if ok {
				add(v)
			}
		}},
	{name: "pgrex_wal_size_bytes", kind: gauge, help: "WAL in pg_wal.",
		samples: known(func(w controller.WALStatus) (float64, bool) { return value(w.WAL) })},
	{name: "pgrex_wal_filesystem_size_bytes", kind: gauge, help: "Size of the file system of pg_wal.",
		samples: known(func(w controller.WALStatus) (float64, bool) { return value(w.Size) })},
	{name: "pgrex_wal_filesystem_avail_bytes", kind: gauge, help: "What is free there for PostgreSQL.",
		samples: known(func(w controller.WALStatus) (float64, bool) { return value(w.Free) })},
	{name: "pgrex_wal_generation_bytes_per_second", kind: gauge, labels: words("window"),
		help: "How fast WAL comes: usual (half-life of 10 minutes), and peak (the highest minute of the last 24 hours).",
		samples: func(s controller.Status, add adder) {
			if v, ok := value(s.WAL.RateUsual); ok {
				add(v, "usual")
			}
			if v, ok := value(s.WAL.RatePeak); ok {
				add(v, "peak")
			}
		}},
	{name: "pgrex_wal_disk_time_left_seconds", kind: gauge,
		help:    "Time until the disk is full at the usual rate, while a slot that nobody is attached to holds WAL and no budget ends before.",
		samples: known(func(w controller.WALStatus) (float64, bool) { return value(w.DiskTimeLeft) })},
	{name: "pgrex_forecast", kind: gauge, labels: words("candidate member way"),
		help: "Whether the member would come back this way if the candidate were promoted now: stream, unheld, rewind, copy or unknown (docs/status.md).",
		samples: func(s controller.Status, add adder) {
			for _, f := range s.Forecast {
				oneOf(add, ways, string(f.Way), f.Candidate, f.Host)
			}
		}},
	{name: "pgrex_crash_hints_total", kind: counter,
		help: "Crashes of this host's PostgreSQL that Pacemaker was told of since the daemon's start (pgrex-crash-hint).",
		samples: func(s controller.Status, add adder) {
			add(float64(s.CrashHint.Given))
		}},
	{name: "pgrex_auto_rejoin_last_return_timestamp_seconds", kind: gauge,
		help: "When this host last came back without a person (pgrex-auto-rejoin). Not there before the first time.",
		samples: func(s controller.Status, add adder) {
			if s.AutoRejoin == nil || len(s.AutoRejoin.Returns) == 0 {
				return
			}
			add(stamp(s.AutoRejoin.Returns[len(s.AutoRejoin.Returns)-1]))
		}},
	{name: "pgrex_auto_rejoin_failed_tries", kind: gauge,
		help: "Tries in a row to come back without a person that have failed.",
		samples: func(s controller.Status, add adder) {
			if s.AutoRejoin != nil {
				add(float64(s.AutoRejoin.Tries))
			}
		}},
	{name: "pgrex_operation_unfinished", kind: gauge,
		help: "Whether an operation is unfinished and nobody works on it, as this host knows.",
		samples: func(s controller.Status, add adder) {
			add(truth(holds(s, model.CodeOperationUnfinished)))
		}},
}

func words(labels string) []string { return strings.Fields(labels) }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func stamp(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// value is that of a figure, if it is known.
func value[T int64 | uint64 | uint32 | float64](figure *T) (float64, bool) {
	if figure == nil {
		return 0, false
	}
	return float64(*figure), true
}

// oneOf adds a sample for each word, 1 for the one that is so. The word is the last label.
func oneOf(add adder, words []string, is string, labels ...string) {
	for _, word := range words {
		add(truth(word == is), append(labels[:len(labels):len(labels)], word)...)
	}
}

func holds(s controller.Status, code model.Code) bool {
	for _, c := range s.Conditions {
		if c.Code == code {
			return true
		}
	}
	return false
}

// conditions are since the first of those that have the same labels. Slots that others make come and go, under ever new names:
// they are no subject.
func conditions(s controller.Status, add adder) {
	type key struct{ code, severity, subject string }
	since, order := map[key]time.Time{}, []key{}
	for _, c := range s.Conditions {
		k := key{string(c.Code), string(c.Severity), c.Subject}
		if c.Code == model.CodeForeignSlot {
			k.subject = ""
		}
		first, ok := since[k]
		if !ok {
			order = append(order, k)
		}
		if !ok || c.Since.Before(first) {
			since[k] = c.Since
		}
	}
	for _, k := range order {
		add(stamp(since[k]), k.code, k.severity, k.subject)
	}
}

// members makes samples of a figure of each member, where it is known.
func members(figure func(controller.Member) (float64, bool)) func(controller.Status, adder) {
	return func(s controller.Status, add adder) {
		for _, m := range s.Members {
			if v, ok := figure(m); ok {
				add(v, m.Host)
			}
		}
	}
}

// slots does the same for each slot that lasts.
func slots(figure func(controller.SlotStatus) (float64, bool)) func(controller.Status, adder) {
	return func(s controller.Status, add adder) {
		for _, slot := range lasting(s) {
			if v, ok := figure(slot); ok {
				add(v, slot.Name, slot.Member)
			}
		}
	}
}

// lasting are the slots that are not temporary: those of a base backup have the number of its process as their name.
func lasting(s controller.Status) (all []controller.SlotStatus) {
	for _, slot := range s.Slots {
		if !slot.Temporary {
			all = append(all, slot)
		}
	}
	return all
}

// known makes a sample of a figure of the WAL, where it is known.
func known(figure func(controller.WALStatus) (float64, bool)) func(controller.Status, adder) {
	return func(s controller.Status, add adder) {
		if v, ok := figure(s.WAL); ok {
			add(v)
		}
	}
}
