package model

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Cluster is what one partition's CIB says, read at one moment.
type Cluster struct {
	Version     Version `json:"version"`
	Quorate     bool    `json:"quorate"` // have-quorum of the partition that answered; see HasQuorum
	DC          string  `json:"dc"`      // the designated controller's node name; "" while there is none
	Maintenance bool    `json:"maintenance"`
	// StopAll: stop-all-resources is true, or a rule may make it so.
	StopAll bool `json:"stop_all_resources,omitempty"`
	// Properties are the cluster options (crm_config), the highest-scored set winning.
	Properties map[string]string `json:"properties,omitempty"`
	// MaintenanceAt is where crm_config sets maintenance-mode without a rule; the zero value means nowhere. Only an
	// operation needs it, and an operation reads the CIB itself. So no snapshot has it.
	MaintenanceAt OptionAt `json:"-"`
	Nodes         []Node   `json:"nodes"`  // in order of name
	Clones        []Clone  `json:"clones"` // the promotable ones, in order of id, then primitive
}

// HasQuorum reports whether the partition that answered has the quorum. Pacemaker keeps have-quorum on disk, and not the
// DC. So what a host shows that has just booted is from before, as is all else in its CIB, until there is a DC
// (pacemaker-based, readCibXmlFile; seen with 2.1.5 and 3.0.0).
func (c Cluster) HasQuorum() bool { return c.Quorate && c.DC != "" }

// OptionAt is where a cluster option is set: the id of the set, and that of the pair in it.
type OptionAt struct{ Set, ID string }

// Version orders CIBs: Pacemaker compares admin_epoch, then epoch, then num_updates.
type Version struct {
	AdminEpoch int64 `json:"admin_epoch"`
	Epoch      int64 `json:"epoch"`
	NumUpdates int64 `json:"num_updates"`
}

// ConfigurationOlder tells whether v's configuration is older than o's. num_updates does not count: it starts again
// from zero when the whole cluster restarts, while admin_epoch and epoch are kept on disk and never go back.
func (v Version) ConfigurationOlder(o Version) bool {
	return cmp.Or(cmp.Compare(v.AdminEpoch, o.AdminEpoch), cmp.Compare(v.Epoch, o.Epoch)) < 0
}

// Node is a cluster node as Pacemaker sees it.
type Node struct {
	Name        string `json:"name"`
	ID          string `json:"id"`
	Online      bool   `json:"online"`
	Standby     bool   `json:"standby"`
	Maintenance bool   `json:"maintenance"`
	Pending     bool   `json:"pending"`
	Unclean     bool   `json:"unclean"` // failed and not fenced yet: what ran there may still run
	// Permanent attributes live in the configuration and survive a reboot; Transient ones end with the membership.
	Permanent map[string]string `json:"permanent,omitempty"`
	Transient map[string]string `json:"transient,omitempty"`
}

// Attribute is the node attribute's value as Pacemaker uses it: the transient one wins. "" when it is not set.
func (n Node) Attribute(name string) string {
	if v, ok := n.Transient[name]; ok {
		return v
	}
	return n.Permanent[name]
}

// Role is the state of a promotable clone's instance, in Pacemaker's words.
type Role string

// The roles that pgrex tells apart. A node of which Pacemaker does not say one has no entry among Clone.Roles.
const (
	RolePromoted   Role = "promoted"
	RoleUnpromoted Role = "unpromoted"
	RoleStopped    Role = "stopped"
)

// Unsettled is why an instance's role proves nothing: what Pacemaker is doing to the instance, or what is wrong with
// it.
type Unsettled string

// The reasons, in Pacemaker's words. On a node that is not online, the last known role is the reason if there is one.
const (
	UnsettledStarting   Unsettled = "starting"
	UnsettledPromoting  Unsettled = "promoting"
	UnsettledDemoting   Unsettled = "demoting"
	UnsettledStopping   Unsettled = "stopping"
	UnsettledMigrating  Unsettled = "migrating"
	UnsettledPending    Unsettled = "pending" // any other action under way
	UnsettledBlocked    Unsettled = "blocked" // a failure that Pacemaker does not recover from
	UnsettledFailed     Unsettled = "failed"
	UnsettledOrphaned   Unsettled = "orphaned" // the configuration has no such instance any more ("removed" since 3.0.2)
	UnsettledPromoted   Unsettled = "promoted"
	UnsettledUnpromoted Unsettled = "unpromoted"
	// UnsettledUnknown: the node is unclean, and Pacemaker does not say what ran there.
	UnsettledUnknown Unsettled = "unknown"
)

// Clone is one primitive of a promotable clone. A clone of a group gives one Clone for each of its primitives.
type Clone struct {
	ID        string `json:"id"`
	Primitive string `json:"primitive"`
	Agent     string `json:"agent"` // class:provider:type
	// Managed is false when Pacemaker shows the clone or one of its instances as unmanaged, or when a rule may make
	// it unmanaged. Instances that are blocked or orphaned, and those on a node in maintenance, do not count.
	Managed bool `json:"managed"`
	// Parameters are the effective instance attributes among AgentParameters. The others are left out on purpose:
	// monitor_password and primary_conninfo_opt may hold secrets.
	Parameters map[string]string `json:"parameters,omitempty"`
	// Conditional names parameters of AgentParameters, and meta attributes of pgrex's own, that some rule sets: their
	// value depends on node or time, which pgrex does not evaluate.
	Conditional []string `json:"conditional,omitempty"`
	// Meta are the effective meta attributes: the primitive's over the group's over the clone's over rsc_defaults.
	Meta map[string]string `json:"meta,omitempty"`
	// Locations are the location constraints of the clone or its primitive.
	Locations []Location `json:"locations,omitempty"`
	// Watched is how Pacemaker watches the promoted instance. Only a crash hint needs it, for which the CIB is read. So no
	// snapshot has it.
	Watched Watched `json:"-"`
	// Roles by node name, of online nodes only. Of an instance that is named in Unsettled the role proves nothing.
	Roles map[string]Role `json:"roles"`
	// Unsettled by node name.
	Unsettled map[string]Unsettled `json:"unsettled,omitempty"`
}

// Watched is what a clone's operations, and op_defaults, say about its monitors.
type Watched struct {
	// OnFail are the values that on-fail of a monitor may have, lower-cased, in order; none where nothing sets it.
	OnFail []string
	// ByRule: a rule may set on-fail, which pgrex does not evaluate.
	ByRule bool
	// Unmonitored: the promoted instance has no monitor, or one that may be disabled.
	Unmonitored bool
	// Unrecorded: record-pending may be off for an operation, so that an action under way does not show in the CIB.
	Unrecorded bool
}

// Location is a location constraint (rsc_location).
type Location struct {
	ID    string `json:"id"`
	Node  string `json:"node,omitempty"`  // "" where a rule tells
	Score string `json:"score,omitempty"` // "" where a rule tells; a rule may still keep the resource away
	Role  string `json:"role,omitempty"`  // that it is about, as Pacemaker spells it; "" for any
}

// ByTool tells whether crm_resource --ban or --move made it: it is to be removed one day.
func (l Location) ByTool() bool {
	return strings.HasPrefix(l.ID, "cli-ban-") || strings.HasPrefix(l.ID, "cli-prefer-")
}

// TimedBanOf reports whether it is a ban of a node that crm_resource --ban --lifetime made. Its node is in a rule, and only
// its id names it (cli_resource_ban). Whether its time is over is not known.
func (l Location) TimedBanOf(node string) bool {
	return l.Node == "" && strings.HasPrefix(l.ID, "cli-ban-") && strings.HasSuffix(FoldNode(l.ID), "-on-"+FoldNode(node))
}

// ByRule reports whether a rule about a node's name or the time says on which nodes it counts, which pgrex does not
// evaluate.
func (l Location) ByRule() bool { return l.Node == "" && !l.ByTool() }

// KeptStopped reports whether pgrex keeps the database on a node stopped, by its own location constraint
// (StopConstraint).
func (c Clone) KeptStopped(node string) bool {
	id := StopConstraint(c.Primitive, node)
	return slices.ContainsFunc(c.Locations, func(l Location) bool { return l.ID == id && SameNode(l.Node, node) && l.Bars() })
}

// StopAltered reports whether pgrex's constraint is there, but was changed, and keeps nothing stopped.
func (c Clone) StopAltered(node string) bool {
	id := StopConstraint(c.Primitive, node)
	return slices.ContainsFunc(c.Locations, func(l Location) bool { return l.ID == id }) && !c.KeptStopped(node)
}

// Infinity is Pacemaker's INFINITY, as a number.
const Infinity = 1_000_000

// Bars reports whether the constraint keeps the resource away from its node whatever else is wanted.
func (l Location) Bars() bool { return l.Role == "" && l.never() }

// BarsPromotion reports whether it keeps the resource from being promoted there.
func (l Location) BarsPromotion() bool {
	return !strings.EqualFold(l.Role, "Unpromoted") && !strings.EqualFold(l.Role, "Slave") && l.never()
}

func (l Location) never() bool {
	if strings.EqualFold(l.Score, "-INFINITY") {
		return true
	}
	n, err := strconv.Atoi(l.Score)
	return err == nil && n <= -Infinity
}

// AgentParameters are the parameters of ocf:heartbeat:pgsql that pgrex uses, and the only ones it keeps.
var AgentParameters = []string{
	"config", "logfile", "master_ip", "node_list", "pgctl", "pgdata", "pgdb", "pgdba", "pghost", "pgport", "psql", "rep_mode",
	paramSlotName, "repuser", ParamRestartOnPromote, "socketdir", "start_opt", "tmpdir", ParamXlogCheckCount,
}

// The agent's parameters that decide what becomes of the hosts after a promotion (pgsql_promote, have_master_right).
const (
	paramSlotName = "replication_slot_name"
	// ParamRestartOnPromote makes the agent restart PostgreSQL as the primary instead of promoting it: the timeline
	// stays.
	ParamRestartOnPromote = "restart_on_promote"
	// ParamXlogCheckCount is how many monitors have to see the same positions before the standby that is furthest is
	// promoted; with 0 the agent does not wait for the other standbys' positions.
	ParamXlogCheckCount = "xlog_check_count"
)

// DecisiveParameters are the agent's parameters that decide which hosts need slots, and where.
var DecisiveParameters = []string{"node_list", "rep_mode", paramSlotName}

// DataFolder is where the agent has the database (pgdata), and TmpFolder where it keeps its own files (tmpdir).
func (c Clone) DataFolder() string { return cmp.Or(c.Parameters["pgdata"], "/var/lib/pgsql/data") }

// TmpFolder is tmpdir; see DataFolder.
func (c Clone) TmpFolder() string { return cmp.Or(c.Parameters["tmpdir"], "/var/lib/pgsql/tmp") }

// ConfigFile is the postgresql.conf with which the agent starts a server (its parameter config).
func (c Clone) ConfigFile() string {
	return cmp.Or(c.Parameters["config"], c.DataFolder()+"/postgresql.conf")
}

// LocalName is what Pacemaker calls a host, asked on that host. The zero value says that nobody has asked.
type LocalName struct {
	Name     string `json:"name,omitempty"`
	Problem  string `json:"problem,omitempty"`   // why Pacemaker did not answer
	NotAsked string `json:"not_asked,omitempty"` // why it was not asked, where the answer would be about another cluster
}

// Versions are the releases of what runs on a host beside PostgreSQL; "" where nobody knows.
type Versions struct {
	Pacemaker      string `json:"pacemaker"`       // of its tools, such as "2.1.5"
	ResourceAgents string `json:"resource_agents"` // of the package with the database's agent, such as "1:4.12.0-2"
}

// Node finds a node by name, as Pacemaker compares them.
func (c Cluster) Node(name string) (Node, bool) {
	for _, n := range c.Nodes {
		if SameNode(n.Name, name) {
			return n, true
		}
	}
	return Node{}, false
}

// DatabaseAgents are the resource agents whose clones pgrex understands.
var DatabaseAgents = []string{"ocf:heartbeat:pgsql", "ocf:linuxhajp:pgsql"}

// Role is the settled role of the clone's instance on a node; ok is false where Pacemaker does not say one, or where
// the instance is unsettled.
func (c Clone) Role(node string) (role Role, ok bool) {
	if _, unsettled := c.UnsettledOn(node); unsettled {
		return "", false
	}
	return onNode(c.Roles, node)
}

// UnsettledOn is why the role of the clone's instance on a node proves nothing; ok is false where it is settled.
func (c Clone) UnsettledOn(node string) (why Unsettled, ok bool) { return onNode(c.Unsettled, node) }

var maybePromoted = []Unsettled{UnsettledPromoting, UnsettledDemoting, UnsettledPromoted, UnsettledUnknown}

// MayBePromoted reports whether the instance on a node is promoted, or may be for all that Pacemaker shows.
func (c Clone) MayBePromoted(node string) bool {
	role, _ := onNode(c.Roles, node)
	why, _ := c.UnsettledOn(node)
	return role == RolePromoted || slices.Contains(maybePromoted, why)
}

func onNode[V any](values map[string]V, node string) (value V, ok bool) {
	for name, v := range values {
		if SameNode(name, node) {
			return v, true
		}
	}
	return value, false
}

// SameNode compares names of nodes as Pacemaker does (strcasecmp): without regard to the case of ASCII letters.
func SameNode(a, b string) bool { return FoldNode(a) == FoldNode(b) }

// FoldNode is a node's name as a key: equal for names that are the same to Pacemaker. The agent's node_list is folded
// so, too.
func FoldNode(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, name)
}
