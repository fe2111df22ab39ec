package reconcile_test

import (
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Rapid prefers small numbers. So the smaller a number that is drawn here, the more usual what it stands for: otherwise
// nearly every cluster would be in some doubt.

// rarely is true once in about so many times.
func rarely(t *rapid.T, label string) bool { return rapid.IntRange(0, 9).Draw(t, label) == 9 }

// sometimes is true more often.
func sometimes(t *rapid.T, label string) bool { return rapid.IntRange(0, 3).Draw(t, label) == 3 }

// drawInput is a random host of a random cluster, mostly one of a known standing.
func drawInput(t *rapid.T) reconcile.Input {
	hosts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-cA-C][-.]?[0-9]{1,2}`), 2, 16, strings.ToLower).Draw(t, "hosts")
	members := hosts[:rapid.IntRange(2, len(hosts)).Draw(t, "members")]
	primary := rapid.SampledFrom(members).Draw(t, "primary")
	self := rapid.SampledFrom(members).Draw(t, "self")
	cluster := drawCluster(t, hosts, members, primary)
	policy, _ := model.PolicyOf(cluster.Clones[0])
	in := reconcile.Input{
		Node: self, Cluster: &cluster, Newest: cluster.Version,
		Instance: model.Instance{
			State: model.ServerUp, Version: 150000, SystemID: "7", InRecovery: self != primary,
			Redo: lateLSN(t, "redo"), RedoTimeline: 1, WALSegmentSize: 16 << 20,
			MaxSlots: 40 - rapid.IntRange(0, 39).Draw(t, "fewer slots"), IdleSlotTimeout: 60,
		},
	}
	in.Instance.Current = in.Instance.Redo + model.LSN(rapid.IntRange(0, 64<<20).Draw(t, "since redo"))
	drawWAL(t, &in.Instance)
	drawOperation(t, &in, hosts)
	names := policy.SlotNames()
	in.Instance.Slots = drawSlots(t, policy, names)
	in.Instance.MaxSlots = max(in.Instance.MaxSlots, len(in.Instance.Slots))
	var ownNames []string
	for _, m := range policy.Members {
		ownNames = append(ownNames, names[m])
		if rapid.Bool().Draw(t, "sends") {
			in.Instance.Senders = append(in.Instance.Senders, model.WALSender{ApplicationName: m, PID: 5, State: "streaming"})
		}
	}
	in.Instance.PrimarySlotName = rapid.SampledFrom(append(ownNames, "", "other")).Draw(t, "primary_slot_name")
	if rarely(t, "synchronized_standby_slots") {
		in.Instance.SynchronizedStandbySlots = []string{ownNames[0], "other"}
	}
	if self != primary {
		in.Upstream = drawUpstream(t, ownNames, names[strings.ToLower(primary)])
		in.Upstream.SynchronizedStandbySlots = in.Instance.SynchronizedStandbySlots
		if !sometimes(t, "does not stream") {
			in.Instance.Receiver = &model.WALReceiver{Status: "streaming", SlotName: in.Instance.PrimarySlotName}
		}
	}
	return in
}

func drawCluster(t *rapid.T, hosts, members []string, primary string) model.Cluster {
	clone := model.Clone{
		ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: !rarely(t, "unmanaged"),
		Parameters: map[string]string{"rep_mode": "sync", "node_list": strings.Join(members, " ")},
		Meta: map[string]string{
			model.MetaOrphans:      rapid.SampledFrom([]string{"report", "drop"}).Draw(t, "orphans"),
			model.MetaStandbySlots: map[bool]string{false: "keep", true: "none"}[rarely(t, "no slots on standbys")],
			model.MetaWALBudget:    rapid.SampledFrom([]string{"50%", "80%", "100%", "160MB", "1GB", "unlimited"}).Draw(t, "policy of the budget"),
			model.MetaXMinAge:      rapid.SampledFrom([]string{"1000", "0"}).Draw(t, "age of an xmin"),
			model.MetaSlotNaming:   map[bool]string{false: "host", true: "pair"}[sometimes(t, "pair naming")],
		},
		Roles: map[string]model.Role{},
	}
	if rarely(t, "agent's slots") {
		clone.Parameters["replication_slot_name"] = "rex"
	}
	c := model.Cluster{Quorate: !rarely(t, "no quorum"), DC: hosts[0], Version: model.Version{Epoch: 10}}
	for _, h := range hosts {
		n := model.Node{Name: h, Online: h == primary || !sometimes(t, "offline")}
		if h != primary {
			clone.Roles[h] = model.RoleStopped
			if n.Online && !sometimes(t, "stopped") {
				clone.Roles[h] = model.RoleUnpromoted
			}
			n.Permanent = map[string]string{"pgsql-data-status": rapid.SampledFrom(
				[]string{"STREAMING|SYNC", "STREAMING|ASYNC", "CATCHUP|ASYNC", "DISCONNECT"}).Draw(t, "data status")}
		}
		if h == primary {
			clone.Roles[h] = model.RolePromoted
			n.Permanent = map[string]string{"pgsql-data-status": map[bool]string{false: "LATEST", true: "DISCONNECT"}[rarely(t, "not latest")]}
			n.Transient = map[string]string{"pgsql-status": "PRI"}
		}
		if n.Online && sometimes(t, "published") {
			n.Transient = maps.Clone(n.Transient)
			if n.Transient == nil {
				n.Transient = map[string]string{}
			}
			n.Transient[model.ForecastAttribute("pgsql")] = drawForecast(t, members)
			if rarely(t, "by an older one, too") {
				n.Transient[model.FormerForecastAttribute] = drawForecast(t, members)
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.Clones = []model.Clone{clone}
	return c
}

// drawForecast is what a host may have published.
func drawForecast(t *rapid.T, members []string) string {
	var forecasts []model.Forecast
	for _, m := range members {
		way := rapid.SampledFrom([]model.Way{model.WayStream, model.WayRewind, model.WayCopy, model.WayUnknown, "nonsense"}).Draw(t, "way")
		forecasts = append(forecasts, model.Forecast{Host: strings.ToLower(m), Way: way})
	}
	return model.FormatForecasts(forecasts)
}

// drawOperation draws what is there of operations: a token, attributes, and what the state folder says.
func drawOperation(t *rapid.T, in *reconcile.Input, hosts []string) {
	if !rarely(t, "operations") {
		return
	}
	in.Cluster.Properties = map[string]string{model.TokenName("pgsql"): rapid.SampledFrom([]string{
		model.Token{
			Operation: "switchover", Value: strings.Repeat("1", 32),
			Host:  rapid.SampledFrom(append(slices.Clone(hosts), "gone")).Draw(t, "holder"),
			Phase: rapid.SampledFrom([]model.Phase{model.PhaseBegun, model.PhaseMaintenance, model.PhaseGiven}).Draw(t, "phase"),
		}.String(), "nonsense",
	}).Draw(t, "token")}
	in.Cluster.Maintenance = rapid.Bool().Draw(t, "in maintenance")
	if rapid.Bool().Draw(t, "begun here") {
		in.Operation = &model.LocalOperation{
			Operation: rapid.SampledFrom([]string{"rejoin", ""}).Draw(t, "here"), Running: rapid.Bool().Draw(t, "runs"),
		}
	}
	for i, n := range in.Cluster.Nodes {
		if rapid.Bool().Draw(t, "left on "+n.Name) {
			in.Cluster.Nodes[i].Transient = maps.Clone(n.Transient)
			if n.Transient == nil {
				in.Cluster.Nodes[i].Transient = map[string]string{}
			}
			in.Cluster.Nodes[i].Transient[model.OperationAttribute("pgsql")] = "rejoin"
		}
	}
}

// earlyLSN is where a slot may stand: near others in number of segments, so that they meet, and mostly early.
func earlyLSN(t *rapid.T, label string) model.LSN {
	return model.LSN(rapid.IntRange(1, 12).Draw(t, label+" segment")<<24 + rapid.IntRange(0, 1<<24-1).Draw(t, label+" offset"))
}

// lateLSN is where a server may be, or what it needs: mostly late.
func lateLSN(t *rapid.T, label string) model.LSN { return 14<<24 - earlyLSN(t, label) }

// drawWAL draws a small disk, so that what slots hold matters, and a budget that may be anything.
func drawWAL(t *rapid.T, i *model.Instance) {
	if rarely(t, "unknown disk") {
		return
	}
	size := uint64(rapid.IntRange(0, 600).Draw(t, "disk")) << 20
	i.WALSpace = &model.WALSpace{Size: size, WAL: min(size, uint64(rapid.IntRange(0, 200).Draw(t, "WAL"))<<20)}
	i.WALSpace.Free = size - i.WALSpace.WAL
	i.Budget = &model.Budget{
		MaxSlotWALKeepSize: int64(rapid.IntRange(-1, 600).Draw(t, "max_slot_wal_keep_size")),
		MaxWALSize:         int64(rapid.IntRange(2, 64).Draw(t, "max_wal_size")), WALKeepSize: int64(rapid.IntRange(0, 64).Draw(t, "wal_keep_size")),
		AutoConf: rapid.Bool().Draw(t, "auto.conf"), CommandLine: rarely(t, "command line"),
	}
	if rarely(t, "archives") {
		i.Archive = &model.Archive{
			Waiting: uint64(rapid.IntRange(0, 200).Draw(t, "to be archived")) << 20, Failing: rapid.Bool().Draw(t, "archiving fails"),
		}
	}
	if sometimes(t, "pinned") {
		i.Budget.Pinned, i.Budget.PinnedAt = "64MB", "/data/postgresql.conf line 9"
	}
}

func drawSlots(t *rapid.T, policy model.Policy, names map[string]string) []model.Slot {
	candidates := []string{"barman", policy.SlotPrefix, policy.SlotPrefix + "_gone", policy.SlotPrefix + "x"}
	for _, m := range policy.Members {
		candidates = append(candidates, names[m])
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	var slots []model.Slot
	for i, name := range candidates {
		if sometimes(t, "no "+name) {
			continue
		}
		s := model.Slot{Name: name, Type: model.SlotPhysical, RestartLSN: earlyLSN(t, name), WALStatus: "reserved"}
		switch rapid.IntRange(0, 9).Draw(t, "kind of "+name) {
		case 9:
			s.Type, s.Failover = model.SlotLogical, rapid.Bool().Draw(t, "failover slot")
		case 8:
			s.Temporary = true
		case 2:
			s.WALStatus, s.RestartLSN = "lost", 0
		case 3:
			s.WALStatus = "lost"
		case 4:
			s.WALStatus, s.RestartLSN = "", 0
		case 5:
			s.XMin, s.XMinAge = 700, uint32(rapid.IntRange(0, 2000).Draw(t, "age of xmin of "+name))
		case 6:
			s.Active, s.ActivePID = true, 100+i
		case 7:
			s.Idle = float64(rapid.IntRange(0, 100).Draw(t, "idle "+name))
		}
		slots = append(slots, s)
	}
	return slots
}

// drawUpstream: the primary has no slot for itself, mostly.
func drawUpstream(t *rapid.T, names []string, own string) *model.Upstream {
	u := &model.Upstream{Address: "192.0.2.1:5432", SystemID: "7", Timeline: 1}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		s := model.UpstreamSlot{Name: name}
		if name == own && !rarely(t, "the primary's own slot") {
			u.Slots = append(u.Slots, s)
			continue
		}
		switch rapid.IntRange(0, 5).Draw(t, "upstream "+name) {
		case 5:
		case 4:
			s.Exists = true
		default:
			s.Exists, s.RestartLSN = true, lateLSN(t, "upstream "+name)
		}
		u.Slots = append(u.Slots, s)
	}
	return u
}
