package cib

import (
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Validate checks what everybody who reads a model.Cluster relies on: names of nodes differ (without regard to
// case, as Pacemaker compares them), nodes and clones are in order, clones differ, and roles are known ones of known
// nodes. Its errors are ErrUnparseable. Client calls it.
func Validate(c model.Cluster) error {
	seen := map[string]string{}
	for i, n := range c.Nodes {
		if n.Name == "" {
			return unparseable("the node with id %q has no name; remove it with crm_node --remove", n.ID)
		}
		if id, twice := seen[model.FoldNode(n.Name)]; twice {
			return unparseable("two nodes are named %q (ids %q and %q); remove the one that is gone with crm_node --remove",
				n.Name, id, n.ID)
		}
		seen[model.FoldNode(n.Name)] = n.ID
		if i > 0 && c.Nodes[i-1].Name >= n.Name {
			return unparseable("the nodes %q and %q are out of order", c.Nodes[i-1].Name, n.Name)
		}
	}
	if _, known := seen[model.FoldNode(c.DC)]; c.DC != "" && !known {
		return unparseable("the DC %q is not among the nodes", c.DC)
	}
	for i, clone := range c.Clones {
		if i > 0 && compareClones(c.Clones[i-1], clone) >= 0 {
			return unparseable("the clone %q holds %q twice; check the CIB with crm_verify --live-check", clone.ID, clone.Primitive)
		}
		if err := validateRoles(clone, seen); err != nil {
			return err
		}
	}
	return nil
}

// validateRoles checks a clone's roles; nodes are the names that are known, folded.
func validateRoles(clone model.Clone, nodes map[string]string) error {
	var strangers, strange []string
	for name := range clone.Unsettled {
		if _, known := nodes[model.FoldNode(name)]; !known {
			strangers = append(strangers, name)
		}
	}
	for name, role := range clone.Roles {
		if _, known := nodes[model.FoldNode(name)]; !known {
			strangers = append(strangers, name)
		}
		if role != model.RolePromoted && role != model.RoleUnpromoted && role != model.RoleStopped {
			strange = append(strange, name)
		}
	}
	switch {
	case len(strangers) > 0:
		return unparseable("the clone %q has a role on %q, which is not among the nodes", clone.ID, slices.Min(strangers))
	case len(strange) > 0:
		name := slices.Min(strange)
		return unparseable("the clone %q has the unknown role %q on %q", clone.ID, clone.Roles[name], name)
	}
	return nil
}

func compareClones(a, b model.Clone) int {
	if c := strings.Compare(a.ID, b.ID); c != 0 {
		return c
	}
	return strings.Compare(a.Primitive, b.Primitive)
}
