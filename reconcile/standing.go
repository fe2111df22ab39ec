package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// DataLatest is the data status that only a primary has, and keeps when it ends.
const DataLatest = "LATEST"

// The agent's attributes (change_pgsql_status, change_data_status), the status that only a primary has, that of a server
// that the agent has stopped, and how the data
// status begins that a standby has while it is attached to the primary (pg_stat_replication's state).
const (
	statusSuffix     = "-status"
	dataStatusSuffix = "-data-status"
	statusPrimary    = "PRI"
	statusStopped    = "STOP"
	dataStreaming    = "STREAMING"
	dataCatchup      = "CATCHUP"
)

// DataStatus is the name of the node attribute by which the agent tells how new a host's data are.
func DataStatus(clone model.Clone) string { return clone.Primitive + dataStatusSuffix }

// signs is what the CIB says of one node's claim to be the primary.
type signs struct {
	node      model.Node
	promoted  bool            // Pacemaker: the instance is promoted, and settled
	may       bool            // Pacemaker: it may be promoted, for all that is known
	unsettled model.Unsettled // why that is not sure
	pri       bool            // the agent: <primitive>-status is PRI
	latest    bool            // the agent: <primitive>-data-status is LATEST
}

func (s signs) claims() bool { return s.may || s.pri }
func (s signs) confirmed() bool {
	return s.promoted && s.pri && s.latest && s.node.Online && !s.node.Unclean
}

func (s signs) String() string {
	text := fmt.Sprintf("%s: promoted=%t %s=%t %s=%t", s.node.Name, s.promoted, statusPrimary, s.pri, DataLatest, s.latest)
	if s.unsettled != "" {
		text += " (Pacemaker: " + string(s.unsettled) + ")"
	}
	return text
}

// readSigns looks at every node, also at those that are not online: an unclean one may still run what it ran, and so
// may one that is in the membership and has not joined yet. A node that has left for good has no transient
// attributes.
func readSigns(c model.Cluster, clone model.Clone) []signs {
	var all []signs
	for _, n := range c.Nodes {
		role, _ := clone.Role(n.Name)
		unsettled, _ := clone.UnsettledOn(n.Name)
		all = append(all, signs{
			node:      n,
			promoted:  role == model.RolePromoted,
			may:       clone.MayBePromoted(n.Name),
			unsettled: unsettled,
			pri:       n.Attribute(clone.Primitive+statusSuffix) == statusPrimary,
			latest:    n.Attribute(DataStatus(clone)) == DataLatest,
		})
	}
	slices.SortFunc(all, func(a, b signs) int { return strings.Compare(a.node.Name, b.node.Name) })
	return all
}

// confirmedPrimary returns the one host, folded, that is confirmed as primary: it shows every sign, and no other node
// shows one. Otherwise the name is "", and the finding says what the signs are; nil where there is none.
func confirmedPrimary(c model.Cluster, clone model.Clone) (string, *model.Finding) {
	var claimants []signs
	pri := 0
	for _, s := range readSigns(c, clone) {
		if s.claims() {
			claimants = append(claimants, s)
		}
		if s.pri {
			pri++
		}
	}
	var said []string
	for _, s := range claimants {
		said = append(said, s.String())
	}
	switch {
	case pri > 1:
		return "", &model.Finding{Code: model.CodeSplitBrain, Severity: model.Critical, Subject: clone.ID,
			Text: "more than one host says it is the primary (" + strings.Join(said, "; ") +
				"): nothing is done; find out which holds the newest data before anything else"}
	case len(claimants) == 1 && claimants[0].confirmed():
		return model.FoldNode(claimants[0].node.Name), nil
	case len(claimants) == 0:
		return "", nil
	}
	return "", &model.Finding{Code: model.CodeInTransition, Severity: model.Info, Subject: clone.ID,
		Text: "the signs of the primary do not agree yet (" + strings.Join(said, "; ") + "): nothing is done until they do"}
}
