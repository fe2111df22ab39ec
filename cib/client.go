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

	"github.com/pgrex/pgrex/model"
)

// DefaultTimeout is how long cibadmin may take. It takes 30 ms on a small cluster.
const DefaultTimeout = 10 * time.Second

// Client asks Pacemaker for the CIB by running cibadmin. The zero value is ready to use, also by several goroutines.
//
// cibadmin sees our environment: with CIB_file=FILE set it reads that file and needs no cluster.
type Client struct {
	// Command is cibadmin's path; "cibadmin", found on PATH, when empty.
	Command string
	// Timeout is how long it may take; DefaultTimeout when zero. An earlier deadline of the context goes before.
	Timeout time.Duration

	mayConnect func() bool // mayConnect, but for tests
}

// Read asks for the CIB and understands it.
//
// Its errors are those of this package (see ErrClusterDown and its neighbours), or the context's own when that was
// cancelled.
func (c *Client) Read(ctx context.Context) (model.Cluster, error) {
	data, err := c.query(ctx)
	if err != nil {
		return model.Cluster{}, err
	}
	return Parse(data)
}

func (c *Client) query(ctx context.Context) ([]byte, error) {
	command, timeout := c.Command, c.Timeout
	if command == "" {
		command = "cibadmin"
	}
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := run(ctx, command, []string{"--query"}, MaxSize)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: %s --query was killed after %s; see whether pacemaker-based on this host hangs or is overloaded%s",
			ErrTimeout, command, time.Since(started).Round(100*time.Millisecond), said(r))
	case errors.Is(err, context.Canceled):
		return nil, fmt.Errorf("%s --query: %w", command, err)
	case errors.Is(err, errOutputTooLong):
		return nil, unparseable("%s --query printed more than %d bytes; is this a CIB?", command, MaxSize)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %q is not there; install pacemaker-cli-utils (RPM: pacemaker-cli), or put it on PATH",
			ErrNotInstalled, command)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: this user may not run %s; add the user to the group haclient", ErrPermission, command)
	case err != nil && r.exit <= 0:
		return nil, fmt.Errorf("%w: %s --query: %w%s", ErrFailed, command, err, said(r))
	case r.exit != 0:
		return nil, fmt.Errorf("%w%s", c.exitError(command, r.exit), said(r))
	}
	return r.stdout, nil
}

// The exit codes of Pacemaker's tools that are told apart (enum crm_exit_e; `crm_error --list --exit` shows them).
const (
	exitInsufficientPrivileges  = 4
	exitProtocol                = 76
	exitInsufficientPrivileges2 = 77
	exitConfig                  = 78
	exitDisconnected            = 102
	exitNoSuch                  = 105
	exitNotApplicable           = 113
	exitTimeout                 = 124
)

// exitError tells what an exit code of cibadmin means.
func (c *Client) exitError(command string, code int) error {
	failed := fmt.Sprintf("%s --query failed with %d", command, code)
	switch code {
	case exitDisconnected, exitProtocol:
		// Pacemaker hangs up on users that may not talk to it: to cibadmin that looks as if it were not running.
		allowed := mayConnect
		if c.mayConnect != nil {
			allowed = c.mayConnect
		}
		if !allowed() {
			return fmt.Errorf("%w: %s, and this user is not in the group %s; add it, then start this program anew",
				ErrPermission, failed, clusterGroup)
		}
		return fmt.Errorf("%w: %s; start the cluster on this host, or see systemctl status pacemaker", ErrClusterDown, failed)
	case exitInsufficientPrivileges, exitInsufficientPrivileges2:
		return fmt.Errorf("%w: %s; add this user to the group %s", ErrPermission, failed, clusterGroup)
	case exitTimeout:
		return fmt.Errorf("%w: %s; see whether pacemaker-based on this host hangs or is overloaded", ErrTimeout, failed)
	case exitConfig, exitNoSuch, exitNotApplicable:
		for _, name := range []string{"CIB_file", "CIB_shadow"} {
			if value := os.Getenv(name); value != "" {
				return fmt.Errorf("%w: %s; see whether %s=%s is a CIB that this user can read", ErrFailed, failed, name, value)
			}
		}
		return fmt.Errorf("%w: %s; check the CIB with crm_verify --live-check", ErrFailed, failed)
	}
	return fmt.Errorf("%w: %s; crm_error --exit %d tells what that means", ErrFailed, failed, code)
}

// Who may talk to Pacemaker's daemons: root, the user that they run as, and the members of this group.
const (
	clusterUser  = "hacluster"
	clusterGroup = "haclient"
)

// mayConnect tells whether this process may. In doubt it may.
func mayConnect() bool {
	if os.Geteuid() == 0 {
		return true
	}
	if u, err := user.Lookup(clusterUser); err == nil && u.Uid == strconv.Itoa(os.Geteuid()) {
		return true
	}
	group, err := user.LookupGroup(clusterGroup)
	if err != nil {
		return true
	}
	groups, err := os.Getgroups()
	gid, notNumber := strconv.Atoi(group.Gid)
	return err != nil || notNumber != nil || gid == os.Getegid() || slices.Contains(groups, gid)
}

// said repeats what the command said of itself, for the end of an error.
func said(r result) string {
	if r.stderr == "" {
		return ""
	}
	return " (it says: " + r.stderr + ")"
}
