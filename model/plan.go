package model

import "time"

// Standing is what the local server is, when Pacemaker and PostgreSQL agree on it.
type Standing string

// A host is primary or standby only when every sign agrees; in transition nothing is done.
const (
	Primary      Standing = "primary"
	Standby      Standing = "standby"
	InTransition Standing = "in transition"
)

// Plan is what should be done on one host, in order, and what is worth saying. The same input gives the same plan.
type Plan struct {
	Host         string
	Standing     Standing
	Complete     bool // every rule was applied; else some finding says why not, and nothing says that other findings have ended
	Steps        []Step
	Findings     []Finding
	Forecast     []Forecast    // for each other member, as it will be when the steps are done
	RecheckAfter time.Duration // when to look at everything again, at the latest
}

// Step is one change to the local PostgreSQL, or of this host's node attributes. The set is sealed: CreateSlot, ReleaseXMin,
// TouchSlot, AdvanceSlot, ResetSlot, DropSlot, SetPrimarySlotName, SetWALBudget, PublishAttribute. A step is data;
// controller/postgres carries it out, and cib the last one.
//
//sumtype:decl
type Step interface {
	// Kind is the step's type by name, as printed and encoded.
	Kind() string
	// Why is the reason. Executors never branch on it.
	Why() Reason
	// Text is one line, what is changed from what to what.
	Text() string
	step()
}

// Reason tells why a step is taken: a code for machines, a sentence with figures for people.
type Reason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Guard is what must still be true when a step is carried out. It is asserted inside the SQL statement that changes
// anything, so that a change of role between looking and acting turns a step into "changed, plan again".
type Guard struct {
	SystemID     string `json:"system_id"`
	InRecovery   bool   `json:"in_recovery"`
	RedoTimeline uint32 `json:"redo_timeline"`
}

// CreateSlot makes a physical slot that reserves WAL at once, from the last checkpoint's or restartpoint's redo.
type CreateSlot struct {
	Slot   string `json:"slot"`
	Member string `json:"member"` // the host the slot is for
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// ReleaseXMin lets vacuum on: it clears the xmin of an inactive slot, and leaves the WAL that the slot holds alone.
type ReleaseXMin struct {
	Slot   string `json:"slot"`
	Member string `json:"member"`
	From   LSN    `json:"from"` // the restart_lsn seen; must still be so
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// TouchSlot uses an inactive slot without moving it, so that idle_replication_slot_timeout (PostgreSQL 18) begins anew.
type TouchSlot struct {
	Slot   string `json:"slot"`
	Member string `json:"member"`
	From   LSN    `json:"from"` // the restart_lsn seen; must still be so
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// AdvanceSlot moves an inactive slot of a standby forward, never past Redo as seen inside the statement.
type AdvanceSlot struct {
	Slot   string `json:"slot"`
	Member string `json:"member"`
	From   LSN    `json:"from"` // the restart_lsn seen; must still be so
	To     LSN    `json:"to"`
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// ResetSlot drops an inactive slot and makes it anew, reserved, in one statement. It never lets go of WAL that is held.
type ResetSlot struct {
	Slot   string `json:"slot"`
	Member string `json:"member"`
	From   LSN    `json:"from,omitempty"` // the restart_lsn seen; must still be so
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// DropSlot removes an inactive physical slot.
type DropSlot struct {
	Slot   string `json:"slot"`
	From   LSN    `json:"from,omitempty"` // the restart_lsn seen; must still be so
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// SetPrimarySlotName sets primary_slot_name by ALTER SYSTEM and reloads. Value "" leaves the server without one.
type SetPrimarySlotName struct {
	From   string `json:"from"` // the setting seen; must still be so
	To     string `json:"to"`
	Guard  Guard  `json:"guard"`
	Reason Reason `json:"reason"`
}

// PublishAttribute sets a transient node attribute of this host; To "" removes it. Nobody but this host's pgrex changes
// it: there is nothing to assert, and From is only for people to read.
type PublishAttribute struct {
	Node   string `json:"node"`
	Name   string `json:"name"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason Reason `json:"reason"`
}

func (CreateSlot) step()         {}
func (ReleaseXMin) step()        {}
func (TouchSlot) step()          {}
func (AdvanceSlot) step()        {}
func (ResetSlot) step()          {}
func (DropSlot) step()           {}
func (SetPrimarySlotName) step() {}
func (PublishAttribute) step()   {}

// Kind implements Step.
func (CreateSlot) Kind() string { return "CreateSlot" }

// Kind implements Step.
func (ReleaseXMin) Kind() string { return "ReleaseXMin" }

// Kind implements Step.
func (TouchSlot) Kind() string { return "TouchSlot" }

// Kind implements Step.
func (AdvanceSlot) Kind() string { return "AdvanceSlot" }

// Kind implements Step.
func (ResetSlot) Kind() string { return "ResetSlot" }

// Kind implements Step.
func (DropSlot) Kind() string { return "DropSlot" }

// Kind implements Step.
func (SetPrimarySlotName) Kind() string { return "SetPrimarySlotName" }

// Kind implements Step.
func (PublishAttribute) Kind() string { return "PublishAttribute" }

// Why implements Step.
func (s CreateSlot) Why() Reason { return s.Reason }

// Why implements Step.
func (s ReleaseXMin) Why() Reason { return s.Reason }

// Why implements Step.
func (s TouchSlot) Why() Reason { return s.Reason }

// Why implements Step.
func (s AdvanceSlot) Why() Reason { return s.Reason }

// Why implements Step.
func (s ResetSlot) Why() Reason { return s.Reason }

// Why implements Step.
func (s DropSlot) Why() Reason { return s.Reason }

// Why implements Step.
func (s SetPrimarySlotName) Why() Reason { return s.Reason }

// Why implements Step.
func (s PublishAttribute) Why() Reason { return s.Reason }

// Text implements Step.
func (s CreateSlot) Text() string { return "slot " + s.Slot + " for " + s.Member }

// Text implements Step.
func (s ReleaseXMin) Text() string { return "slot " + s.Slot + " for " + s.Member }

// Text implements Step.
func (s TouchSlot) Text() string { return "slot " + s.Slot + " for " + s.Member }

// Text implements Step.
func (s AdvanceSlot) Text() string {
	return "slot " + s.Slot + " for " + s.Member + ": " + s.From.String() + " -> " + s.To.String()
}

// Text implements Step.
func (s ResetSlot) Text() string { return "slot " + s.Slot + " for " + s.Member }

// Text implements Step.
func (s DropSlot) Text() string { return "slot " + s.Slot }

// Text implements Step.
func (s SetPrimarySlotName) Text() string {
	return "primary_slot_name: '" + s.From + "' -> '" + s.To + "'"
}

// Severity orders findings.
type Severity string

// A Critical finding means that the promise does not hold or nothing can be done; a Warning that it soon may not.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Finding is something worth saying that calls for no action of pgrex's own.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject,omitempty"` // a host, slot or setting
	Text     string   `json:"text"`              // what is so, and what to do
}

// Text implements Step.
func (s PublishAttribute) Text() string {
	return s.Name + ": '" + s.From + "' -> '" + s.To + "'"
}
