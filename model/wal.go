package model

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MiB is PostgreSQL's MB, the unit of its settings that limit WAL.
const MiB = 1 << 20

// Unlimited is the value -1 of max_slot_wal_keep_size.
const Unlimited = -1

// WALSpace is the file system that holds pg_wal.
type WALSpace struct {
	Size uint64 `json:"size"` // bytes
	Free uint64 `json:"free"` // bytes that PostgreSQL's user may still take
	WAL  uint64 `json:"wal"`  // bytes in pg_wal itself
}

// Archive is the state of archiving on a server (pg_stat_archiver).
type Archive struct {
	Waiting uint64 `json:"waiting"` // bytes of WAL that are not archived yet, and stay in pg_wal until they are
	// Failing is true if the last attempt failed, on FailedWAL. Since is how many seconds ago the last one succeeded or,
	// if none has, the statistics began.
	Failing   bool    `json:"failing,omitempty"`
	FailedWAL string  `json:"failed_wal,omitempty"`
	Since     float64 `json:"since,omitempty"`
}

// Budget is what limits the WAL on a server: settings in MB, as they are in effect, and where the one that limits slots
// comes from.
type Budget struct {
	MaxSlotWALKeepSize int64 `json:"max_slot_wal_keep_size"` // Unlimited is -1
	MaxWALSize         int64 `json:"max_wal_size"`
	WALKeepSize        int64 `json:"wal_keep_size"`
	// CommandLine is true when the command line sets max_slot_wal_keep_size, which no file can change.
	CommandLine bool `json:"command_line,omitempty"`
	// AutoConf is true when postgresql.auto.conf has a line for it, in effect or not.
	AutoConf bool `json:"auto_conf,omitempty"`
	// Pinned is the value as an operator wrote it into another file, and PinnedAt where that is; "" when there is none.
	Pinned   string `json:"pinned,omitempty"`
	PinnedAt string `json:"pinned_at,omitempty"`
}

// Bytes is the budget in bytes. ok is false when it is unlimited or unknown.
func (b *Budget) Bytes() (n uint64, ok bool) {
	if b == nil || b.MaxSlotWALKeepSize < 0 {
		return 0, false
	}
	return uint64(b.MaxSlotWALKeepSize) * MiB, true
}

// WALRate is how fast WAL comes, in bytes a second. The zero value is unknown.
type WALRate struct {
	Usual float64   `json:"usual"` // smoothed
	Peak  float64   `json:"peak"`  // of one-minute windows of the last 24 hours; never below Usual
	Since time.Time `json:"since"` // when it began to be measured
}

// Known tells whether it was measured at all.
func (r WALRate) Known() bool { return !r.Since.IsZero() }

// Lasts is for how long some bytes last at a rate, in seconds. ok is false when the rate is none, so that they last for ever.
func Lasts(bytes uint64, rate float64) (seconds float64, ok bool) {
	if rate < 1 {
		return 0, false
	}
	return float64(bytes) / rate, true
}

// WALBudget is the operator's wish for max_slot_wal_keep_size: a share of what the file system can give to WAL, a size, or
// no limit.
type WALBudget struct {
	Percent   int    // 1 to 100, or 0 for a size
	Bytes     uint64 // the size
	Unlimited bool
}

// String is the policy's value, as it is written.
func (b WALBudget) String() string {
	switch {
	case b.Unlimited:
		return "unlimited"
	case b.Percent > 0:
		return fmt.Sprintf("%d%%", b.Percent)
	}
	return FormatMegabytes(int64(b.Bytes / MiB))
}

const (
	defaultBudgetPercent = 50
	allowedBudget        = "1% to 100%, a size such as 512MB, 20GB or 1TB, unlimited"
)

var sizePattern = regexp.MustCompile(`(?i)^([0-9]{1,15})(MB|GB|TB)$`)

// parseWALBudget reads the value of pgrex-wal-budget.
func parseWALBudget(text string) (b WALBudget, ok bool) {
	if text == "unlimited" {
		return WALBudget{Unlimited: true}, true
	}
	if digits, isShare := strings.CutSuffix(text, "%"); isShare {
		n, err := strconv.Atoi(digits)
		return WALBudget{Percent: n}, err == nil && n >= 1 && n <= 100
	}
	parts := sizePattern.FindStringSubmatch(text)
	if parts == nil {
		return WALBudget{}, false
	}
	n, err := strconv.ParseUint(parts[1], 10, 64)
	shift := map[string]int{"MB": 20, "GB": 30, "TB": 40}[strings.ToUpper(parts[2])]
	return WALBudget{Bytes: n << shift}, err == nil && n > 0 && n<<shift>>shift == n
}

// FormatSeconds writes a time span for people, cut and not rounded: "40 s", "12 min", "5 h 10 min", "9 d 3 h".
func FormatSeconds(s float64) string {
	const minute, hour, day, year = 60, 3600, 86400, 365 * 86400
	switch {
	case s < 2*minute:
		return fmt.Sprintf("%.0f s", math.Floor(s))
	case s < 2*hour:
		return fmt.Sprintf("%d min", int(s/minute))
	case s < 2*day:
		return fmt.Sprintf("%d h %d min", int(s/hour), int(s/minute)%60)
	case s < year:
		return fmt.Sprintf("%d d %d h", int(s/day), int(s/hour)%24)
	}
	return "more than a year"
}

// FormatMegabytes writes a value of max_slot_wal_keep_size as PostgreSQL shows it: "-1", "512MB", "20GB".
func FormatMegabytes(mb int64) string {
	const thousand = 1024
	switch {
	case mb <= 0:
		return strconv.FormatInt(mb, 10)
	case mb%(thousand*thousand) == 0:
		return fmt.Sprintf("%dTB", mb/thousand/thousand)
	case mb%thousand == 0:
		return fmt.Sprintf("%dGB", mb/thousand)
	}
	return fmt.Sprintf("%dMB", mb)
}

// SetWALBudget sets max_slot_wal_keep_size by ALTER SYSTEM and reloads, or takes it out of postgresql.auto.conf, so that what
// another file says counts.
type SetWALBudget struct {
	From     int64  `json:"from"` // MB, the setting seen; must still be so
	To       int64  `json:"to"`   // MB, or Unlimited
	Reset    bool   `json:"reset,omitempty"`
	Lossless bool   `json:"lossless,omitempty"` // only while no slot holds more than To, as when a step before this one has failed
	Guard    Guard  `json:"guard"`
	Reason   Reason `json:"reason"`
}

func (SetWALBudget) step() {}

// Kind implements Step.
func (SetWALBudget) Kind() string { return "SetWALBudget" }

// Why implements Step.
func (s SetWALBudget) Why() Reason { return s.Reason }

// Text implements Step.
func (s SetWALBudget) Text() string {
	if s.Reset {
		return "max_slot_wal_keep_size: out of postgresql.auto.conf"
	}
	return "max_slot_wal_keep_size: " + FormatMegabytes(s.From) + " -> " + FormatMegabytes(s.To)
}
