package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// blocking are the findings that stop every operation on this host. blockingPolicy are those that stop an operation
// which relies on slots.
var (
	blocking       = []model.Code{model.CodeClusterUnknown, model.CodeNodeDiffers, model.CodeAmbiguousParameter}
	blockingPolicy = []model.Code{model.CodeInvalidPolicy, model.CodeNotReplicated, model.CodeNotMember}
)

var errNoQuorum = errors.New("this partition has no quorum: bring the other hosts or the network back first")

// Demand is what an operation needs beyond a cluster that says who is who.
type Demand struct {
	Managed bool // Pacemaker has to start or stop something for it
	Policy  bool // the operation relies on the slots that the policy asks for
}

// Preflight refuses a cluster in which an operation must not begin. It checks in the order in which an operator puts
// things right.
func Preflight(who reconcile.Who, d Demand) error {
	var texts []string
	for _, f := range who.Findings {
		if slices.Contains(blocking, f.Code) || d.Policy && slices.Contains(blockingPolicy, f.Code) {
			texts = append(texts, f.Text)
		}
	}
	if len(texts) > 0 {
		return errors.New(strings.Join(texts, "; "))
	}
	if err := isMember(who); err != nil {
		return err
	}
	switch {
	case d.Managed && (who.Cluster.Maintenance || who.Here.Maintenance || !who.Clone.Managed):
		return fmt.Errorf("the cluster, this node or the database is in maintenance, where Pacemaker starts and stops nothing: %s",
			leaveFirst(who.Clone))
	case d.Managed && who.Clone.StopAltered(who.Here.Name): // to make it again would do nothing
		id := model.StopConstraint(who.Clone.Primitive, who.Here.Name)
		return fmt.Errorf("the constraint %s was changed, and does not keep the database from this node: type: %s", id,
			cib.Command{Path: "sudo", Args: []string{"cibadmin", "--delete", "--xml-text", `<rsc_location id="` + id + `"/>`}})
	}
	return nil
}

// leaveFirst explains how to leave maintenance. If a switchover has left a ban, Pacemaker then stops the database. If
// a parameter was changed, Pacemaker restarts the database, unless Pacemaker has looked again before.
func leaveFirst(clone model.Clone) string {
	if slices.ContainsFunc(clone.Locations, model.Location.ByTool) {
		return "first " + cib.ClearBan(clone.ID, "").String() + ", because Pacemaker would stop or demote the database where it is banned; then leave it"
	}
	return "leave it first; but after a killed adopt or release, first let Pacemaker look again: " +
		"crm_resource --wait, then crm_resource --refresh, until crm_mon shows every role"
}

// OnPrimary looks at the cluster from this host, which must be the confirmed primary.
func OnPrimary(ctx context.Context, observer *controller.Observer) (reconcile.Who, error) {
	who, err := observer.Full(ctx)
	if err == nil && who.Cluster == nil {
		err = errors.New(who.ClusterProblem)
	}
	if err != nil {
		return who, err
	}
	primary, err := who.ConfirmedPrimary()
	switch {
	case err != nil:
		return who, err
	case !who.Is(primary):
		return who, fmt.Errorf("this host, %s, is not the primary: run it on %s", who.Node, primary)
	case who.Instance.State != model.ServerUp || who.Instance.InRecovery:
		return who, fmt.Errorf("PostgreSQL here is %s, or a standby: %s", who.Instance.State, who.Instance.Problem)
	}
	return who, Preflight(who, Demand{Managed: true, Policy: true})
}

// IsPrimary returns an error unless a host is confirmed as primary.
func IsPrimary(ctx context.Context, observer *controller.Observer, host string) error {
	who, err := observer.Cluster(ctx)
	if err != nil {
		return err
	}
	primary, err := who.ConfirmedPrimary()
	if err == nil && !model.SameNode(primary, host) {
		err = fmt.Errorf("the primary is %s", primary)
	}
	return err
}

// isMember returns an error unless this host has joined a partition with quorum. Until then its CIB may be one from
// before. With fencing, crm_mon shows a host that is joining as online, too, and as pending (Pacemaker,
// determine_online_status_fencing).
func isMember(who reconcile.Who) error {
	switch {
	case !who.Here.Online, who.Here.Pending:
		return fmt.Errorf("this host, %s, has not joined the cluster: start Pacemaker here, or wait until crm_mon shows it online and not pending", who.Node)
	case who.Cluster.DC == "":
		return errors.New("the cluster has no DC yet: wait until crm_mon shows one")
	case !who.Cluster.Quorate:
		return errNoQuorum
	}
	return nil
}
