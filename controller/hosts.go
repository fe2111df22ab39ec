package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Member is a host of the database: as the CIB shows it, and as its server, or the primary's, says. What is unknown is null
// or empty.
type Member struct {
	Host   string     `json:"host"`
	Online bool       `json:"online"`
	Role   model.Role `json:"role"`
	// Unsettled is why Pacemaker says no role: what it is doing there, or what is wrong; "" where the role is sure.
	Unsettled model.Unsettled `json:"unsettled"`
	// WithoutServer: it is unpromoted to Pacemaker, but the agent has stopped its server, as after a crash hint.
	WithoutServer bool      `json:"without_server"`
	Status        string    `json:"status"`      // the agent's <primitive>-status
	DataStatus    string    `json:"data_status"` // the agent's <primitive>-data-status
	Timeline      uint32    `json:"timeline"`
	LSN           model.LSN `json:"lsn"`         // the end of its WAL
	LagBytes      *uint64   `json:"lag_bytes"`   // from there to the end of the primary's
	LagSeconds    *float64  `json:"lag_seconds"` // pg_stat_replication.replay_lag; known on the primary only
	// Streaming reports whether WAL is sent to it, caught up or not; null for the primary. A standby knows it of itself only.
	Streaming *bool `json:"streaming"`
	// Slot is the host's slot on the primary, Slots are those on the host itself that are of members.
	Slot  *MemberSlot          `json:"slot"`
	Slots []model.UpstreamSlot `json:"slots"`
	// Asked is when its server was last asked, at Address, and Problem why it did not answer.
	Asked   *time.Time `json:"asked"`
	Address string     `json:"address"`
	Problem string     `json:"problem"`
}

// MemberSlot is a host's slot on the primary.
type MemberSlot struct {
	Name       string    `json:"name"`
	RestartLSN model.LSN `json:"restart_lsn"` // none: it holds nothing
	Retained   uint64    `json:"retained_bytes"`
	WALStatus  string    `json:"wal_status"`        // known on the primary only
	TimeLeft   *float64  `json:"time_left_seconds"` // known on the primary only
}

// hosts makes the members of a status from everything that is known on this host.
type hosts struct {
	reconcile.Who
	plan    model.Plan
	answers map[string]Answer
}

func (h hosts) members() []Member {
	members := []Member{}
	for _, host := range h.Policy.Members {
		node := h.NodeOf(host)
		unsettled, _ := h.Clone.UnsettledOn(host)
		m := Member{
			Host: host, Online: node.Online, Role: h.RoleOf(host), Unsettled: unsettled, Slots: []model.UpstreamSlot{},
			WithoutServer: h.WithoutServer(host),
			Status:        node.Attribute(h.Clone.Primitive + "-status"),
			DataStatus:    node.Attribute(h.Clone.Primitive + "-data-status"),
		}
		h.server(&m)
		h.lag(&m)
		m.Streaming = h.streaming(m)
		m.Slot = h.slot(m)
		members = append(members, m)
	}
	return members
}

// server adds what the host's own server says.
func (h hosts) server(m *Member) {
	i, u := h.Instance, h.Upstream
	answer := h.answers[m.Host]
	switch {
	case h.Is(m.Host):
		if i.State != model.ServerUp {
			return
		}
		m.Timeline, m.LSN = i.Timeline, i.End()
		for _, name := range h.Names {
			m.Slots = append(m.Slots, localSlot(i, name))
		}
	case m.Role == model.RolePromoted && u != nil:
		m.Timeline, m.LSN, m.Slots, m.Address = u.Timeline, u.Flushed, append(m.Slots, u.Slots...), u.Address
	case answer.Said != nil:
		m.Timeline, m.LSN, m.Slots = answer.Said.Timeline, answer.Said.Flushed, append(m.Slots, answer.Said.Slots...)
	}
	if !answer.At.IsZero() {
		m.Asked, m.Address = &answer.At, answer.Address
	}
	m.Problem = answer.Problem
	slices.SortFunc(m.Slots, func(a, b model.UpstreamSlot) int { return strings.Compare(a.Name, b.Name) })
	m.Slots = slices.CompactFunc(m.Slots, func(a, b model.UpstreamSlot) bool { return a.Name == b.Name })
}

// end is the end of the primary's WAL, as this host knows it; none in transition.
func (h hosts) end() model.LSN {
	switch {
	case h.Standing == model.Primary:
		return h.Instance.Current
	case h.Standing == model.Standby && h.Upstream != nil:
		return h.Upstream.Flushed
	}
	return 0
}

// lag is how far a standby is behind the primary. What the primary knows is newer than an answer of up to ten seconds ago.
func (h hosts) lag(m *Member) {
	for _, s := range h.Instance.Senders {
		if h.Standing == model.Primary && s.ApplicationName == reconcile.ApplicationName(m.Host) && s.Replicates() && s.Flushed.IsValid() {
			m.LSN, m.LagSeconds = s.Flushed, &s.ReplayLag
		}
	}
	if end := h.end(); end.IsValid() && m.LSN.IsValid() && m.Role != model.RolePromoted {
		behind := m.LSN.BytesTo(end)
		m.LagBytes = &behind
	}
}

// streaming reports whether WAL is sent to a standby; nil where this host does not know.
func (h hosts) streaming(m Member) *bool {
	var is bool
	switch {
	case m.Role == model.RolePromoted:
		return nil
	case h.Standing == model.Primary:
		var slot model.Slot
		for _, s := range h.Instance.Slots {
			if s.Name == h.Names[m.Host] {
				slot = s
			}
		}
		is = h.Attached(m.Host, slot)
	case h.Standing == model.Standby && h.Is(m.Host):
		is = h.Instance.Receiver.Streaming()
	default:
		return nil
	}
	return &is
}

// slot is the host's slot on the primary.
func (h hosts) slot(m Member) *MemberSlot {
	name := h.Names[m.Host]
	var found model.UpstreamSlot
	status := ""
	switch {
	case m.Role == model.RolePromoted:
		return nil
	case h.Standing == model.Primary:
		found = localSlot(h.Instance, name)
		for _, s := range h.Instance.Slots {
			if s.Name == name {
				status = s.WALStatus
			}
		}
	case h.Standing == model.Standby:
		found, _ = h.Upstream.Slot(name)
	}
	if !found.Exists {
		return nil
	}
	s := &MemberSlot{Name: name, RestartLSN: found.RestartLSN, WALStatus: status}
	if s.RestartLSN.IsValid() {
		s.Retained = s.RestartLSN.BytesTo(h.end())
	}
	return s
}

// localSlot is a slot here as READ_REPLICATION_SLOT would tell of it.
func localSlot(i model.Instance, name string) model.UpstreamSlot {
	for _, s := range i.Slots {
		if s.Name == name {
			answer := model.UpstreamSlot{Name: name, Exists: true, Logical: s.Type == model.SlotLogical}
			if s.Reserved() && !answer.Logical {
				answer.RestartLSN = s.RestartLSN
			}
			return answer
		}
	}
	return model.UpstreamSlot{Name: name}
}

// forecasts are those of all pairs: this host's own with the reasons, the others' as they have published them. A host that is
// offline says nothing, nor does one that runs no database; and what it has said counts only as long as its slots are there.
func (h hosts) forecasts() []model.Forecast {
	all := []model.Forecast{}
	for _, candidate := range h.Policy.Members {
		if h.Is(candidate) && len(h.plan.Forecast) > 0 {
			all = append(all, h.plan.Forecast...)
			continue
		}
		node, role := h.NodeOf(candidate), h.RoleOf(candidate)
		text := ""
		if node.Online && (role == model.RolePromoted || role == model.RoleUnpromoted) && !h.WithoutServer(candidate) {
			text = h.ForecastOf(candidate)
		}
		for _, host := range h.Policy.Members {
			if host == candidate {
				continue
			}
			f := model.Forecast{Candidate: candidate, Host: host, Way: model.ForecastIn(text, host)}
			if (f.Way == model.WayStream || f.Way == model.WayRewind) && h.holdsNothing(candidate, host) {
				f.Way, f.Why = model.WayUnknown, fmt.Sprintf("%s has said %s, but its slot %s holds nothing: does pgrex run there?",
					candidate, model.ForecastIn(text, host), h.Names[host])
			}
			all = append(all, f)
		}
	}
	return all
}

// holdsNothing tells whether a candidate has said that its slot for a host is not there, or reserves nothing.
func (h hosts) holdsNothing(candidate, host string) bool {
	said := h.answers[candidate].Said
	if h.RoleOf(candidate) == model.RolePromoted {
		said = h.Upstream
	} else if !h.Policy.StandbySlots || h.Policy.AgentSlots {
		return false
	}
	if said == nil {
		return false
	}
	i := slices.IndexFunc(said.Slots, func(s model.UpstreamSlot) bool { return s.Name == h.Names[host] })
	return i >= 0 && !said.Slots[i].RestartLSN.IsValid()
}
