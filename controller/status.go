package controller

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Status is what the daemon says of itself and its host. Its JSON form is stable: fields are added, never changed.
type Status struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	// Primitive is the id of the database's resource; "" if the cluster is not known.
	Primitive string         `json:"primitive"`
	DryRun    bool           `json:"dry_run"`
	Started   time.Time      `json:"started"`
	Looked    time.Time      `json:"looked"` // at the local server
	Read      time.Time      `json:"read"`   // the CIB and the upstream
	Summary   string         `json:"summary"`
	Healthy   bool           `json:"healthy"`
	Role      model.Standing `json:"role"`
	Members   []Member       `json:"members"`
	// Forecast tells for every pair of candidate and host how the host would come back, were the candidate promoted now.
	Forecast []model.Forecast `json:"forecast"`
	Versions VersionStatus    `json:"versions"`
	Server   ServerStatus     `json:"server"`
	Slots    []SlotStatus     `json:"slots"` // the local physical ones
	WAL      WALStatus        `json:"wal"`
	// AutoRejoin is how this host comes back without a person; null if the cluster is not known.
	AutoRejoin *AutoRejoinStatus `json:"auto_rejoin"`
	// Conditions are the findings that hold; Planned the steps not done yet; Failures those that failed last.
	Conditions []Condition `json:"conditions"`
	Planned    []string    `json:"planned"`
	Failures   []Failure   `json:"failures"`
	StepsDone  uint64      `json:"steps_done"` // since the daemon's start
	LastStep   *StepDone   `json:"last_step"`  // null before the first
	// Looks has an entry for each source, and Steps one for each kind of step.
	Looks []LookStatus `json:"looks"`
	Steps []StepCount  `json:"steps"`
	// CrashHint is about a crash of the local PostgreSQL.
	CrashHint CrashHintStatus `json:"crash_hint"`
}

// AutoRejoinStatus is how a host comes back without a person, and what it remembers of that.
type AutoRejoinStatus struct {
	Dearest model.Dearest `json:"dearest"` // the dearest way that may be taken (pgrex-auto-rejoin)
	Act     reconcile.Act `json:"act"`     // what is to be done now; "" for nothing
	Why     string        `json:"why"`     // it is to be done, or this host is left alone
	model.AutoRejoin
}

// StepDone is a step that was carried out.
type StepDone struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

// VersionStatus are the releases of what runs here beside pgrex itself; "" where nobody knows.
type VersionStatus struct {
	model.Versions
	PostgreSQL string `json:"postgresql"`
}

// VersionsOf are the versions that a look has found.
func VersionsOf(who reconcile.Who) VersionStatus {
	return VersionStatus{who.Versions, model.FormatVersion(who.Instance.Version)}
}

// ServerStatus is the local PostgreSQL.
type ServerStatus struct {
	State           model.ServerState `json:"state"`
	Timeline        uint32            `json:"timeline"` // that WAL is written or received on
	Current         model.LSN         `json:"current"`
	PrimarySlotName string            `json:"primary_slot_name"`
	Streaming       bool              `json:"streaming"`      // a standby: WAL is being received
	StreamingSlot   string            `json:"streaming_slot"` // through this slot
}

// SlotStatus is a local slot.
type SlotStatus struct {
	Name       string    `json:"name"`
	Member     string    `json:"member"` // whose it is; "" for one that is no member's
	Temporary  bool      `json:"temporary"`
	Active     bool      `json:"active"`
	XMinAge    *uint32   `json:"xmin_age"` // how many transactions old its xmin is; null where it has none
	RestartLSN model.LSN `json:"restart_lsn"`
	Retained   uint64    `json:"retained_bytes"` // WAL from restart_lsn to the end of WAL
	WALStatus  string    `json:"wal_status"`
	// BudgetUsed is the share of the WAL budget that the slot holds: 1 when it is spent, null without a budget.
	BudgetUsed *float64 `json:"budget_used"`
	// TimeLeft is when PostgreSQL gives the slot up, or the disk is full, at the usual rate, while nobody is attached to it;
	// null when that is unknown or never.
	TimeLeft *float64 `json:"time_left_seconds"`
}

// WALStatus is the WAL on this host: what limits it, how fast it comes, and the file system that holds it. What is unknown is
// null.
type WALStatus struct {
	Budget    *int64   `json:"budget_bytes"` // max_slot_wal_keep_size in effect; -1: unlimited
	RateUsual *float64 `json:"rate_usual"`   // bytes a second, smoothed
	RatePeak  *float64 `json:"rate_peak"`    // the highest minute of the last 24 hours
	Size      *uint64  `json:"file_system_size_bytes"`
	Free      *uint64  `json:"file_system_free_bytes"`
	WAL       *uint64  `json:"wal_bytes"` // in pg_wal
	// DiskTimeLeft is when the disk is full at the usual rate, while a slot that nobody is attached to holds WAL and no budget
	// ends before.
	DiskTimeLeft *float64 `json:"disk_time_left_seconds"`
}

func statusOf(who reconcile.Who, plan model.Plan, answers map[string]Answer, held []Condition, failures []Failure, dryRun bool) Status {
	s := Status{
		Node: who.Node, Primitive: who.Clone.Primitive, DryRun: dryRun, Role: plan.Standing, Conditions: append([]Condition{}, held...),
		Members: []Member{}, Forecast: []model.Forecast{}, Slots: []SlotStatus{}, Planned: []string{}, Failures: append([]Failure{}, failures...),
		Versions: VersionsOf(who),
		Server: ServerStatus{
			State: who.Instance.State, Timeline: who.Instance.Timeline, Current: who.Instance.Current,
			PrimarySlotName: who.Instance.PrimarySlotName, Streaming: who.Instance.Receiver.Streaming(),
		},
	}
	if s.Server.Streaming {
		s.Server.StreamingSlot = who.Instance.Receiver.SlotName
	}
	for _, step := range plan.Steps {
		s.Planned = append(s.Planned, step.Kind()+" "+step.Text())
	}
	s.addCluster(who, plan, answers)
	s.WAL, s.AutoRejoin = walStatus(who.Input), autoRejoinStatus(who)
	s.Healthy = plan.Standing != model.InTransition && len(failures) == 0 && len(s.Planned) == 0
	for _, c := range held {
		if c.Severity != model.Info {
			s.Healthy = false
		}
	}
	s.Summary = summarize(s)
	return s
}

// addCluster adds what needs the CIB: the members, and which slot is whose.
func (s *Status) addCluster(who reconcile.Who, plan model.Plan, answers map[string]Answer) {
	owners := map[string]string{}
	if who.Cluster != nil {
		h := hosts{who, plan, answers}
		s.Members, s.Forecast = h.members(), h.forecasts()
		for _, host := range who.Policy.Members {
			if !who.Is(host) {
				owners[who.Names[host]] = host
			}
		}
	}
	for _, slot := range who.Instance.Slots {
		if slot.Type != model.SlotPhysical {
			continue
		}
		status := SlotStatus{Name: slot.Name, Member: owners[slot.Name], Temporary: slot.Temporary,
			Active: slot.Active, RestartLSN: slot.RestartLSN, WALStatus: slot.WALStatus}
		if slot.XMin != 0 {
			status.XMinAge = &slot.XMinAge
		}
		if slot.Reserved() {
			status.Retained = who.Instance.Held(slot)
			status.addOutlook(who.Input, slot)
		}
		s.Slots = append(s.Slots, status)
	}
	s.addTimeLeft()
}

// addTimeLeft gives the members, on the primary, what is known of how long their slots last.
func (s *Status) addTimeLeft() {
	for _, m := range s.Members {
		for _, slot := range s.Slots {
			if s.Role == model.Primary && m.Slot != nil && slot.Name == m.Slot.Name {
				m.Slot.TimeLeft = slot.TimeLeft
			}
		}
	}
}

// addOutlook adds how much of the budget a slot holds and, while nobody is attached to it, how long the rest lasts.
func (s *SlotStatus) addOutlook(in reconcile.Input, slot model.Slot) {
	if budget, ok := in.Instance.Budget.Bytes(); ok {
		used := float64(s.Retained) / float64(max(budget, 1))
		s.BudgetUsed = &used
	}
	if left, ok := reconcile.OutlookOf(in, slot).Left(in.WALRate.Usual); ok && !slot.Active {
		s.TimeLeft = &left
	}
}

// walStatus is what is known of the WAL here. The disk ends where a slot that nobody is attached to holds WAL, and no budget
// ends before.
func walStatus(in reconcile.Input) WALStatus {
	var w WALStatus
	if b := in.Instance.Budget; b != nil {
		budget := max(b.MaxSlotWALKeepSize*model.MiB, model.Unlimited)
		w.Budget = &budget
	}
	if space := in.Instance.WALSpace; space != nil {
		w.Size, w.Free, w.WAL = &space.Size, &space.Free, &space.WAL
	}
	if in.WALRate.Known() {
		w.RateUsual, w.RatePeak = &in.WALRate.Usual, &in.WALRate.Peak
	}
	for _, slot := range in.Instance.Slots {
		o := reconcile.OutlookOf(in, slot)
		left, ok := o.Left(in.WALRate.Usual)
		if ok && o.ByDisk && slot.Reserved() && !slot.Active && (w.DiskTimeLeft == nil || left < *w.DiskTimeLeft) {
			w.DiskTimeLeft = &left
		}
	}
	return w
}

func autoRejoinStatus(who reconcile.Who) *AutoRejoinStatus {
	if who.Cluster == nil || who.Clone.ID == "" {
		return nil
	}
	c := who.Comeback(time.Now())
	s := &AutoRejoinStatus{Dearest: c.Dearest, Act: c.Act, Why: c.Why}
	if who.AutoRejoin != nil {
		s.AutoRejoin = *who.AutoRejoin
	}
	return s
}

// summarize is one honest line: what the host is, and the worst of what holds.
func summarize(s Status) string {
	line := string(s.Role)
	if s.DryRun {
		line += " (dry run)"
	}
	switch {
	case len(s.Failures) > 0:
		return fmt.Sprintf("%s; a step failed: %s: %s", line, s.Failures[0].Step, s.Failures[0].Text)
	case len(s.Planned) > 0:
		line = fmt.Sprintf("%s; to do: %s", line, strings.Join(s.Planned, "; "))
	}
	for _, severity := range []model.Severity{model.Critical, model.Warning, model.Info} {
		for _, c := range s.Conditions {
			if c.Severity == severity {
				return fmt.Sprintf("%s; %s: %s", line, c.Code, c.Text)
			}
		}
	}
	if s.Role == model.InTransition {
		return line
	}
	return line + "; all is as it should be"
}
