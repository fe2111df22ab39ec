package reconcile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// The agent's attributes for the end of a standby's data, 16 hex digits. The agent writes the first one while there is
// no primary, if it may promote the standby (show_xlog_location). It writes the second one on every standby when the
// last primary has ended (show_master_baseline).
const (
	locationSuffix = "-xlog-loc"
	baselineSuffix = "-master-baseline"
	// DataSync is the data status of a standby that has all that the primary acknowledges.
	DataSync  = "STREAMING|SYNC"
	dataAsync = "STREAMING|ASYNC"
	modeAsync = "async"
)

// Claim is what the cluster knows of a member's data.
type Claim struct {
	Host       string
	DataStatus string // the agent's <primitive>-data-status; "" where it never wrote one
	// Location is where the data of a running standby end. The agent writes it once there is no primary.
	Location model.LSN
}

// Claims are those of the members, in order of name.
func (w Who) Claims() []Claim {
	var claims []Claim
	for _, member := range w.Policy.Members {
		n := w.NodeOf(member)
		location := max(w.location(n, locationSuffix), w.location(n, baselineSuffix))
		claims = append(claims, Claim{member, n.Permanent[DataStatus(w.Clone)], location})
	}
	return claims
}

func (w Who) location(n model.Node, suffix string) model.LSN {
	location, err := strconv.ParseUint(n.Transient[w.Clone.Primitive+suffix], 16, 64)
	if err != nil {
		return 0 // the agent has not written it
	}
	return model.LSN(location)
}

// NotFirst returns why a host must not be the first one to start while no other is the primary: "" if it may. Its own
// data end at end. The agent keeps the data status of every member in the CIB: LATEST is who was the primary last, since
// a promotion makes every other one DISCONNECT before anything is written (pgsql_promote).
func NotFirst(host string, end model.LSN, claims []Claim) string {
	var mine string
	var latest, said []string
	for _, c := range claims {
		said = append(said, fmt.Sprintf("%s: %s", c.Host, dataStatusText(c.DataStatus)))
		if model.SameNode(c.Host, host) {
			mine = c.DataStatus
		} else if c.Location > end {
			return fmt.Sprintf("%s runs and has data up to %s, this host only up to %s: let that one be the primary",
				c.Host, c.Location, end)
		}
		if c.DataStatus == DataLatest {
			latest = append(latest, c.Host)
		}
	}
	all := strings.Join(said, ", ")
	switch {
	case len(latest) > 1:
		return fmt.Sprintf("more than one host has the data status LATEST (%s): find out which of them has the "+
			"newest data before you start any", all)
	case mine == DataLatest:
		return ""
	case len(latest) == 1:
		return fmt.Sprintf("%s has the newest data (%s): type sudo pgrex start there first", latest[0], all)
	case !slices.ContainsFunc(claims, func(c Claim) bool { return c.DataStatus != "" }):
		return "" // the first start ever
	}
	return fmt.Sprintf("no host has the data status LATEST (%s)", all)
}

func dataStatusText(status string) string {
	if status == "" {
		return "no data status"
	}
	return status
}

// Successors are the running standbys that the agent lets take over if the primary ends (control_slave_status,
// have_master_right), in order of name.
func (w Who) Successors() (hosts []string) {
	for _, claim := range w.Claims() {
		if w.RoleOf(claim.Host) == model.RoleUnpromoted && !w.WithoutServer(claim.Host) &&
			(claim.DataStatus == DataSync || claim.DataStatus == dataAsync && w.Policy.RepMode == modeAsync) {
			hosts = append(hosts, claim.Host)
		}
	}
	return hosts
}
