package reconcile

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// hysteresis: a budget that differs by less than one in so many parts is left as it is, so that other files which grow and
// shrink cost no write. For the same reason the most that is ever set leaves that part of what would fit: a disk that gives
// less makes the difference large enough before the budget does not fit any more.
const hysteresis = 10

// maxSetting is the highest value of max_slot_wal_keep_size (PostgreSQL: MAX_KILOBYTES), in MB.
const maxSetting = 1<<31 - 1

// memorySetting is a size as PostgreSQL takes it for a setting; it takes more than that, and pgrex does not rely on it.
var memorySetting = regexp.MustCompile(`^\s*-?[0-9]+(\.[0-9]+)?\s*(B|kB|MB|GB|TB)?\s*$`)

// budget is rule 7: max_slot_wal_keep_size as the policy says, so that PostgreSQL keeps to it when pgrex is down, too. What an
// operator wrote into a file of his own is his, and counts.
func (v *view) budget() {
	i := v.Instance
	if i.WALProblem != "" {
		v.say(model.CodeWALSpaceUnknown, model.Warning, v.Self, "it is not known how much WAL fits here, so that no budget is set: %s", i.WALProblem)
	}
	b := i.Budget
	switch {
	case b == nil:
	case b.Pinned != "" && !memorySetting.MatchString(b.Pinned):
		v.say(model.CodeBudgetPinned, model.Critical, "max_slot_wal_keep_size", "%s sets it to '%s', which is no size as PostgreSQL takes it, such as "+
			"20GB: where no later line hides it PostgreSQL does not start any more; mend it there", b.PinnedAt, b.Pinned)
	case b.CommandLine || b.Pinned != "" && !b.AutoConf:
		v.pinned()
	case b.Pinned != "":
		if v.mayDestroy { // what counts then may be less
			v.settings = append(v.settings, model.SetWALBudget{From: b.MaxSlotWALKeepSize, To: b.MaxSlotWALKeepSize, Reset: true, Guard: v.guard(),
				Reason: model.Reason{Code: "Pinned", Text: fmt.Sprintf("%s sets it to %s: an operator's own value counts", b.PinnedAt, b.Pinned)}})
		}
	case v.Policy.WALBudget.Unlimited:
		if b.MaxSlotWALKeepSize != model.Unlimited {
			v.setBudget(model.Unlimited, false, model.MetaWALBudget+"=unlimited")
		}
	case i.WALSpace != nil:
		v.fitBudget()
	}
}

// pinned says that the budget is an operator's own, and what is wrong with it.
func (v *view) pinned() {
	b := v.Instance.Budget
	where := b.PinnedAt
	if b.CommandLine {
		where = "PostgreSQL's command line"
	}
	const instead = "take it out there to have " + model.MetaWALBudget + " count"
	now := model.FormatMegabytes(b.MaxSlotWALKeepSize)
	most, known := v.ceiling()
	switch {
	case b.MaxSlotWALKeepSize < 0:
		v.say(model.CodeBudgetPinned, model.Warning, "max_slot_wal_keep_size",
			"%s sets it to %s: the slot of a host that stays away can fill this host's disk; %s", where, now, instead)
	case known && b.MaxSlotWALKeepSize > most:
		v.say(model.CodeBudgetPinned, model.Warning, "max_slot_wal_keep_size",
			"%s sets it to %s, but the file system of pg_wal can give %s to slots: it may be full before the budget ends; %s",
			where, now, model.FormatMegabytes(most), instead)
	default:
		v.say(model.CodeBudgetPinned, model.Info, "max_slot_wal_keep_size", "%s sets it to %s, which is left as it is; %s", where, now, instead)
	}
}

// fitBudget sets the budget where it differs enough from what it should be. Raising it harms nobody, as long as it
// fits. Lowering it may have PostgreSQL give slots up at the next checkpoint, or soon: while they hold nearly as much
// as the policy grants, or more, a budget that the disk can give is left, and one that it cannot give, or no budget
// at all, is lowered to the most that it can, with room to spare where what is held leaves any. That protects the
// disk, so that it is done in doubt, too. What slots hold is what is left when this plan's other steps are done:
// where one has failed, a lower budget that none would feel must wait; not so where the disk cannot give the present
// one.
func (v *view) fitBudget() {
	now := v.Instance.Budget.MaxSlotWALKeepSize
	usual, most, floor := v.wantedBudget()
	ceiling, _ := v.ceiling()
	fits := now >= 0 && now <= ceiling
	held := v.held()
	heldBack := float64(held) > nearlySpentShare*float64(usual)*model.MiB
	target := usual
	costs := held > uint64(most)*model.MiB // to leave room to spare would cost a slot
	if over := now - ceiling; costs && now >= 0 && over*hysteresis <= now {
		fits = true // nearly: other files come and go
	}
	if heldBack && !fits {
		target = most
		if all := ceiling - ceiling%v.segmentMegabytes(); v.heldWithin(all) > uint64(most)*model.MiB {
			target = max(floor, all)
		}
	}
	off := max(target-now, now-target)
	near := now >= floor && (off*hysteresis <= now || fits && off <= v.segmentMegabytes()) // WAL comes in whole segments
	raises := now >= 0 && target > now
	switch {
	case near || target == now, !raises && fits && heldBack, raises && target > ceiling:
	case !raises && now >= 0 && v.stuck() > 0 && v.costs(target) != "": // the WAL would stay all the same
	case now < 0 && held > uint64(target)*model.MiB && !v.diskEnds():
		v.say(model.CodeBudgetWaits, model.Critical, model.MetaWALBudget, "no budget is set yet: the most that the disk can give, %s, would cost %s; bring "+
			"their owners back, drop a slot, or make room; when less than half of max_wal_size is free, it is set all the same",
			model.FormatMegabytes(target), v.costs(target))
	case raises, v.mayDestroy, !fits:
		why := model.MetaWALBudget + "=" + v.Policy.WALBudget.String()
		if target != int64(v.Policy.WALBudget.Bytes/model.MiB) {
			why += ", and the file system of pg_wal has about " + model.FormatMegabytes(v.even(v.room()-v.stuck())) + " for WAL, free or in use by it"
		}
		if costs := v.costs(target); costs != "" && !raises {
			why += "; the disk cannot give what is held, so that this costs " + costs
		}
		v.setBudget(target, !raises && (fits || now < 0) && held <= uint64(target)*model.MiB, why)
	}
}

func (v *view) setBudget(to int64, lossless bool, why string) {
	v.settings = append(v.settings, model.SetWALBudget{From: v.Instance.Budget.MaxSlotWALKeepSize, To: to, Lossless: lossless, Guard: v.guard(),
		Reason: model.Reason{Code: "Budget", Text: why}})
}

// wantedBudget is what the policy comes to on this file system, the most that fits there with room to spare, and what
// PostgreSQL needs to run: it keeps up to max_wal_size between checkpoints, and wal_keep_size always, so that less would
// cost slots of hosts that only restart. All in MB.
func (v *view) wantedBudget() (usual, most, floor int64) {
	b := v.Instance.Budget
	segment := v.segmentMegabytes()
	floor = (min(max(b.MaxWALSize, b.WALKeepSize, 1), maxSetting-segment) + segment - 1) / segment * segment
	ceiling, _ := v.ceiling()
	free := max(0, ceiling-v.stuck())
	most = max(floor, v.even(free-free/hysteresis))
	wish := max(0, v.room()-v.stuck()) * int64(v.Policy.WALBudget.Percent) / 100
	if v.Policy.WALBudget.Percent == 0 {
		wish = int64(v.Policy.WALBudget.Bytes / model.MiB)
		if wish > most {
			v.say(model.CodeWALSpaceShort, model.Warning, model.MetaWALBudget, "%s is %s, but the file system of pg_wal can give %s to slots: this counts",
				model.MetaWALBudget, v.Policy.WALBudget, model.FormatMegabytes(most))
		}
	}
	if ceiling < floor {
		v.say(model.CodeWALSpaceShort, model.Critical, "pg_wal", "the file system of pg_wal has %s for WAL: that is too little for max_wal_size and "+
			"for as much held by slots (%s each, or wal_keep_size); enlarge it, make room, or lower max_wal_size",
			model.FormatMegabytes(v.room()), model.FormatMegabytes(floor))
	}
	return max(floor, min(v.even(wish), most)), most, floor
}

// room is what the file system has for WAL, in MB: what is free, and what is WAL already. The rest is other files'.
func (v *view) room() int64 {
	s := v.Instance.WALSpace
	return int64(min(s.Free/model.MiB+s.WAL/model.MiB, maxSetting))
}

// stuck returns the WAL that waits to be archived, in MB. It stays whatever slots hold, and takes space from them. A
// little WAL always waits: it counts only while archiving fails, or is more than max_wal_size behind.
func (v *view) stuck() int64 {
	a, b := v.Instance.Archive, v.Instance.Budget
	if a == nil || b == nil || !a.Failing && a.Waiting <= uint64(b.MaxWALSize)*model.MiB {
		return 0
	}
	return int64(min(a.Waiting/model.MiB, maxSetting))
}

// archiving reports that archiving fails or does not keep up.
func (v *view) archiving() {
	a := v.Instance.Archive
	if a == nil || a.Waiting == 0 || !a.Failing && v.stuck() == 0 { // an old failure is none while nothing waits
		return
	}
	text, severity := "archiving does not keep up", model.Warning
	if a.Failing {
		text = fmt.Sprintf("archive_command fails, last for %s, and nothing has been archived for %s", a.FailedWAL, model.FormatSeconds(a.Since))
	}
	text += fmt.Sprintf(": %s of WAL waits for it and stays in pg_wal, where slots cannot use the space", model.FormatBytes(a.Waiting))
	if s := v.Instance.WALSpace; s != nil {
		text += fmt.Sprintf("; %s is free", model.FormatBytes(s.Free))
		if left, known := model.Lasts(s.Free, v.WALRate.Usual); known {
			text += fmt.Sprintf(", which lasts for about %s at %s/s", model.FormatSeconds(left), model.FormatBytes(uint64(v.WALRate.Usual)))
		}
		if v.Instance.Budget != nil && v.diskEnds() {
			severity = model.Critical
		}
	}
	v.say(model.CodeArchiveFails, severity, "archive_command", "%s; PostgreSQL stops when the disk is full: look for "+
		"the reason in its log, and mend archiving", text)
}

// ceiling is the highest budget that fits the disk, in MB: between two checkpoints PostgreSQL writes up to max_wal_size beside
// what slots hold.
func (v *view) ceiling() (mb int64, known bool) {
	if v.Instance.WALSpace == nil || v.Instance.Budget == nil {
		return 0, false
	}
	return max(0, v.room()-v.Instance.Budget.MaxWALSize), true
}

// even rounds down to a number of segments with few digits, at most a sixteenth less, so that figures which differ by little
// give the same budget.
func (v *view) even(mb int64) int64 {
	const parts = 32
	step := v.segmentMegabytes()
	for step*parts <= mb {
		step *= 2
	}
	return mb - mb%step
}

func (v *view) segmentMegabytes() int64 {
	return int64(min(max(v.Instance.WALSegmentSize/model.MiB, 1), model.MiB))
}

// diskEnds reports whether less is free than PostgreSQL may write before a lower budget has an effect: it gives slots
// up at the end of a checkpoint, and begins one when about half of max_wal_size is written.
func (v *view) diskEnds() bool {
	return int64(v.Instance.WALSpace.Free/model.MiB) < v.Instance.Budget.MaxWALSize/2
}

// costs names the slots that hold more than a budget in MB, with what they hold; "" for none.
func (v *view) costs(budget int64) string {
	var texts []string
	holds := v.heldBySlot()
	for _, name := range slices.Sorted(maps.Keys(holds)) {
		if holds[name] > uint64(budget)*model.MiB {
			texts = append(texts, fmt.Sprintf("slot %s (%s)", name, model.FormatBytes(holds[name])))
		}
	}
	return strings.Join(texts, ", ")
}

// heldWithin is held of the slots that a budget in MB costs nothing.
func (v *view) heldWithin(budget int64) (most uint64) {
	for _, bytes := range v.heldBySlot() {
		if budget >= 0 && bytes <= uint64(budget)*model.MiB {
			most = max(most, bytes)
		}
	}
	return most
}

// held is how many bytes of WAL the slot that holds most holds when this plan is done.
func (v *view) held() (most uint64) {
	for _, bytes := range v.heldBySlot() {
		most = max(most, bytes)
	}
	return most
}

// heldBySlot is how many bytes of WAL each slot holds when this plan is done, ours or not: a budget is for all.
// PostgreSQL counts whole segments.
func (v *view) heldBySlot() map[string]uint64 {
	from := map[string]model.LSN{}
	for _, s := range v.slots {
		if s.Reserved() {
			from[s.Name] = s.RestartLSN
		}
	}
	for _, step := range slices.Concat(v.creates, v.advances, v.resets, v.drops) {
		switch s := step.(type) {
		case model.CreateSlot:
			from[s.Slot] = v.Instance.ReservesFrom()
		case model.ResetSlot:
			from[s.Slot] = v.Instance.ReservesFrom()
		case model.AdvanceSlot:
			from[s.Slot] = s.To
		case model.DropSlot:
			delete(from, s.Slot)
		case model.ReleaseXMin, model.TouchSlot, model.SetPrimarySlotName, model.SetWALBudget, model.PublishAttribute: // hold what they held
		}
	}
	holds := map[string]uint64{}
	for name, l := range from {
		holds[name] = l.BytesTo(v.Instance.End()) + v.Instance.WALSegmentSize
	}
	return holds
}
