package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Policy is the operator's wish for the whole cluster: the meta attributes pgrex-* of the clone or its primitive, and
// what the agent's own parameters imply.
type Policy struct {
	SlotPrefix   string
	PairNaming   bool // pgrex-slot-naming=pair: the bare prefix while there are two members
	StandbySlots bool // pgrex-standby-slots=keep: standbys hold slots, too
	DropOrphans  bool // pgrex-orphans=drop
	WALBudget    WALBudget
	XMinAge      uint32  // pgrex-xmin-age: how many transactions an absent standby may hold vacuum back; 0: for ever
	Paused       bool    // pgrex-paused: look, say, do nothing
	CrashHint    bool    // pgrex-crash-hint: tell Pacemaker at once when the primary's postmaster has crashed
	AutoRejoin   Dearest // pgrex-auto-rejoin: the dearest way back that may be taken without a person
	// AgentSlots is true when the names are the agent's: its replication_slot_name is the prefix.
	AgentSlots bool
	// Members are the hosts of the agent's node_list, lower-cased, without repetition, in order.
	Members []string
	// RepMode is the agent's rep_mode; only sync and async replicate under Pacemaker's control.
	RepMode string
}

// The meta attributes that make the policy.
const (
	MetaSlotPrefix   = "pgrex-slot-prefix"
	MetaSlotNaming   = "pgrex-slot-naming"
	MetaStandbySlots = "pgrex-standby-slots"
	MetaWALBudget    = "pgrex-wal-budget"
	MetaXMinAge      = "pgrex-xmin-age"
	MetaOrphans      = "pgrex-orphans"
	MetaPaused       = "pgrex-paused"
	MetaCrashHint    = "pgrex-crash-hint"
	MetaAutoRejoin   = "pgrex-auto-rejoin"
	MetaPrefix       = "pgrex-" // of all of them
)

const defaultSlotPrefix = "pgrex"

// A prefix leaves room for "_" and 8 hex digits of a hash, and a letter of the host's name.
const maxSlotPrefix = 53

var slotPrefixPattern = regexp.MustCompile(`^[a-z0-9_]+$`)

// PolicyOf reads the policy of a clone. Every value that cannot be understood is a problem, one sentence each that
// says what is allowed; a plan made in spite of a problem would be a guess.
func PolicyOf(c Clone) (p Policy, problems []string) {
	agentPrefix := c.Parameters[paramSlotName]
	p = Policy{
		SlotPrefix:   defaultSlotPrefix,
		StandbySlots: true,
		WALBudget:    WALBudget{Percent: defaultBudgetPercent},
		Members:      members(c.Parameters["node_list"]),
		RepMode:      c.Parameters["rep_mode"],
	}
	if agentPrefix != "" {
		p.SlotPrefix = agentPrefix
	}
	bad := func(name, value, allowed string) {
		problems = append(problems, fmt.Sprintf("%s=%q is not understood; allowed: %s", name, value, allowed))
	}
	choice := func(name string, values ...string) string {
		v, ok := c.Meta[name]
		if !ok {
			return values[0]
		}
		if !slices.Contains(values, v) {
			bad(name, v, strings.Join(values, ", "))
		}
		return v
	}
	if v, ok := c.Meta[MetaSlotPrefix]; ok {
		p.SlotPrefix = v
	}
	if !IsSlotPrefix(p.SlotPrefix) {
		bad("slot prefix", p.SlotPrefix, fmt.Sprintf("a-z, 0-9 and _, at most %d", maxSlotPrefix))
	}
	p.PairNaming = choice(MetaSlotNaming, "host", "pair") == "pair"
	p.StandbySlots = choice(MetaStandbySlots, "keep", "none") == "keep"
	p.DropOrphans = choice(MetaOrphans, "report", "drop") == "drop"
	p.AutoRejoin = DearestNone
	if v := choice(MetaAutoRejoin, dearest...); slices.Contains(dearest, v) {
		p.AutoRejoin = Dearest(v)
	}
	if v, ok := c.Meta[MetaWALBudget]; ok {
		var known bool
		if p.WALBudget, known = parseWALBudget(v); !known {
			bad(MetaWALBudget, v, allowedBudget)
		}
	}
	if v, ok := c.Meta[MetaXMinAge]; ok {
		age, err := strconv.ParseUint(v, 10, 31) // ages go to two thousand million
		if err != nil {
			bad(MetaXMinAge, v, "a number of transactions, 0 for never")
		}
		p.XMinAge = uint32(age)
	}
	onOff := func(name string) bool {
		v, ok := c.Meta[name]
		on, known := ParseBool(v)
		if ok && !known {
			bad(name, v, "true, false")
		}
		return on
	}
	p.Paused, p.CrashHint = onOff(MetaPaused), onOff(MetaCrashHint)
	p.AgentSlots = agentPrefix != "" && agentPrefix == p.SlotPrefix
	return p, append(problems, unknownMeta(c.Meta)...)
}

// IsSlotPrefix reports whether slots can be named after a prefix.
func IsSlotPrefix(prefix string) bool {
	return slotPrefixPattern.MatchString(prefix) && len(prefix) <= maxSlotPrefix
}

// policyNames are the meta attributes that make the policy.
var policyNames = []string{
	MetaSlotPrefix, MetaSlotNaming, MetaStandbySlots, MetaWALBudget, MetaXMinAge, MetaOrphans, MetaPaused, MetaCrashHint,
	MetaAutoRejoin,
}

// IsPolicy reports whether a meta attribute is one of pgrex's own.
func IsPolicy(name string) bool {
	return strings.HasPrefix(name, MetaPrefix)
}

// unknownMeta finds names under our prefix that mean nothing: most likely a typing error in a safety setting.
func unknownMeta(meta map[string]string) []string {
	var problems []string
	for name := range meta {
		if IsPolicy(name) && !slices.Contains(policyNames, name) {
			problems = append(problems, fmt.Sprintf("meta attribute %s is unknown; known: %s", name, strings.Join(policyNames, ", ")))
		}
	}
	slices.Sort(problems)
	return problems
}

// members splits node_list, lower-cased as the agent does it (pgsql_validate_all), without repetition, in order.
func members(nodeList string) []string {
	hosts := strings.Fields(FoldNode(nodeList))
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// ParseBool reads a boolean as Pacemaker does (crm_str_to_boolean).
func ParseBool(s string) (value, known bool) {
	switch strings.ToLower(s) {
	case "true", "on", "yes", "y", "1":
		return true, true
	case "false", "off", "no", "n", "0":
		return false, true
	}
	return false, false
}
