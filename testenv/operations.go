package testenv

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// postmaster prints the postmaster's pid as the host sees it, and fails when there is none.
func (l *Lab) postmaster() string {
	return `pid=$(head -n 1 ` + l.Paths().Data + `/postmaster.pid 2>/dev/null) && grep -qx postgres "/proc/$pid/comm" 2>/dev/null ||
	{ echo "PostgreSQL does not run here" >&2; exit 1; }
children() { awk -v parent="$pid" '$2 == "(postgres)" && $4 == parent { print $1 }' /proc/[0-9]*/stat 2>/dev/null; }
`
}

func (l *Lab) withPostmaster(ctx context.Context, host, what, script string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := l.run(ctx, host, "", []string{"sh", "-c", l.postmaster() + script}); err != nil {
		return fmt.Errorf("%s on %s: %w", what, host, err)
	}
	return nil
}

// Crash kills a host's postmaster with SIGKILL. Its children notice and end.
func (l *Lab) Crash(ctx context.Context, host string) error {
	return l.withPostmaster(ctx, host, "kill PostgreSQL", `kill -KILL "$pid"`)
}

// Freeze stops a host's PostgreSQL, all its processes, with SIGSTOP: it keeps its connections and answers nothing.
// After a while Pacemaker finds it failed, cannot stop it, and has the host fenced.
func (l *Lab) Freeze(ctx context.Context, host string) error {
	return l.withPostmaster(ctx, host, "freeze PostgreSQL", `kill -STOP "$pid"; for c in $(children); do kill -STOP "$c"; done`)
}

// Thaw lets a host's frozen PostgreSQL go on.
func (l *Lab) Thaw(ctx context.Context, host string) error {
	return l.withPostmaster(ctx, host, "thaw PostgreSQL", `for c in $(children); do kill -CONT "$c"; done; kill -CONT "$pid"`)
}

// Standby puts a host into Pacemaker's standby mode: its resources are stopped.
func (l *Lab) Standby(ctx context.Context, host string) error { return l.setStandby(ctx, host, "on") }

// Unstandby ends a host's standby mode.
func (l *Lab) Unstandby(ctx context.Context, host string) error {
	return l.setStandby(ctx, host, "off")
}

func (l *Lab) setStandby(ctx context.Context, host, value string) error {
	if _, err := l.config.index(host); err != nil {
		return err
	}
	return l.pacemaker(ctx, "crm_attribute", "--node", host, "--name", "standby", "--update="+value)
}

// pacemaker runs one of Pacemaker's tools on a host of the partition that has quorum.
func (l *Lab) pacemaker(ctx context.Context, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	_, at, err := l.view(ctx)
	if err != nil {
		return err
	}
	_, err = l.Exec(ctx, at, argv...)
	return err
}

// Load writes WAL on the primary until its position has moved on by that many bytes. It is a load that the standbys can
// follow: it waits for those that stream, so that only an absent one falls behind.
func (l *Lab) Load(ctx context.Context, host string, bytes int64) error {
	const chunk, ahead = 8 << 20, 16 << 20 // ahead is less than wal_keep_size
	begin, err := l.SQL(ctx, host, "SELECT pg_catalog.pg_current_wal_lsn()")
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	begin = strings.TrimSpace(begin)
	for {
		var written int64
		out, err := l.SQL(ctx, host, fmt.Sprintf("SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '%s')::bigint", begin))
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if _, err := fmt.Sscan(out, &written); err != nil {
			return fmt.Errorf("load: the position on %s: %q", host, out)
		}
		if written >= bytes {
			return nil
		}
		// Messages are the cheapest WAL. The update makes it a write that changes the data and waits for the synchronous
		// standby.
		count := max(1, min(chunk, bytes-written)>>20)
		_, err = l.SQL(ctx, host, fmt.Sprintf(`SELECT max(pg_catalog.pg_logical_emit_message(false, 'rexlab', pg_catalog.repeat('x', 1048000)))
			FROM pg_catalog.generate_series(1, %d);
			INSERT INTO rexlab.writes SELECT i, now(), 'load' FROM pg_catalog.generate_series(1, 100) i
			ON CONFLICT (id) DO UPDATE SET at = now();`, count))
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		err = l.WaitFor(ctx, "the standbys that stream from "+host, func(ctx context.Context) (bool, error) {
			behind, err := l.SQL(ctx, host, fmt.Sprintf(`SELECT application_name FROM pg_catalog.pg_stat_replication
				WHERE state = 'streaming' AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), flush_lsn) > %d`, ahead))
			if err == nil && behind != "" {
				err = fmt.Errorf("behind: %s", strings.Fields(behind))
			}
			return err == nil, err
		})
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
}

// HostStatus is what the lab and Pacemaker know about a host.
type HostStatus struct {
	HostState
	Member     string `json:"member"`      // online, standby, pending, unclean or offline, in Pacemaker's words
	Role       string `json:"role"`        // promoted, unpromoted, stopped
	Status     string `json:"status"`      // the agent's <primitive>-status
	DataStatus string `json:"data_status"` // the agent's <primitive>-data-status
}

// Status is the lab as it is at one moment.
type Status struct {
	Hosts []HostStatus `json:"hosts"`
	// From is the host whose Pacemaker was asked; "" when none answers, and then only the lab's own knowledge is here.
	From   string `json:"from"`
	Quorum bool   `json:"quorum"` // that host's partition
	DC     string `json:"dc"`     // Pacemaker's designated controller; "" while there is none
}

// Status looks at the lab.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	states, err := l.control.hosts(ctx)
	if err != nil {
		return Status{}, err
	}
	m, from, _ := l.view(ctx) // a lab without a cluster has a status too
	status := Status{From: from, Quorum: m.DC.Quorum, DC: m.DC.Name}
	for _, s := range states {
		h := HostStatus{HostState: s}
		if from != "" {
			h.Member, h.Role = m.member(s.Name), m.role(s.Name)
			h.Status, h.DataStatus = m.attribute(s.Name, primitive+"-status"), m.attribute(s.Name, primitive+"-data-status")
		}
		status.Hosts = append(status.Hosts, h)
	}
	return status, nil
}

// member is a node's state in the cluster.
func (m monitor) member(host string) string {
	for _, n := range m.Nodes {
		if !strings.EqualFold(n.Name, host) {
			continue
		}
		switch {
		case n.Unclean:
			return "unclean"
		case n.Pending:
			return "pending"
		case !n.Online:
			return "offline"
		case n.Standby:
			return "standby"
		}
		return "online"
	}
	return "offline"
}
