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
	Version string         `json:"version"`
	Node    string         `json:"node"`
	DryRun  bool           `json:"dry_run"`
	Started time.Time      `json:"started"`
	Looked  time.Time      `json:"looked"` // at the local server
	Read    time.Time      `json:"read"`   // the CIB and the upstream
	Summary string         `json:"summary"`
	Healthy bool           `json:"healthy"`
	Role    model.Standing `json:"role"`
	Members []Member       `json:"members"`
	Server  ServerStatus   `json:"server"`
	Slots   []SlotStatus   `json:"slots"` // the local physical ones
	// Conditions are the findings that hold; Planned the steps not done yet; Failures those that failed last.
	Conditions []Condition `json:"conditions"`
	Planned    []string    `json:"planned"`
	Failures   []Failure   `json:"failures"`
	StepsDone  uint64      `json:"steps_done"` // since the daemon's start
	LastStep   *StepDone   `json:"last_step,omitempty"`
}

// StepDone is a step that was carried out.
type StepDone struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

// Member is a host of the database, as the CIB shows it.
type Member struct {
	Host       string     `json:"host"`
	Online     bool       `json:"online"`
	Role       model.Role `json:"role"`
	Status     string     `json:"status"`      // the agent's <primitive>-status
	DataStatus string     `json:"data_status"` // the agent's <primitive>-data-status
}

// ServerStatus is the local PostgreSQL.
type ServerStatus struct {
	State           model.ServerState `json:"state"`
	Timeline        uint32            `json:"timeline"` // of the last checkpoint or restartpoint
	Current         model.LSN         `json:"current"`
	PrimarySlotName string            `json:"primary_slot_name"`
	Streaming       bool              `json:"streaming"`      // a standby: WAL is being received
	StreamingSlot   string            `json:"streaming_slot"` // through this slot
}

// SlotStatus is a local slot.
type SlotStatus struct {
	Name       string    `json:"name"`
	Member     string    `json:"member"` // whose it is; "" for one that is no member's
	Active     bool      `json:"active"`
	RestartLSN model.LSN `json:"restart_lsn"`
	Retained   uint64    `json:"retained_bytes"` // WAL from restart_lsn to the end of WAL
	WALStatus  string    `json:"wal_status"`
}

func statusOf(in reconcile.Input, plan model.Plan, held []Condition, failures []Failure, dryRun bool) Status {
	s := Status{
		Node: in.Node, DryRun: dryRun, Role: plan.Standing, Conditions: append([]Condition{}, held...),
		Members: []Member{}, Slots: []SlotStatus{}, Planned: []string{}, Failures: append([]Failure{}, failures...),
		Server: ServerStatus{
			State: in.Instance.State, Timeline: in.Instance.RedoTimeline, Current: in.Instance.Current,
			PrimarySlotName: in.Instance.PrimarySlotName, Streaming: in.Instance.Receiver.Streaming(),
		},
	}
	if s.Server.Streaming {
		s.Server.StreamingSlot = in.Instance.Receiver.SlotName
	}
	for _, step := range plan.Steps {
		s.Planned = append(s.Planned, step.Kind()+" "+step.Text())
	}
	s.addCluster(in)
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
func (s *Status) addCluster(in reconcile.Input) {
	owners := map[string]string{}
	if in.Cluster != nil {
		if clone, err := reconcile.Database(*in.Cluster, in.Resource); err == nil {
			policy, _ := model.PolicyOf(clone)
			names := policy.SlotNames()
			for _, host := range policy.Members {
				node, _ := in.Cluster.Node(host)
				role, _ := clone.Role(host)
				s.Members = append(s.Members, Member{
					Host: host, Online: node.Online, Role: role,
					Status:     node.Attribute(clone.Primitive + "-status"),
					DataStatus: node.Attribute(clone.Primitive + "-data-status"),
				})
				if !strings.EqualFold(host, in.Node) {
					owners[names[host]] = host
				}
			}
		}
	}
	for _, slot := range in.Instance.Slots {
		if slot.Type != model.SlotPhysical {
			continue
		}
		status := SlotStatus{Name: slot.Name, Member: owners[slot.Name], Active: slot.Active,
			RestartLSN: slot.RestartLSN, WALStatus: slot.WALStatus}
		if slot.Reserved() {
			status.Retained = slot.RestartLSN.BytesTo(in.Instance.Current)
		}
		s.Slots = append(s.Slots, status)
	}
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
