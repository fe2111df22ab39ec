package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// DataLatest is the data status that only a primary has, and keeps when it ends.
const DataLatest = "LATEST"

// The agent's attributes (change_pgsql_status, change_data_status), the status that only a primary has, and how the data
// status begins that a standby has while it is attached to the primary (pg_stat_replication's state).
const (
	statusSuffix     = "-status"
	dataStatusSuffix = "-data-status"
	statusPrimary    = "PRI"
	dataStreaming    = "STREAMING"
	dataCatchup      = "CATCHUP"
)

// DataStatus is the name of the node attribute by which the agent tells how new a host's data are.
func DataStatus(clone model.Clone) string { return clone.Primitive + dataStatusSuffix }

// signs is what the CIB says of one node's claim to be the primary.
type signs struct {
	node     model.Node
	promoted bool // Pacemaker: the instance is promoted
	pri      bool // the agent: <primitive>-status is PRI
	latest   bool // the agent: <primitive>-data-status is LATEST
}

func (s signs) claims() bool { return s.promoted || s.pri }
func (s signs) confirmed() bool {
	return s.promoted && s.pri && s.latest && s.node.Online && !s.node.Unclean
}

func (s signs) String() string {
	return fmt.Sprintf("%s: promoted=%t %s=%t %s=%t", s.node.Name, s.promoted, statusPrimary, s.pri, DataLatest, s.latest)
}

// readSigns looks at every node that may run anything. An offline node that Pacemaker knows to have stopped runs
// nothing; an unclean one still may, and so may one that is in the membership and has not joined yet, which has no role.
func readSigns(c model.Cluster, clone model.Clone) []signs {
	var all []signs
	for _, n := range c.Nodes {
		role, known := clone.Role(n.Name)
		if !n.Online && !n.Unclean && known && role == model.RoleStopped {
			continue
		}
		all = append(all, signs{
			node:     n,
			promoted: role == model.RolePromoted,
			pri:      n.Attribute(clone.Primitive+statusSuffix) == statusPrimary,
			latest:   n.Attribute(DataStatus(clone)) == DataLatest,
		})
	}
	slices.SortFunc(all, func(a, b signs) int { return strings.Compare(a.node.Name, b.node.Name) })
	return all
}

// confirmedPrimary is the one node that every sign says is the primary while no other node shows any. Otherwise the
// name is "" and the finding says what the signs are.
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
		return claimants[0].node.Name, nil
	case len(claimants) == 0:
		return "", &model.Finding{Code: model.CodeInTransition, Severity: model.Warning, Subject: clone.ID,
			Text: "no host is promoted: nothing is done until one is"}
	}
	return "", &model.Finding{Code: model.CodeInTransition, Severity: model.Info, Subject: clone.ID,
		Text: "the signs of the primary do not agree yet (" + strings.Join(said, "; ") + "): nothing is done until they do"}
}

// ConfirmedPrimary is the one node that every sign says is the primary while no other node shows any; otherwise an error
// says what the signs are.
func ConfirmedPrimary(c model.Cluster, clone model.Clone) (string, error) {
	name, finding := confirmedPrimary(c, clone)
	if finding != nil {
		return "", inputErrorf("%s", finding.Text)
	}
	return name, nil
}

// standing compares what the CIB says of this host with what its server says.
func (v *view) standing() model.Standing {
	primary, finding := confirmedPrimary(*v.in.Cluster, v.clone)
	if finding != nil {
		v.findings = append(v.findings, *finding)
		return model.InTransition
	}
	v.primary = strings.ToLower(primary)
	local := v.primary == v.self
	switch {
	case local && !v.in.Instance.InRecovery:
		return model.Primary
	case !local && v.in.Instance.InRecovery:
		return model.Standby
	}
	v.say(model.CodeInTransition, model.Warning, v.self,
		"the CIB says the primary is %s, but the server here is %s: nothing is done until they agree",
		primary, map[bool]string{true: "in recovery", false: "not in recovery"}[v.in.Instance.InRecovery])
	return model.InTransition
}
