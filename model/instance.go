package model

// ServerState tells how far a PostgreSQL server can be talked to.
type ServerState string

// The states of the local server. Down, starting and stopping are normal on a cluster: they are waited for.
const (
	ServerUp          ServerState = "up"
	ServerStarting    ServerState = "starting" // SQLSTATE 57P03: starting up, or recovering without hot standby
	ServerDown        ServerState = "down"     // nothing listens, or it shuts down
	ServerUnreachable ServerState = "unreachable"
)

// Instance is what the local PostgreSQL says of itself, read in one round trip.
type Instance struct {
	State   ServerState `json:"state"`
	Problem string      `json:"problem,omitempty"` // why it is not up, one line, no secret
	// Version is server_version_num, 150020 for 15.20.
	Version    int    `json:"version,omitempty"`
	SystemID   string `json:"system_id,omitempty"` // system_identifier of the control file, decimal
	InRecovery bool   `json:"in_recovery"`
	// Redo is the redo position of the last checkpoint or, in recovery, of the last restartpoint, and RedoTimeline the
	// timeline it is on (pg_control_checkpoint). WAL before Redo is not needed for crash recovery.
	Redo         LSN    `json:"redo,omitempty"`
	RedoTimeline uint32 `json:"redo_timeline,omitempty"`
	// Reserves is where a slot that was made last stands, where that is beyond Redo: a checkpoint or restartpoint is
	// under way that began there, and until it ends PostgreSQL reserves from there on.
	Reserves LSN `json:"reserves,omitempty"`
	// Timeline is the one that WAL is written or received on: right after a promotion it is newer than the last checkpoint's.
	Timeline uint32 `json:"timeline,omitempty"`
	// Current is the end of WAL: flushed on a primary, replayed on a standby. Received is what a standby has on its disk
	// from its walreceiver, replayed or not.
	Current        LSN    `json:"current,omitempty"`
	Received       LSN    `json:"received,omitempty"`
	WALSegmentSize uint64 `json:"wal_segment_size,omitempty"` // bytes
	Slots          []Slot `json:"slots"`                      // all of them, in order of name
	MaxSlots       int    `json:"max_replication_slots"`
	// IdleSlotTimeout is idle_replication_slot_timeout (PostgreSQL 18) in seconds; 0 when there is none.
	IdleSlotTimeout float64 `json:"idle_replication_slot_timeout,omitempty"`
	// SynchronizedStandbySlots are the slots that logical walsenders wait for (PostgreSQL 17).
	SynchronizedStandbySlots []string `json:"synchronized_standby_slots,omitempty"`
	// SyncReplicationSlots is true if a standby synchronizes failover slots from the primary (sync_replication_slots,
	// PostgreSQL 17). For that it needs primary_slot_name.
	SyncReplicationSlots bool `json:"sync_replication_slots,omitempty"`
	// ApplicationName is a standby's, as its primary_conninfo sets it; "" where that does not, or may not be read.
	ApplicationName string `json:"application_name,omitempty"`
	// PrimarySlotName is the effective setting, "" when unset.
	PrimarySlotName string       `json:"primary_slot_name"`
	Receiver        *WALReceiver `json:"wal_receiver,omitempty"` // pg_stat_wal_receiver; nil when there is none
	Senders         []WALSender  `json:"wal_senders,omitempty"`  // pg_stat_replication, in order of application_name, pid
	// NoRewind is why pg_rewind could not be used with this server's settings, "" if it could.
	NoRewind string `json:"no_rewind,omitempty"`
	// WALSpace and Budget are nil when they could not be read; WALProblem then says why.
	WALSpace   *WALSpace `json:"wal_space,omitempty"`
	Budget     *Budget   `json:"budget,omitempty"`
	WALProblem string    `json:"wal_problem,omitempty"`
	Archive    *Archive  `json:"archive,omitempty"` // nil where nothing is archived here
}

// End is the end of the WAL that is here: from there PostgreSQL counts what slots hold (KeepLogSeg).
func (i Instance) End() LSN { return max(i.Current, i.Received) }

// ReservesFrom is from where on a slot that is made now would hold WAL, for all that is known.
func (i Instance) ReservesFrom() LSN { return max(i.Redo, i.Reserves) }

// Held is how many bytes of WAL a slot holds back, none for one that holds nothing.
func (i Instance) Held(s Slot) uint64 {
	if !s.Reserved() {
		return 0
	}
	return s.RestartLSN.BytesTo(i.End())
}

// SlotType is pg_replication_slots.slot_type.
type SlotType string

// PostgreSQL's slot types.
const (
	SlotPhysical SlotType = "physical"
	SlotLogical  SlotType = "logical"
)

// Slot is a row of pg_replication_slots.
type Slot struct {
	Name        string   `json:"name"`
	Type        SlotType `json:"type"`
	Temporary   bool     `json:"temporary,omitempty"`
	Active      bool     `json:"active"`
	ActivePID   int      `json:"active_pid,omitempty"`
	XMin        uint32   `json:"xmin,omitempty"`
	XMinAge     uint32   `json:"xmin_age,omitempty"` // age(xmin), in transactions
	CatalogXMin uint32   `json:"catalog_xmin,omitempty"`
	RestartLSN  LSN      `json:"restart_lsn,omitempty"`
	// WALStatus is wal_status: reserved, extended, unreserved, lost; "" where PostgreSQL says NULL.
	WALStatus string `json:"wal_status,omitempty"`
	// InvalidationReason is invalidation_reason (PostgreSQL 17), "" where there is none.
	InvalidationReason string `json:"invalidation_reason,omitempty"`
	// Failover and Synced are columns of logical slots (PostgreSQL 17). Standbys synchronize a failover slot; a synced one
	// is the result of that, on a standby.
	Failover bool `json:"failover,omitempty"`
	Synced   bool `json:"synced,omitempty"`
	// Idle is for how many seconds the slot has been inactive (inactive_since, PostgreSQL 17).
	Idle float64 `json:"idle,omitempty"`
}

// Lost tells whether PostgreSQL has invalidated the slot: WAL its owner needs is gone, and it holds nothing.
func (s Slot) Lost() bool { return s.WALStatus == "lost" || s.InvalidationReason != "" }

// Reserved tells whether the slot holds WAL back.
func (s Slot) Reserved() bool { return s.RestartLSN.IsValid() && !s.Lost() }

// HoldsXMin tells whether the slot holds vacuum back.
func (s Slot) HoldsXMin() bool { return s.XMin != 0 || s.CatalogXMin != 0 }

// WALReceiver is the row of pg_stat_wal_receiver.
type WALReceiver struct {
	Status     string `json:"status"` // "streaming" when it has received WAL, or could
	SlotName   string `json:"slot_name,omitempty"`
	Timeline   uint32 `json:"timeline,omitempty"` // received_tli
	SenderHost string `json:"sender_host,omitempty"`
	SenderPort int    `json:"sender_port,omitempty"`
}

// Streaming tells whether WAL is being received.
func (r *WALReceiver) Streaming() bool { return r != nil && r.Status == "streaming" }

// WALSender is a row of pg_stat_replication.
type WALSender struct {
	ApplicationName string `json:"application_name"` // the agent sets it to the host's name, lower-cased
	PID             int    `json:"pid"`
	State           string `json:"state"` // startup, catchup, streaming, backup, stopping
	// Address is client_addr, "" for a unix socket.
	Address   string  `json:"address,omitempty"`
	Flushed   LSN     `json:"flushed,omitempty"`    // flush_lsn
	Replayed  LSN     `json:"replayed,omitempty"`   // replay_lsn
	ReplayLag float64 `json:"replay_lag,omitempty"` // in seconds; 0 while nothing is sent
}

// Replicates tells whether WAL is sent over the connection for a standby to follow.
func (w WALSender) Replicates() bool { return w.State == "streaming" || w.State == "catchup" }

// Replication is a row of pg_stat_replication: a standby that the primary sends WAL to.
type Replication struct {
	Name      string // application_name
	State     string
	SyncState string // async, potential, sync, quorum
	Address   string // from which it connects; "" for the unix socket
	Behind    uint64 // WAL that it has not replayed, in bytes
}

// Upstream is what the server that a standby replicates from says over the replication protocol.
type Upstream struct {
	Address  string `json:"address"` // host and port, nothing else of the connection string
	SystemID string `json:"system_id"`
	Timeline uint32 `json:"timeline"`
	// InRecovery is the server's in_hot_standby (PostgreSQL 14): it is a standby itself.
	InRecovery bool `json:"in_recovery"`
	Flushed    LSN  `json:"flushed"` // IDENTIFY_SYSTEM's xlogpos
	// Slots answers for each name asked for, in order of name.
	Slots []UpstreamSlot `json:"slots"`
	// SynchronizedStandbySlots are the slots that logical walsenders there wait for (PostgreSQL 17).
	SynchronizedStandbySlots []string `json:"synchronized_standby_slots,omitempty"`
}

// UpstreamSlot is the answer to READ_REPLICATION_SLOT (PostgreSQL 15).
type UpstreamSlot struct {
	Name       string `json:"name"`
	Exists     bool   `json:"exists"`
	RestartLSN LSN    `json:"restart_lsn,omitempty"` // none when it reserves nothing, or was invalidated
	Logical    bool   `json:"logical,omitempty"`     // it is none of ours
}

// Slot finds the answer for a name. A name that was not asked for is no answer at all.
func (u *Upstream) Slot(name string) (UpstreamSlot, bool) {
	if u != nil {
		for _, s := range u.Slots {
			if s.Name == name {
				return s, true
			}
		}
	}
	return UpstreamSlot{}, false
}
