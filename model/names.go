package model

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxSlotName is NAMEDATALEN-1. PostgreSQL truncates a longer name at create but refuses it as primary_slot_name.
const maxSlotName = 63

// hashStep is how many hex digits a hash has, and by how many it grows while names still meet.
const hashStep = 8

// SlotNames gives each member its slot's name, keyed by the member as spelled. The names are valid, differ from each
// other, and do not depend on the order of members.
//
// A name is <prefix>_<host> with the host folded as the agent does (create_replication_slot_name). Where that would
// be shared or too long, it is cut and ends in a hash of the host's own name.
func SlotNames(prefix string, members []string) map[string]string {
	names := make(map[string]string, len(members))
	for _, m := range members {
		names[m] = prefix + "_" + foldHost(m)
	}
	// A hashed name can itself meet another host's plain name; then both get a longer hash in the next round. Each
	// round lengthens a hash, so this ends; only the same host given twice would still share a name then.
	digits := make(map[string]int, len(members))
	for range maxSlotName / hashStep {
		for _, m := range conflicting(names, members) {
			digits[m] += hashStep
			names[m] = hashedName(prefix, m, digits[m])
		}
	}
	return names
}

// conflicting lists the members whose name is too long, or shared.
func conflicting(names map[string]string, members []string) []string {
	count := make(map[string]int, len(members))
	for _, m := range members {
		count[names[m]]++
	}
	var out []string
	for _, m := range members {
		if len(names[m]) > maxSlotName || count[names[m]] > 1 {
			out = append(out, m)
		}
	}
	return out
}

// foldHost lower-cases a host's name and turns what a slot's name cannot hold into "_".
func foldHost(host string) string { return strings.Map(foldRune, FoldNode(host)) }

func foldRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
		return r
	}
	return '_'
}

// StopConstraint is the id of the location constraint by which pgrex keeps a stopped database from a node. An id in the
// CIB may hold fewer characters than a node's name. For a name with other characters, the id ends in a hash of the
// name.
func StopConstraint(primitive, node string) string {
	name := FoldNode(node)
	id := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == foldRune(r) {
			return r
		}
		return '_'
	}, name)
	if id != name {
		id += "-" + hash(name)[:hashStep]
	}
	return "pgrex-stop-" + primitive + "-" + id
}

// hashedName cuts prefix_host so that "_" and the given number of hex digits fit. The hash is of the lower-cased
// name, because hosts that differ in case only are one host to Pacemaker.
func hashedName(prefix, host string, digits int) string {
	name := prefix + "_" + foldHost(host)
	name = name[:min(len(name), maxSlotName-1-digits)]
	return name + "_" + hash(FoldNode(host))[:digits]
}

func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// SlotNames gives each member its slot's name under the policy: with pair naming and two members, both share the
// bare prefix, as agents 3.9.7 to 4.0 had it.
func (p Policy) SlotNames() map[string]string {
	if p.PairNaming && len(p.Members) == 2 {
		return map[string]string{p.Members[0]: p.SlotPrefix, p.Members[1]: p.SlotPrefix}
	}
	return SlotNames(p.SlotPrefix, p.Members)
}

// AgentSlotName is the name that the agent itself gives a host's slot, valid or not.
func (p Policy) AgentSlotName(member string) string {
	return p.SlotPrefix + "_" + strings.NewReplacer(".", "_", "-", "_").Replace(FoldNode(member))
}

// CouldName tells whether a member's slot would have this name under the other naming, or beside other members.
func (p Policy) CouldName(slot, member string) bool {
	if slot == p.SlotPrefix || slot == p.SlotPrefix+"_"+foldHost(member) {
		return true
	}
	for digits := hashStep; digits < maxSlotName; digits += hashStep {
		if slot == hashedName(p.SlotPrefix, member, digits) {
			return true
		}
	}
	return false
}

// OwnsName tells whether a slot's name is made of our prefix, so that a slot of no member is an orphan.
func (p Policy) OwnsName(slot string) bool {
	return slot == p.SlotPrefix || strings.HasPrefix(slot, p.SlotPrefix+"_")
}
