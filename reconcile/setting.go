package reconcile

import (
	"fmt"
	"slices"

	"github.com/pgrex/pgrex/model"
)

// primarySetting is rule 4 on a primary: no primary_slot_name, so that a copy of it starts clean. Where the names are
// the agent's, the agent writes the setting, too.
func (v *view) primarySetting() {
	if v.Policy.AgentSlots {
		v.say(model.CodeAgentOwnsSlots, model.Warning, v.Clone.Primitive,
			"the agent has replication_slot_name=%s: it drops the slots at each start and makes them anew, unreserved, at promote; "+
				"to hand them over, run sudo pgrex adopt here",
			v.Policy.SlotPrefix)
		return
	}
	if v.Instance.PrimarySlotName != "" {
		v.set("", "Primary", "a primary needs none, and a copy of it would start with another host's slot")
	}
}

// standbySetting is rule 4 on a standby: its own slot's name, once the primary holds that slot reserved.
func (v *view) standbySetting() {
	own := v.Names[v.Self]
	now := v.Instance.PrimarySlotName
	up, _ := v.Upstream.Slot(own)
	streaming := v.Instance.Receiver.Streaming()
	switch {
	case up.Exists && up.RestartLSN.IsValid():
		switch unheld := v.published(v.Primary, v.Self) == model.WayUnheld; {
		case unheld && now == own && !v.Policy.AgentSlots: // of PostgreSQL 16 and 17: to READ_REPLICATION_SLOT it looks alive
			v.set("", "HoldsNothing", fmt.Sprintf(
				"the primary %s says that the slot %s is lost, though this host streams through it: once this host leaves it, a new one is made", v.Primary, own))
		case unheld && now == "":
			v.waiting = true
			v.say(model.CodeSlotMissing, model.Warning, v.Self, "the slot %s on the primary %s is lost, and there is no new one yet", own, v.Primary)
		case v.dependedOn(now):
			v.say(model.CodeSlotAwaited, model.Warning, now, "this host streams through slot %s, which synchronized_standby_slots on %s names: if "+
				"it left that slot, logical replication there would wait for ever, so it stays; on %[2]s, type: ALTER SYSTEM SET "+
				"synchronized_standby_slots = '%[3]s'; SELECT pg_reload_conf(); then this host switches to %[3]s", now, v.Primary, own)
		case now != own:
			v.set(own, "OwnSlot", fmt.Sprintf("the primary %s holds WAL for this host in %s, from %s on", v.Primary, own, up.RestartLSN))
		case !streaming || v.Instance.Receiver.SlotName != own:
			v.waiting = true
			v.say(model.CodeNotAttached, model.Warning, v.Self,
				"this host does not stream through its slot %s on %s yet; if this lasts, see PostgreSQL's log here", own, v.Primary)
		}
	case v.isOthersName(now):
		v.set("", "OthersSlot", "it is another host's slot: streaming through it would let go of WAL which that host needs")
	case now == own && up.Exists && !streaming && !v.Policy.AgentSlots:
		why := fmt.Sprintf("the slot %s on %s is lost or holds nothing: without it this host may still stream, and then a new slot is made", own, v.Primary)
		if v.Instance.SyncReplicationSlots {
			why += "; until then no failover slot is synchronized here (sync_replication_slots)"
		}
		v.set("", "HoldsNothing", why)
	default:
		v.waiting = true
		v.say(model.CodeSlotMissing, model.Warning, v.Self, "the primary %s has no reserved slot %s for this host yet", v.Primary, own)
	}
}

// dependedOn reports whether this host uses a slot of somebody else's making that logical replication on the primary
// waits
// for. That it does not stream at this moment proves nothing: a walreceiver is restarted now and then.
func (v *view) dependedOn(slot string) bool {
	r := v.Instance.Receiver
	other := r.Streaming() && r.SlotName != slot
	return slot != "" && slot != v.Names[v.Self] && !v.isOthersName(slot) && !other &&
		slices.Contains(v.Upstream.SynchronizedStandbySlots, slot)
}

// isOthersName tells whether a slot's name is another member's and not this host's.
func (v *view) isOthersName(name string) bool {
	return name != v.Names[v.Self] && slices.ContainsFunc(v.Others, func(m string) bool { return v.Names[m] == name })
}

func (v *view) set(to, code, why string) {
	v.settings = append(v.settings, model.SetPrimarySlotName{
		From: v.Instance.PrimarySlotName, To: to, Guard: v.guard(),
		Reason: model.Reason{Code: code, Text: why},
	})
}
