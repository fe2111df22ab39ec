package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// forecast tells for each other member how it would come back if this host were promoted now; on the primary, how it comes
// back as things are. It speaks of the state after the plan's own steps, so that doing them does not change it.
func (v *view) forecast(standing model.Standing) []model.Forecast {
	doubt := v.doubt(standing)
	var all []model.Forecast
	for _, member := range v.Others {
		f := model.Forecast{Candidate: v.Self, Host: member}
		switch {
		case doubt != "":
			f.Way, f.Why = model.WayUnknown, "nothing can be said while this holds: "+string(doubt)
		case standing == model.Primary:
			f.Way, f.Why = v.backToPrimary(member)
		case member == v.Primary:
			f.Way, f.Why = v.primaryBack()
		default:
			f.Way, f.Why = v.standbyBack(member)
		}
		all = append(all, f)
	}
	return all
}

// doubts are the findings that say that what was seen of the cluster or the primary may not be so.
var doubts = []model.Code{
	model.CodeUpstreamUnknown, model.CodeOtherSystem, model.CodeNoQuorum, model.CodeCIBStale, model.CodePrimaryDiffers,
}

// doubt is the finding that makes a forecast a guess, if there is one.
func (v *view) doubt(standing model.Standing) model.Code {
	for _, f := range v.findings {
		if slices.Contains(doubts, f.Code) {
			return f.Code
		}
	}
	if standing == model.InTransition {
		return model.CodeInTransition
	}
	// Before the first restartpoint on a new timeline, positions compare only if this host already follows it.
	if r, u := v.Instance.Receiver, v.Upstream; standing == model.Standby && u.Timeline != v.Instance.RedoTimeline &&
		(!r.Streaming() || r.Timeline != u.Timeline) {
		return model.CodeTimelineDiffers
	}
	return ""
}

// published is what a candidate's node attribute says of a host.
func (v *view) published(candidate, host string) model.Way {
	return model.ForecastIn(v.ForecastOf(candidate), host)
}

// ForecastOf returns what a candidate has published; "" for nothing. The former name wins, if the cluster has only this
// database: an older pgrex runs on that node then, because a newer one removes it.
func (w Who) ForecastOf(candidate string) string {
	node := w.NodeOf(candidate)
	if former := node.Attribute(model.FormerForecastAttribute); former != "" && w.oneDatabase() {
		return former
	}
	return node.Attribute(model.ForecastAttribute(w.Clone.Primitive))
}

func (w Who) oneDatabase() bool { return len(databasesOf(*w.Cluster)) == 1 }

// backToPrimary: a member that streams from here follows this host's timeline. Of one that does not, the last forecast
// still holds as long as its slot does: it may be the primary of before, or never have had these data.
func (v *view) backToPrimary(member string) (model.Way, string) {
	s, ok := v.slot(v.Names[member])
	said := v.published(v.Self, member)
	switch attached := v.Attached(member, s); {
	case attached && ok && s.Lost() && s.Active && !v.Policy.AgentSlots:
		return model.WayUnheld, "it streams from here, but through its slot, which PostgreSQL has given up: nothing is held for it"
	case attached:
		return model.WayStream, "it streams from here"
	case ok && s.Lost():
		return model.WayCopy, "WAL that it needs is gone here: its slot is lost"
	case !ok || !s.Reserved() || s.Type != model.SlotPhysical || s.Temporary:
		return model.WayUnknown, "no slot holds WAL for it here, and it does not stream"
	case said == model.WayStream:
		return said, fmt.Sprintf("its slot holds WAL for it from %s on", s.RestartLSN)
	case said == model.WayRewind:
		return said, fmt.Sprintf("its slot holds WAL for it from %s on, but it has not streamed since this host was promoted: its data may have parted from the primary's", s.RestartLSN)
	case said == model.WayCopy:
		return said, "its slot was lost, and it has not streamed since"
	}
	return model.WayUnknown, fmt.Sprintf("its slot holds WAL from %s on, but it has not streamed from here yet", s.RestartLSN)
}

// Attached reports whether a member's database receives WAL from this host; s is its slot. While it does not run, what is
// attached is pg_basebackup: the data that are there now get nothing from that.
func (w Who) Attached(member string, s model.Slot) bool {
	application := ApplicationName(member)
	return w.RoleOf(member) == model.RoleUnpromoted && slices.ContainsFunc(w.Instance.Senders, func(sender model.WALSender) bool {
		return sender.Replicates() && (sender.ApplicationName == application || s.Active && sender.PID == s.ActivePID)
	})
}

// primaryBack: the primary may have written what this host never got, so that it needs pg_rewind, which reads from the last
// common checkpoint on (trap 4).
func (v *view) primaryBack() (model.Way, string) {
	size, redo := v.Instance.WALSegmentSize, v.Instance.Redo
	from, held := v.holds(v.Primary)
	switch {
	case !held:
		return model.WayCopy, "no slot here holds WAL for it"
	case v.noRewind() != "":
		return model.WayCopy, "pg_rewind cannot be used: " + v.noRewind()
	case from.Segment(size) > redo.Segment(size):
		return model.WayUnknown, fmt.Sprintf("its slot here stands at %s, but pg_rewind may need WAL from the last restartpoint here on, %s", from, redo)
	}
	return model.WayRewind, fmt.Sprintf("its slot here holds WAL from %s on, and the last restartpoint here is at %s", from, redo)
}

// standbyBack: another standby goes on where it is, if this host holds WAL from there on and is not behind it.
func (v *view) standbyBack(member string) (model.Way, string) {
	size := v.Instance.WALSegmentSize
	from, held := v.holds(member)
	need, known := v.need(member)
	said := v.published(v.Primary, member)
	switch {
	case said == model.WayCopy && (known || !held):
		return model.WayCopy, fmt.Sprintf("the primary %s has lost WAL that it needs", v.Primary)
	case !known && said != model.WayStream && v.published(v.Self, member) == model.WayCopy:
		return model.WayCopy, "WAL that it needs was gone here already when that was last known"
	case !known:
		return model.WayUnknown, fmt.Sprintf("the primary %s has no WAL reserved for it, so that nobody knows what it needs", v.Primary)
	case from.Segment(size) > need.Segment(size):
		return model.WayCopy, fmt.Sprintf("WAL is held here from %s on, but it needs WAL from %s on", from, need)
	case said == model.WayRewind:
		return v.rewound(fmt.Sprintf("it has not streamed from the primary %s yet: its data may have parted from the primary's", v.Primary))
	case said == model.WayUnknown:
		return model.WayUnknown, fmt.Sprintf("the primary %s has WAL reserved for it from %s on, but has not said that it streams from there", v.Primary, need)
	case v.behind(member, need):
		return v.rewound(fmt.Sprintf("it has WAL up to %s, and this host only up to %s", need, v.Instance.End()))
	}
	return model.WayStream, fmt.Sprintf("WAL is held here from %s on, and it needs WAL from %s on", from, need)
}

// noRewind returns why pg_rewind cannot bring a host back once this one is the primary; "" if it can. If the timeline
// stays the same at a promotion, pg_rewind does not see that the data has diverged.
func (v *view) noRewind() string {
	const name = model.ParamRestartOnPromote
	keeps, _ := model.ParseBool(v.Clone.Parameters[name])
	switch {
	case v.Instance.NoRewind != "":
		return v.Instance.NoRewind
	case keeps:
		return "the agent keeps the timeline at a promotion (" + name + ")"
	case slices.Contains(v.Clone.Conditional, name):
		return "a rule sets " + name + ", and the agent may keep the timeline at a promotion"
	}
	return ""
}

func (v *view) rewound(why string) (model.Way, string) {
	if no := v.noRewind(); no != "" {
		return model.WayCopy, why + ", and pg_rewind cannot be used: " + no
	}
	return model.WayRewind, why
}

// behind tells whether a member has WAL that this standby has not. The two positions are not of the same moment: a whole
// segment between them is needed to say so, and none to take it back, so that the answer is steady under load.
func (v *view) behind(member string, need model.LSN) bool {
	size := v.Instance.WALSegmentSize
	its, own := need.Segment(size), v.Instance.End().Segment(size)
	return its > own+1 || its > own && v.published(v.Self, member) == model.WayRewind
}

// holds is from where on this standby has WAL for a member, and whether a slot holds it, once the steps are done. Without a
// slot there is the WAL since the last restartpoint, at the moment of a promotion.
func (v *view) holds(member string) (from model.LSN, held bool) {
	name := v.Names[member]
	s, ok := v.slot(name)
	switch {
	case v.Policy.AgentSlots, !v.Policy.StandbySlots:
		return v.Instance.Redo, false
	case slices.ContainsFunc(slices.Concat(v.creates, v.resets), func(s model.Step) bool { return makes(s) == name }):
		return v.Instance.ReservesFrom(), true
	case ok && s.Type == model.SlotPhysical && !s.Temporary && s.Reserved():
		return s.RestartLSN, true
	}
	return v.Instance.Redo, false
}

// makes is the slot that a step makes.
func makes(step model.Step) string {
	switch s := step.(type) {
	case model.CreateSlot:
		return s.Slot
	case model.ResetSlot:
		return s.Slot
	case model.ReleaseXMin, model.TouchSlot, model.AdvanceSlot, model.DropSlot, model.SetPrimarySlotName, model.SetWALBudget, model.PublishAttribute:
	}
	return ""
}

// publish plans to put the forecast where every host sees it, when it differs from what is there. In doubt the last one stays:
// after a failover it is what the new primary knows of those who are away. A primary takes back what only the slot stood for that
// it makes anew, in doubt too, and before it makes it: nobody could see afterwards that it is another.
func (v *view) publish(standing model.Standing, forecasts []model.Forecast) (first, last []model.Step) {
	takenBack := v.takenBack(standing)
	if v.doubt(standing) != "" {
		if len(takenBack) == 0 {
			return nil, nil
		}
		forecasts = takenBack
	}
	step := v.publication(forecasts)
	if len(takenBack) > 0 {
		return step, nil
	}
	return nil, step
}

// takenBack is what is published with what new slots on a primary cannot keep taken back; none where there is nothing of that.
func (v *view) takenBack(standing model.Standing) (forecasts []model.Forecast) {
	if standing != model.Primary {
		return nil
	}
	made := map[string]bool{}
	for _, s := range slices.Concat(v.creates, v.resets) {
		made[makes(s)] = true
	}
	any := false
	for _, member := range v.Others {
		f := model.Forecast{Candidate: v.Self, Host: member, Way: v.published(v.Self, member)}
		if way, why := v.backToPrimary(member); made[v.Names[member]] && comesBack(f.Way) && !comesBack(way) {
			f.Way, f.Why = way, why
			any = true
		}
		forecasts = append(forecasts, f)
	}
	if !any {
		return nil
	}
	return forecasts
}

func comesBack(way model.Way) bool { return way == model.WayStream || way == model.WayRewind }

// publication is the step that publishes forecasts; none where that is published.
func (v *view) publication(forecasts []model.Forecast) []model.Step {
	if len(forecasts) == 0 {
		return nil
	}
	node, name := v.Here, model.ForecastAttribute(v.Clone.Primitive)
	now, want := node.Attribute(name), model.FormatForecasts(forecasts)
	if now == want {
		return v.withoutFormer()
	}
	var changes []string
	for _, f := range forecasts {
		if now == "" || f.Way != model.ForecastIn(now, f.Host) {
			changes = append(changes, f.Host+": "+f.Why)
		}
	}
	if len(changes) == 0 {
		changes = append(changes, "it names other hosts, or is not understood")
	}
	return append([]model.Step{model.PublishAttribute{
		Node: node.Name, Name: name, From: now, To: want,
		Reason: model.Reason{Code: "Forecast", Text: strings.Join(changes, "; ")},
	}}, v.withoutFormer()...)
}

// withoutFormer returns the step that removes this host's attribute of the former name, once the forecast is published
// under the new one. It returns none with several databases: the attribute may be another database's.
func (v *view) withoutFormer() []model.Step {
	former := v.Here.Attribute(model.FormerForecastAttribute)
	if former == "" || !v.oneDatabase() {
		return nil
	}
	return []model.Step{model.PublishAttribute{
		Node: v.Here.Name, Name: model.FormerForecastAttribute, From: former, To: "",
		Reason: model.Reason{Code: "FormerName", Text: "the forecast is published as " + model.ForecastAttribute(v.Clone.Primitive)},
	}}
}
