package reconcile

import "github.com/pgrex/pgrex/model"

// RoleText is what Pacemaker says of the database on a host, as text for people.
func (w Who) RoleText(host string) string {
	if why, unsettled := w.Clone.UnsettledOn(host); unsettled {
		return string(why)
	}
	if w.WithoutServer(host) {
		return "unpromoted, but without a server"
	}
	if role := w.RoleOf(host); role != "" {
		return string(role)
	}
	return "in a state that Pacemaker does not know"
}

// Failed reports whether Pacemaker counts failures of the database on a node.
func (w Who) Failed(n model.Node) bool { return failures(n, w.Clone.Primitive) }
