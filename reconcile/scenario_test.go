package reconcile_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// A scenario is a txtar archive: what it shows, then "cluster", "instance", "upstream" (on a standby), "want", the plan
// as people read it, and, where it is about that, "forecast". The lines of each are what the readers below take. Three
// hosts, pm01 to pm03, sync.
type scenario struct {
	t         *testing.T
	in        reconcile.Input
	forecasts bool // it is about forecasts
}

func parseScenario(t *testing.T, archive *txtar.Archive) reconcile.Input {
	t.Helper()
	s := &scenario{t: t}
	s.in.Instance = model.Instance{
		State: model.ServerUp, Version: 150000, SystemID: "7", Redo: 0x5000000, RedoTimeline: 1, Current: 0x6000000,
		WALSegmentSize: 16 << 20, MaxSlots: 10,
	}
	for _, f := range archive.Files {
		line := map[string]func([]string){"cluster": s.cluster, "instance": s.instance, "upstream": s.upstream}[f.Name]
		for text := range strings.Lines(string(f.Data)) {
			if words := strings.Fields(text); line != nil && len(words) > 0 {
				line(words)
			}
		}
	}
	if s.in.Cluster != nil && s.in.Newest == (model.Version{}) {
		s.in.Newest = s.in.Cluster.Version
	}
	return s.settled()
}

// settled is the input with the forecast published as it is, unless the scenario is about forecasts.
func (s *scenario) settled() reconcile.Input {
	plan, err := reconcile.Plan(s.in)
	if err != nil || s.forecasts {
		return s.in
	}
	for _, step := range plan.Steps {
		if p, ok := step.(model.PublishAttribute); ok && p.Name == model.ForecastAttribute("pgsql") {
			return published(s.in, p.Node, p.Name, p.To)
		}
	}
	return s.in
}

// cluster reads: "HOST ROLE|ACTION STATUS DATA-STATUS [unclean|failed|blocked|MARK...]", "no-dc", "lock PATH",
// "location NODE SCORE [ROLE]", "kept-stopped NODE", "without-primary SECONDS", "HOST offline|maintenance", "HOST
// joining STATUS", "epoch N", "newest N", "no-quorum", "maintenance", "unmanaged", "param NAME=VALUE", "meta
// NAME=VALUE", "conditional NAME",
// "published HOST TEXT|-", "formerly HOST TEXT" (under the former name), "database ID" (another one), "token TEXT"
// (with "value" alone for its value), "operation NAME running|left [WHO]" (of this host), "attribute HOST OPERATION",
// "pacemaker VERSION", "called NAME", "silent WHY", "unasked WHY" (of Pacemaker's own name for this host).
func (s *scenario) cluster(words []string) {
	if s.in.Cluster == nil {
		s.in.Cluster = &model.Cluster{Quorate: true, DC: "pm01", Version: model.Version{Epoch: 10}, Clones: []model.Clone{{
			ID: "msPostgresql", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql", Managed: true,
			Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02 pm03"},
			Meta:       map[string]string{}, Roles: map[string]model.Role{},
		}}}
	}
	c := s.in.Cluster
	clone := &c.Clones[0]
	switch words[0] {
	case "pacemaker":
		s.in.Versions.Pacemaker = words[1]
	case "called":
		s.in.LocalName.Name = words[1]
	case "silent":
		s.in.LocalName.Problem = strings.Join(words[1:], " ")
	case "unasked":
		s.in.LocalName.NotAsked = strings.Join(words[1:], " ")
	case "token":
		text := strings.Join(words[1:], " ")
		if strings.HasSuffix(text, " value") {
			text += "=" + strings.Repeat("1", 32)
		}
		c.Properties = map[string]string{model.TokenName("pgsql"): text}
	case "operation":
		if words[1] == "none" {
			s.in.Operation = &model.LocalOperation{}
			break
		}
		s.in.Operation = &model.LocalOperation{
			Operation: words[1], Running: words[2] == "running", Who: strings.Join(words[3:], " "),
			Begun: time.Date(2026, 11, 30, 3, 20, 11, 0, time.UTC),
		}
	case "attribute":
		s.in = published(s.in, words[1], model.OperationAttribute("pgsql"), words[2])
	case "no-dc":
		c.DC = ""
	case "location":
		l := model.Location{ID: "constraint", Node: words[1], Score: words[2]}
		if len(words) > 3 {
			l.Role = words[3]
		}
		clone.Locations = append(clone.Locations, l)
	case "kept-stopped":
		clone.Locations = append(clone.Locations, model.Location{ID: model.StopConstraint("pgsql", words[1]), Node: words[1], Score: "-INFINITY"})
	case "kept-away": // by a constraint of that id
		clone.Locations = append(clone.Locations, model.Location{ID: words[2], Node: words[1], Score: "-INFINITY"})
	case "without-primary":
		s.in.WithoutPrimary = float64(s.number(words[1]))
	case "lock":
		s.in.Lock = words[1]
	case "no-quorum":
		c.Quorate = false
	case "maintenance":
		c.Maintenance, clone.Managed = true, false
	case "unmanaged":
		clone.Managed = false
	case "epoch":
		c.Version.Epoch = s.number(words[1])
	case "newest":
		s.in.Newest.Epoch = s.number(words[1])
	case "param", "meta":
		name, value, _ := strings.Cut(strings.Join(words[1:], " "), "=")
		map[string]map[string]string{"param": clone.Parameters, "meta": clone.Meta}[words[0]][name] = value
	case "published":
		s.forecasts = true
		if words[2] != "-" {
			s.in = published(s.in, words[1], model.ForecastAttribute("pgsql"), words[2])
		}
	case "formerly":
		s.in = published(s.in, words[1], model.FormerForecastAttribute, words[2])
	case "database":
		other := model.Clone{ID: "ms_" + words[1], Primitive: words[1], Agent: clone.Agent, Managed: true}
		c.Clones, s.in.Resource = append(c.Clones, other), clone.Primitive
	case "conditional":
		clone.Conditional = append(clone.Conditional, words[1])
	default:
		s.node(words)
	}
}

func (s *scenario) node(words []string) {
	n := model.Node{Name: words[0], Online: true, Transient: map[string]string{}, Permanent: map[string]string{}}
	switch words[1] {
	case "offline":
		n.Online = false
	case "joining":
		n.Online = false
		n.Transient["pgsql-status"] = words[2]
	case "maintenance":
		n.Maintenance = true
	default:
		n.Transient["pgsql-status"] = words[2]
		n.Permanent["pgsql-data-status"] = words[3]
		n.Unclean = len(words) > 4 && words[4] == "unclean"
		n.Online = !n.Unclean
		s.instanceOn(n, words[1], s.marks(&n, words[4:]))
	}
	s.in.Cluster.Nodes = append(s.in.Cluster.Nodes, n)
}

// marks reads "standby", "offline" (but for the attributes), "score=N", "failed=N" (the fail-count) and "data=HEX"
// (where
// they end), and returns the other marks.
func (s *scenario) marks(n *model.Node, marks []string) (others []string) {
	for _, mark := range marks {
		name, value, _ := strings.Cut(mark, "=")
		switch name {
		case "standby":
			n.Standby = true
		case "offline":
			n.Online, n.Transient = false, map[string]string{}
		case "score":
			n.Transient["master-pgsql"] = value
		case "failed":
			if value == "" {
				others = append(others, mark)
				continue
			}
			n.Transient["fail-count-pgsql#monitor_9000"] = value
		case "data":
			n.Transient["pgsql-xlog-loc"] = value
		default:
			others = append(others, mark)
		}
	}
	return others
}

// instanceOn enters what Pacemaker says of a host's instance: a role, an action under way in place of one, or a role
// with what is wrong, as in "promoted PRI LATEST failed". On a node that is not online there is no role.
func (s *scenario) instanceOn(n model.Node, word string, marks []string) {
	clone := &s.in.Cluster.Clones[0]
	role := model.Role(word)
	settled := slices.Contains([]model.Role{model.RolePromoted, model.RoleUnpromoted, model.RoleStopped}, role)
	if settled && n.Online {
		clone.Roles[n.Name] = role
	}
	why := model.Unsettled("")
	switch {
	case !settled || !n.Online && role != model.RoleStopped:
		why = model.Unsettled(word)
	case len(marks) > 0 && n.Online:
		why = model.Unsettled(marks[0])
	}
	if why != "" {
		if clone.Unsettled == nil {
			clone.Unsettled = map[string]model.Unsettled{}
		}
		clone.Unsettled[n.Name] = why
	}
}

// instance reads: "host NAME", "in-recovery", "down WHY", "version N", "system ID", "redo LSN TIMELINE", "at LSN",
// "crash PID given|failed WHY" (what became of the crash hint), "received LSN", "no-rewind WHY", "slots N", "idle-timeout SECONDS", "synchronized SLOT...", "sync-slots",
// "application_name
// NAME", what "wal" reads, "primary_slot_name NAME", "receiver SLOT", "sender HOST PID", "slot NAME LSN|- MARK...".
func (s *scenario) instance(words []string) {
	i := &s.in.Instance
	switch words[0] {
	case "host":
		s.in.Node = words[1]
	case "in-recovery":
		i.InRecovery = true
	case "down", "unreachable":
		i.State, i.Problem = model.ServerState(words[0]), strings.Join(words[1:], " ")
	case "crash":
		s.in.Crash = &model.CrashHint{
			At: time.Date(2026, 11, 30, 3, 20, 11, 0, time.UTC), PID: int32(s.number(words[1])),
			Given: words[2] == "given", Failed: words[2] == "failed", Why: strings.Join(words[3:], " "),
		}
	case "version":
		i.Version = int(s.number(words[1]))
	case "system":
		i.SystemID = words[1]
	case "redo":
		i.Redo, i.RedoTimeline = s.lsn(words[1]), uint32(s.number(words[2]))
	case "reserves":
		i.Reserves = s.lsn(words[1])
	case "at":
		i.Current = s.lsn(words[1])
	case "received":
		i.Received = s.lsn(words[1])
	case "no-rewind":
		i.NoRewind = strings.Join(words[1:], " ")
	case "idle-timeout":
		i.IdleSlotTimeout = float64(s.number(words[1]))
	case "synchronized":
		i.SynchronizedStandbySlots = words[1:]
	case "slots":
		i.MaxSlots = int(s.number(words[1]))
	case "sync-slots":
		i.SyncReplicationSlots = true
	case "disk", "budget", "rate", "archive":
		s.wal(words)
	case "application_name":
		i.ApplicationName = words[1]
	case "primary_slot_name":
		i.PrimarySlotName = words[1]
	case "receiver":
		i.Receiver = &model.WALReceiver{Status: "streaming", SlotName: words[1]}
	case "sender":
		i.Senders = append(i.Senders, model.WALSender{ApplicationName: words[1], PID: int(s.number(words[2])), State: "streaming"})
	case "slot":
		i.Slots = append(i.Slots, s.slot(words[1:]))
	default:
		s.t.Fatalf("scenario: unknown line %q", words)
	}
}

// wal reads "disk SIZE FREE WAL" and "budget NOW MAX-WAL-SIZE WAL-KEEP-SIZE [auto] [command-line] [pinned=VALUE]", all
// in MB, "rate USUAL PEAK" in bytes a second, and "archive WAITING [failing SEGMENT SECONDS]".
func (s *scenario) wal(words []string) {
	i := &s.in.Instance
	n := func(at int) int64 { return s.number(words[at]) }
	switch words[0] {
	case "disk":
		i.WALSpace = &model.WALSpace{Size: uint64(n(1)) << 20, Free: uint64(n(2)) << 20, WAL: uint64(n(3)) << 20}
	case "budget":
		i.Budget = &model.Budget{MaxSlotWALKeepSize: n(1), MaxWALSize: n(2), WALKeepSize: n(3)}
		for _, mark := range words[4:] {
			i.Budget.AutoConf = i.Budget.AutoConf || mark == "auto"
			i.Budget.CommandLine = i.Budget.CommandLine || mark == "command-line"
			if value, ok := strings.CutPrefix(mark, "pinned="); ok {
				i.Budget.Pinned, i.Budget.PinnedAt = value, "/data/postgresql.conf line 9"
			}
		}
	case "archive":
		i.Archive = &model.Archive{Waiting: uint64(n(1)) << 20}
		if len(words) > 2 {
			i.Archive.Failing, i.Archive.FailedWAL, i.Archive.Since = true, words[3], float64(n(4))
		}
	case "rate":
		s.in.WALRate = model.WALRate{Usual: float64(n(1)), Peak: float64(n(2)), Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	}
}

func (s *scenario) slot(words []string) model.Slot {
	slot := model.Slot{Name: words[0], Type: model.SlotPhysical, RestartLSN: s.lsn(words[1])}
	for _, mark := range words[2:] {
		switch mark {
		case "active":
			slot.Active, slot.ActivePID = true, 100
		case "xmin":
			slot.XMin = 700
		case "logical":
			slot.Type = model.SlotLogical
		case "idle_timeout":
			slot.WALStatus, slot.InvalidationReason = "lost", mark
		case "temporary":
			slot.Temporary = true
		case "failover":
			slot.Failover = true
		case "synced":
			slot.Synced = true
		default:
			if age, ok := strings.CutPrefix(mark, "xmin="); ok {
				slot.XMin, slot.XMinAge = 700, uint32(s.number(age))
				continue
			}
			if idle, ok := strings.CutPrefix(mark, "idle="); ok {
				slot.Idle = float64(s.number(idle))
				continue
			}
			slot.WALStatus = mark
		}
	}
	return slot
}

// upstream reads: "unreachable WHY", "system ID TIMELINE", "in-recovery", "slot NAME LSN|-|missing", "synchronized
// SLOT...".
func (s *scenario) upstream(words []string) {
	if words[0] == "unreachable" {
		s.in.UpstreamProblem = strings.Join(words[1:], " ")
		return
	}
	if s.in.Upstream == nil {
		s.in.Upstream = &model.Upstream{Address: "192.0.2.100:5432"}
	}
	u := s.in.Upstream
	switch words[0] {
	case "system":
		u.SystemID, u.Timeline = words[1], uint32(s.number(words[2]))
	case "in-recovery":
		u.InRecovery = true
	case "synchronized":
		u.SynchronizedStandbySlots = words[1:]
	case "slot":
		slot := model.UpstreamSlot{Name: words[1], Exists: words[2] != "missing"}
		if slot.Exists {
			slot.RestartLSN = s.lsn(words[2])
		}
		u.Slots = append(u.Slots, slot)
	}
}

func (s *scenario) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.t.Fatalf("scenario: %v", err)
	}
	return n
}

func (s *scenario) lsn(text string) model.LSN {
	if text == "-" {
		return 0
	}
	l, err := model.ParseLSN(text)
	if err != nil {
		s.t.Fatalf("scenario: %v", err)
	}
	return l
}

// published is the input with a node's attribute in the CIB.
func published(in reconcile.Input, node, name, text string) reconcile.Input {
	c := *in.Cluster
	c.Nodes = slices.Clone(c.Nodes)
	for i, n := range c.Nodes {
		if n.Name == node {
			c.Nodes[i].Transient = maps.Clone(n.Transient)
			if n.Transient == nil {
				c.Nodes[i].Transient = map[string]string{}
			}
			c.Nodes[i].Transient[name] = text
			if text == "" {
				delete(c.Nodes[i].Transient, name)
			}
		}
	}
	in.Cluster = &c
	return in
}

// after is the input as it would be with a step carried out by a real server.
func after(in reconcile.Input, step model.Step) reconcile.Input {
	slots := make(map[string]model.Slot, len(in.Instance.Slots))
	for _, s := range in.Instance.Slots {
		slots[s.Name] = s
	}
	fresh := func(name string) model.Slot {
		return model.Slot{Name: name, Type: model.SlotPhysical, RestartLSN: in.Instance.ReservesFrom(), WALStatus: "reserved"}
	}
	switch s := step.(type) {
	case model.CreateSlot:
		slots[s.Slot] = fresh(s.Slot)
	case model.AdvanceSlot:
		slot := slots[s.Slot]
		slot.RestartLSN, slot.Idle = s.To, 0
		slots[s.Slot] = slot
	case model.ReleaseXMin:
		slot := slots[s.Slot]
		slot.XMin, slot.XMinAge, slot.CatalogXMin, slot.Idle = 0, 0, 0, 0
		slots[s.Slot] = slot
	case model.TouchSlot:
		slot := slots[s.Slot]
		slot.Idle = 0
		slots[s.Slot] = slot
	case model.ResetSlot:
		slots[s.Slot] = fresh(s.Slot)
	case model.DropSlot:
		delete(slots, s.Slot)
	case model.SetPrimarySlotName:
		in.Instance.PrimarySlotName = s.To
	case model.PublishAttribute:
		return published(in, s.Node, s.Name, s.To)
	case model.SetWALBudget:
		budget := *in.Instance.Budget
		budget.MaxSlotWALKeepSize, budget.AutoConf = s.To, !s.Reset
		in.Instance.Budget = &budget
	default:
		panic(fmt.Sprintf("unknown step %T", step))
	}
	in.Instance.Slots = nil
	for _, s := range slots {
		in.Instance.Slots = append(in.Instance.Slots, s)
	}
	return in
}
