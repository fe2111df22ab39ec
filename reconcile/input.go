package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Input is everything that a plan is made from.
type Input struct {
	// Node is the local host's node name; upper and lower case are the same, as for Pacemaker.
	Node string `json:"node"`
	// LocalName is what Pacemaker itself calls this host.
	LocalName model.LocalName `json:"local_name,omitzero"`
	// Versions are those of what runs here beside PostgreSQL.
	Versions model.Versions `json:"versions,omitzero"`
	// Resource picks the database's clone by the clone's or the primitive's id; "" when there is only one.
	Resource string `json:"resource,omitempty"`
	// Cluster is nil when the CIB could not be read; ClusterProblem then says why.
	Cluster        *model.Cluster `json:"cluster"`
	ClusterProblem string         `json:"cluster_problem,omitempty"`
	// Lock is the path of the agent's PGSQL.lock, if that exists on this host: a primary ran here, and did not stop as
	// the last host. Otherwise it is "". It is looked for if there is no primary, or no server here.
	Lock string `json:"lock,omitempty"`
	// WithoutPrimary is for how many seconds nobody has been the primary, at least 1 where the daemon has measured it;
	// 0 in a single look.
	WithoutPrimary float64 `json:"without_primary,omitempty"`
	// Newest is the newest CIB version seen so far. Older ones justify nothing destructive.
	Newest   model.Version  `json:"newest_version"`
	Instance model.Instance `json:"instance"`
	// Upstream is nil when it was not or could not be read; UpstreamProblem then says why.
	Upstream        *model.Upstream `json:"upstream,omitempty"`
	UpstreamProblem string          `json:"upstream_problem,omitempty"`
	// Operation is what this host's state folder says of an operation that was begun here. It is nil if there is none,
	// or if nobody has looked.
	Operation *model.LocalOperation `json:"operation,omitempty"`
	// Crash is the end of this host's postmaster that the daemon has noticed last; nil if there was none.
	Crash *model.CrashHint `json:"crash,omitempty"`
	// Unwatched is why the daemon cannot hold this host's postmaster, if it should; "" if it can.
	Unwatched string `json:"unwatched,omitempty"`
	// AutoRejoin is what this host remembers of its ways back without a person. It is nil if nobody has looked.
	AutoRejoin *model.AutoRejoin `json:"auto_rejoin,omitempty"`
	// WALRate is how fast WAL comes here, as the daemon has measured it; zero when it is unknown, as for a single plan.
	WALRate model.WALRate `json:"wal_rate,omitzero"`
}

// InputError tells that no plan can be made: what is wrong, and what to do.
type InputError struct{ Problem string }

// Error implements error.
func (e *InputError) Error() string { return e.Problem }

func inputErrorf(format string, args ...any) error {
	return &InputError{fmt.Sprintf(format, args...)}
}

// Database finds the clone that runs the database: the one resource names, or else the only one of a known agent.
func Database(c model.Cluster, resource string) (model.Clone, error) {
	named := func(clone model.Clone) bool {
		return resource == "" || resource == clone.ID || resource == clone.Primitive
	}
	for _, clone := range c.Clones {
		if resource != "" && named(clone) && !slices.Contains(model.DatabaseAgents, clone.Agent) {
			return model.Clone{}, inputErrorf("resource %s has the agent %s, which pgrex does not know; it knows %s",
				resource, clone.Agent, strings.Join(model.DatabaseAgents, " and "))
		}
	}
	found := slices.DeleteFunc(databasesOf(c), func(clone model.Clone) bool { return !named(clone) })
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return model.Clone{}, inputErrorf("the CIB has %d database resources (%s): pick one with --instance and the id of its primitive, or with --resource",
			len(found), strings.Join(primitives(found), ", "))
	case resource != "":
		return model.Clone{}, inputErrorf("the CIB has no database resource %s; promotable clones: %s",
			resource, orNone(primitives(c.Clones)))
	}
	return model.Clone{}, inputErrorf("the CIB has no promotable clone of %s; promotable clones: %s",
		strings.Join(model.DatabaseAgents, " or "), orNone(primitives(c.Clones)))
}

// databasesOf returns the clones that run databases.
func databasesOf(c model.Cluster) []model.Clone {
	return slices.DeleteFunc(slices.Clone(c.Clones), func(clone model.Clone) bool {
		return !slices.Contains(model.DatabaseAgents, clone.Agent)
	})
}

func primitives(clones []model.Clone) []string {
	var names []string
	for _, c := range clones {
		names = append(names, c.Primitive+" ("+c.Agent+")")
	}
	slices.Sort(names)
	return names
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
