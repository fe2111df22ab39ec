package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// maxApplicationName is NAMEDATALEN-1: PostgreSQL cuts a longer application_name.
const maxApplicationName = 63

// ApplicationName is how a member's walreceiver is known to the primary: the agent makes it of the host's name.
func ApplicationName(member string) string { return member[:min(len(member), maxApplicationName)] }

func (v *view) slot(name string) (model.Slot, bool) {
	i := slices.IndexFunc(v.slots, func(s model.Slot) bool { return s.Name == name })
	if i < 0 {
		return model.Slot{}, false
	}
	return v.slots[i], true
}

// primarySlot is rule 1 on a primary: a reserved slot for every other member, whatever its owner does.
func (v *view) primarySlot(member string) {
	name := v.Names[member]
	if v.Policy.AgentSlots && name != v.Policy.AgentSlotName(member) {
		v.say(model.CodeNameCollision, model.Critical, member,
			"the agent's slot name for %s, %s, is shared, too long or invalid: give the hosts names that differ in letters and digits",
			member, v.Policy.AgentSlotName(member))
		return
	}
	s, ok := v.usableSlot(name, member)
	if !ok {
		return
	}
	switch {
	case s.Lost():
		v.lost(s, member)
		v.lostOnPrimary(s, member)
	case !s.Reserved():
		v.reset(s, member, "Unreserved", "has no restart_lsn: it holds nothing")
	case !s.Active:
		text := fmt.Sprintf("%s does not stream through its slot %s, which holds %s of WAL for it", member, name, v.retained(s))
		if outlook := OutlookOf(v.Input, s).String(); outlook != "" {
			text += ": " + outlook
		}
		v.say(model.CodeNotAttached, model.Warning, member, "%s", text)
		v.xminHeld(s, member)
		v.touch(s, member)
	}
}

// lostOnPrimary is rule 5 for a slot whose owner's WAL is gone: made anew when that helps, not while it would only
// fill the disk once more for a host that needs a copy anyway. The agent's slots are made anew at once (rule 8): with
// them the owner cannot stream without its slot.
func (v *view) lostOnPrimary(s model.Slot, member string) {
	size := v.Instance.WALSegmentSize
	idle := s.InvalidationReason == "idle_timeout" // PostgreSQL 18, which leaves it its position: older WAL may be gone all the same
	switch {
	case s.RestartLSN.IsValid() && (!idle || s.RestartLSN.Segment(size) >= v.Instance.Redo.Segment(size)):
		// PostgreSQL 16 and 17 let an owner attach that caught up elsewhere; the slot then moves but holds nothing.
		v.reset(s, member, "LooksAlive", "is lost and only looks alive again: it holds nothing")
	case v.Policy.AgentSlots:
		v.reset(s, member, "Lost", "is lost: the agent makes its owner use it all the same")
	case v.streamsWithout(member, s):
		v.reset(s, member, "Lost", "is lost, but "+member+" streams without it")
	default:
		v.say(model.CodeRebuildRequired, model.Critical, member,
			"slot %s is lost: WAL that %s needs is gone here; it comes back from an archive or with a copy: on %[2]s, type: "+
				"sudo pgrex rejoin", s.Name, member)
	}
}

// streamsWithout tells whether the member is attached to this primary by another way than its slot.
func (v *view) streamsWithout(member string, s model.Slot) bool {
	application := ApplicationName(member)
	return slices.ContainsFunc(v.Instance.Senders, func(w model.WALSender) bool {
		return w.ApplicationName == application && w.State == "streaming" && w.PID != s.ActivePID
	})
}

// standbySlot is rules 1, 3 and 5 on a standby: a reserved slot for every other member, held where a failover would
// need it.
func (v *view) standbySlot(member string) {
	if v.Policy.AgentSlots {
		return
	}
	if !v.Policy.StandbySlots {
		if s, ok := v.slot(v.Names[member]); ok && s.Type == model.SlotPhysical && !s.Temporary && !v.isOwnName(s.Name) {
			v.drop(s, "StandbySlots", model.MetaStandbySlots+"=none: only the primary has slots")
		}
		return
	}
	s, ok := v.usableSlot(v.Names[member], member)
	if !ok {
		return
	}
	need, known := v.need(member)
	switch {
	case s.Lost():
		v.lost(s, member)
		if known {
			v.reset(s, member, "Lost", "is lost, and the primary holds WAL for "+member+" again")
		}
	case !s.Reserved():
		v.reset(s, member, "Unreserved", "has no restart_lsn: it holds nothing")
	default:
		if s.HoldsXMin() {
			v.release(s, member, "the slot holds vacuum back on the whole cluster with an xmin from when this host was primary")
		}
		if !known {
			v.say(model.CodeSlotMissing, model.Info, member,
				"the primary %s has no reserved slot for %s yet: the one here is held where it is", v.Primary, member)
		} else if v.advance(s, member, need) {
			return
		}
		v.touch(s, member)
	}
}

// release plans to let vacuum on. On a standby the xmin of a slot is left over from when this host was primary, and its
// hot_standby_feedback makes the whole cluster heed it; on a primary its owner has been away for long.
func (v *view) release(s model.Slot, member, why string) {
	switch {
	case s.Active:
		v.busy(s, "released from its xmin")
	case v.mayDestroy:
		v.releases = append(v.releases, model.ReleaseXMin{Slot: s.Name, Member: member, From: s.RestartLSN, Guard: v.guard(),
			Reason: model.Reason{Code: "XminHeld", Text: fmt.Sprintf("%s; its WAL, from %s on, is not let go by this", why, s.RestartLSN)}})
	}
}

// touch plans to use a slot where it stands, before PostgreSQL 18 takes it for abandoned: half of the timeout leaves time
// for a pgrex that is restarted. That changes nothing else, so that it is done in doubt, too.
func (v *view) touch(s model.Slot, member string) {
	timeout := v.Instance.IdleSlotTimeout
	if s.Active || timeout <= 0 || s.Idle < timeout/2 {
		return
	}
	v.touches = append(v.touches, model.TouchSlot{Slot: s.Name, Member: member, From: s.RestartLSN, Guard: v.guard(),
		Reason: model.Reason{Code: "Idle", Text: fmt.Sprintf(
			"nobody has used it for %.0f s, and after %.0f s PostgreSQL would invalidate it (idle_replication_slot_timeout)", s.Idle, timeout)}})
}

// need is the position from which a failover to this host would need WAL for a member (rule 3). For the primary that
// is this host's own last restartpoint: pg_rewind reads from the last common checkpoint on. For another standby it is
// what that one has confirmed to the primary.
func (v *view) need(member string) (model.LSN, bool) {
	if member == v.Primary {
		return v.Instance.Redo, true
	}
	s, ok := v.Upstream.Slot(v.Names[member])
	return s.RestartLSN, ok && s.Exists && s.RestartLSN.IsValid()
}

// advance moves a slot forward to the need, never past this host's own redo, and only when that lets a whole WAL
// segment go. A slot that stands beyond the redo, as those of an old primary do, is made anew, which takes it back there:
// that adds to what it holds. It tells whether the slot is changed.
func (v *view) advance(s model.Slot, member string, need model.LSN) bool {
	size, redo := v.Instance.WALSegmentSize, v.Instance.Redo
	target := min(need, redo)
	if s.RestartLSN.Segment(size) > v.Instance.ReservesFrom().Segment(size) {
		return v.reset(s, member, "BeyondRedo", fmt.Sprintf(
			"stands at %s, but a failover may need WAL from the last restartpoint here on, %s", s.RestartLSN, redo))
	}
	if s.RestartLSN.Segment(size) > need.Segment(size) {
		v.say(model.CodeHoldNotProtective, model.Info, member,
			"slot %s here starts at %s, but %s needs WAL from %s: after a failover to this host now, %s would need an archive or a copy",
			s.Name, s.RestartLSN, member, need, member)
		return false
	}
	if s.RestartLSN.Segment(size) >= target.Segment(size) || !v.mayDestroy || !v.confirms(member) {
		return false
	}
	if s.Active {
		v.busy(s, "advanced")
		return false
	}
	v.advances = append(v.advances, model.AdvanceSlot{
		Slot: s.Name, Member: member, From: s.RestartLSN, To: target, Guard: v.guard(),
		Reason: model.Reason{Code: "Released", Text: fmt.Sprintf(
			"%s needs WAL from %s on only, and the last restartpoint here is at %s: %s need not be held any more",
			member, need, v.Instance.Redo, model.FormatBytes(s.RestartLSN.BytesTo(target)))},
	})
	return true
}

// confirms tells whether a member's need can have moved on: the primary's has with every restartpoint here, another
// standby's only while its server runs and the primary's agent sees it attached. Otherwise, if its slot on the primary has
// moved on, then because it was made anew there, further on than its owner needs, and this host may be the only one that
// still holds what the owner does need.
func (v *view) confirms(member string) bool {
	node := v.NodeOf(member)
	state, _, _ := strings.Cut(node.Attribute(v.Clone.Primitive+dataStatusSuffix), "|")
	attached := state == dataStreaming || state == dataCatchup
	return member == v.Primary || node.Online && v.RoleOf(member) == model.RoleUnpromoted && attached
}

// usableSlot finds the slot that is ours by name. Where there is none it plans one; one that squats on the name is
// never touched.
func (v *view) usableSlot(name, member string) (model.Slot, bool) {
	s, ok := v.slot(name)
	switch {
	case !ok:
		v.creates = append(v.creates, model.CreateSlot{
			Slot: name, Member: member, Guard: v.guard(),
			Reason: model.Reason{Code: "Missing", Text: fmt.Sprintf(
				"%s has no slot here; it is reserved from %s on, the redo of the last checkpoint", member, v.Instance.ReservesFrom())},
		})
	case s.Type != model.SlotPhysical || s.Temporary:
		v.say(model.CodeNameCollision, model.Critical, name,
			"a %s slot has the name of %s's slot and is not touched: drop it, or choose another %s",
			kindOf(s), member, model.MetaSlotPrefix)
	default:
		return s, true
	}
	return model.Slot{}, false
}

func kindOf(s model.Slot) string {
	if s.Temporary {
		return "temporary " + string(s.Type)
	}
	return string(s.Type)
}

// ownSlot is rule 2: no slot of ours for this host itself. With pair naming both hosts' slots share one name, and with
// the agent's names nothing is dropped.
func (v *view) ownSlot() {
	if v.Policy.AgentSlots || v.isSharedName() {
		return
	}
	if s, ok := v.slot(v.Names[v.Self]); ok && s.Type == model.SlotPhysical && !s.Temporary {
		v.drop(s, "Own", "no host needs a slot for itself")
	}
}

func (v *view) isOwnName(name string) bool { return name == v.Names[v.Self] && !v.isSharedName() }

func (v *view) isSharedName() bool {
	return slices.ContainsFunc(v.Others, func(m string) bool { return v.Names[m] == v.Names[v.Self] })
}

// orphans is rule 6: slots under our prefix whose host is no member. Others that nobody uses are told of, too, because they
// hold WAL: they may be ours of another prefix.
func (v *view) orphans() {
	taken := make(map[string]bool, len(v.Names))
	for _, m := range v.Policy.Members {
		taken[v.Names[m]] = true
	}
	for _, s := range v.slots {
		former := v.formerlyOf(s.Name)
		switch {
		case taken[s.Name] || s.Temporary:
		case !v.Policy.OwnsName(s.Name) || s.Type != model.SlotPhysical:
			v.foreign(s)
		case former != "":
			v.say(model.CodeOrphan, model.Warning, s.Name, "no member has a slot of this name by now, but %s may have had; it holds %s of WAL, which that "+
				"host may need until it streams through its slot %s: drop it then, or set %s=drop",
				former, v.retained(s), v.Names[former], model.MetaOrphans)
		case !v.Policy.DropOrphans || v.Policy.AgentSlots:
			v.say(model.CodeOrphan, model.Warning, s.Name,
				"no member has a slot of this name; it holds %s of WAL: drop it, or set %s=drop", v.retained(s), model.MetaOrphans)
		case !v.drop(s, "Orphan", "no member has a slot of this name, and "+model.MetaOrphans+"=drop"):
			v.say(model.CodeOrphan, model.Warning, s.Name,
				"no member has a slot of this name; it holds %s of WAL, and is dropped as soon as nothing forbids it", v.retained(s))
		}
	}
}

// formerlyOf is a member that does not stream through its slot by now, and may have had this one, under another naming or beside
// other members; "" for none.
func (v *view) formerlyOf(name string) string {
	for _, member := range v.Others {
		s, _ := v.slot(v.Names[member])
		streams := s.Active || v.Instance.InRecovery && v.confirms(member)
		if v.Policy.CouldName(name, member) && !streams {
			return member
		}
	}
	return ""
}

// foreign reports a slot that pgrex does not manage. pgrex leaves it alone, but the budget applies to it.
func (v *view) foreign(s model.Slot) {
	held := fmt.Sprintf("pgrex does not manage this %s slot, which holds %s of WAL", kindOf(s), v.retained(s))
	if budget, limited := v.Instance.Budget.Bytes(); limited {
		held += fmt.Sprintf("; beyond %s PostgreSQL gives it up (max_slot_wal_keep_size)", model.FormatBytes(budget))
	}
	idle := ""
	if !s.Active {
		idle = "; nobody is attached to it: drop it if nobody needs it"
	}
	switch {
	case s.Lost():
		v.say(model.CodeSlotLost, model.Warning, s.Name, "PostgreSQL has invalidated this slot, which pgrex has nothing to do with: its owner may "+
			"have to begin anew; drop it if nobody needs it")
	case s.Synced: // the standby's own copy of a slot of the primary
	case s.Failover && v.Instance.InRecovery:
		v.say(model.CodeFailoverSlotLeft, model.Warning, s.Name, "this failover slot is left over from when this host was "+
			"the primary: it holds %s of WAL, and "+
			"the primary's slot of this name cannot be synchronized (sync_replication_slots); drop it here: SELECT "+
			"pg_drop_replication_slot('%s')",
			v.retained(s), s.Name)
	case !s.Reserved():
	case s.Failover:
		v.say(model.CodeForeignSlot, model.Info, s.Name, "%s; after a failover only a standby with sync_replication_slots "+
			"= on has it%s", held, idle)
	case !v.Instance.InRecovery:
		v.say(model.CodeForeignSlot, model.Info, s.Name, "%s; only this host has it: after a failover its owner finds no "+
			"slot%s", held, idle)
	case !s.Active:
		v.say(model.CodeForeignSlot, model.Info, s.Name, "%s%s", held, idle)
	}
}

// awaited reports the slots that logical replication waits for on this primary (synchronized_standby_slots), and why.
func (v *view) awaited() {
	severity := model.Warning
	if slices.ContainsFunc(v.slots, func(s model.Slot) bool { return s.Failover }) {
		severity = model.Critical // it waits now
	}
	for _, name := range v.Instance.SynchronizedStandbySlots {
		s, ok := v.slot(name)
		said := slices.ContainsFunc(v.findings, func(f model.Finding) bool { return f.Code == model.CodeSlotAwaited && f.Subject == name })
		switch {
		case said: // that it is not dropped
		case v.isOwnName(name):
			v.say(model.CodeSlotAwaited, severity, name, "synchronized_standby_slots names this host's own slot, which no primary has: logical "+
				"replication through failover slots waits for ever; name only the other hosts' slots")
		case !ok:
			v.say(model.CodeSlotAwaited, severity, name, "synchronized_standby_slots names a slot that does not exist: "+
				"logical replication through "+
				"failover slots waits for it; remove the name, or create the slot")
		case s.Lost() || !s.Active:
			v.say(model.CodeSlotAwaited, severity, name, "synchronized_standby_slots names this slot, and nobody is attached to it: logical "+
				"replication through failover slots waits until its owner is back, or the name is removed")
		}
	}
}

// reset plans to drop a slot and make it anew, unless something forbids it. It tells whether it does.
func (v *view) reset(s model.Slot, member, code, why string) bool {
	switch {
	case s.Active:
		v.busy(s, "made anew")
	case v.mayDestroy:
		v.resets = append(v.resets, model.ResetSlot{Slot: s.Name, Member: member, From: s.RestartLSN, Guard: v.guard(),
			Reason: model.Reason{Code: code, Text: "the slot " + why}})
		return true
	}
	return false
}

// drop plans to remove a slot, unless something forbids it. It tells whether it does.
func (v *view) drop(s model.Slot, code, why string) bool {
	switch {
	case s.Active:
		v.busy(s, "dropped")
	case !v.Instance.InRecovery && slices.Contains(v.Instance.SynchronizedStandbySlots, s.Name):
		v.say(model.CodeSlotAwaited, model.Warning, s.Name,
			"slot %s is not dropped (%s), because synchronized_standby_slots names it: logical replication would wait for it for ever; "+
				"take it out there first", s.Name, why)
	case v.mayDestroy:
		v.drops = append(v.drops, model.DropSlot{Slot: s.Name, From: s.RestartLSN, Guard: v.guard(),
			Reason: model.Reason{Code: code, Text: fmt.Sprintf("%s; WAL it holds (%s) goes with the next checkpoint here", why, v.retained(s))}})
		return true
	}
	return false
}

// busy says that a slot stays as it is because it is attached. A walsender is never ended for it.
func (v *view) busy(s model.Slot, wanted string) {
	v.say(model.CodeSlotBusy, model.Info, s.Name, "slot %s is in use by process %d and is not %s before that ends",
		s.Name, s.ActivePID, wanted)
}

// retained is how much WAL a slot holds back, for people.
func (v *view) retained(s model.Slot) string {
	if !s.Reserved() {
		return "none"
	}
	return model.FormatBytes(v.Instance.Held(s))
}
