package cib

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"time"
)

// The exit statuses of Pacemaker's tools that are told apart (enum crm_exit_e; `crm_error --list --exit` shows them).
// Statuses count, texts do not: they change from release to release.
const (
	exitInsufficientPrivileges  = 4
	exitUsage                   = 64
	exitProtocol                = 76
	exitInsufficientPrivileges2 = 77
	exitDisconnected            = 102
	exitNoSuch                  = 105
	exitExists                  = 108
	exitTimeout                 = 124
)

// explain turns the end of a tool into an error of this package; nil when it ended well. mayConnect reports whether
// this user may talk to Pacemaker at all.
func explain(mayConnect func() bool, command string, r result, err error, began time.Time) error {
	said := ""
	if r.stderr != "" {
		said = " (it says: " + r.stderr + ")"
	}
	took := time.Since(began).Round(100 * time.Millisecond)
	failed := fmt.Sprintf("%s failed with %d", command, r.exit)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s was killed after %s; see whether Pacemaker on this host hangs or is overloaded%s", ErrTimeout, command, took, said)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", command, err)
	case errors.Is(err, errOutputTooLong):
		return unparseable("%s printed more than Pacemaker ever does; is this a CIB?", command)
	case errors.Is(err, ErrEnded):
		return fmt.Errorf("%w: type, as root: %s", err, command)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s: no such program; install pacemaker-cli-utils (RPM: pacemaker-cli), or put it on PATH", ErrNotInstalled, command)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: this user may not run %s; %s", ErrPermission, command, inGroup)
	case err != nil && r.exit <= 0:
		return fmt.Errorf("%w: %s: %w%s", ErrFailed, command, err, said)
	case r.exit == 0:
		return nil
	case r.exit == exitUsage:
		return fmt.Errorf("%w: %s: it does not know these options; pgrex needs Pacemaker 2.0.3 or newer%s", ErrFailed, failed, said)
	case r.exit == exitTimeout:
		return fmt.Errorf("%w: %s; see whether Pacemaker on this host hangs or is overloaded%s", ErrTimeout, failed, said)
	case r.exit == exitInsufficientPrivileges, r.exit == exitInsufficientPrivileges2:
		return fmt.Errorf("%w: %s; %s%s", ErrPermission, failed, inGroup, said)
	case r.exit != exitDisconnected && r.exit != exitProtocol:
		return fmt.Errorf("%w: %s; crm_error --exit %d explains it%s", ErrFailed, failed, r.exit, said)
	case mayConnect():
		return fmt.Errorf("%w: %s; start it as root with systemctl start pacemaker, or see systemctl status pacemaker%s", ErrClusterDown, failed, said)
	}
	// Pacemaker hangs up on users that may not talk to it: to its tools that looks as if it were not running.
	return fmt.Errorf("%w: %s, and this program is not in the group %s; %s%s",
		ErrPermission, failed, ClusterGroup, inGroup, said)
}

// ClusterGroup is the group whose members may talk to Pacemaker's daemons, and with that do anything on every node.
// Beside
// them root may, and the user that the daemons run as.
const ClusterGroup = "haclient"

const clusterUser = "hacluster"

// inGroup is how to give this program the group. To make the database's owner its member would give it to every
// backend, and with it the cluster, and root on all nodes, to every superuser of the database.
const inGroup = "run what changes more than slots as root (sudo pgrex), and what only looks with that group alone, as pgrex.service " +
	"does: runuser -u USER -g " + ClusterGroup + " -- pgrex; do not make USER its member"

// mayConnect reports whether what runs the tools may. In doubt it may.
func mayConnect() bool {
	if os.Geteuid() == 0 || remote.Load() != nil {
		return true
	}
	if u, err := user.Lookup(clusterUser); err == nil && u.Uid == strconv.Itoa(os.Geteuid()) {
		return true
	}
	in, err := InGroup()
	return in || err != nil
}

// InGroup reports whether this process has the group haclient. Where there is no such group, that is an error.
func InGroup() (bool, error) {
	group, err := user.LookupGroup(ClusterGroup)
	if err != nil {
		return false, err
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return false, err
	}
	groups, err := os.Getgroups()
	return gid == os.Getegid() || slices.Contains(groups, gid), err
}
