package testenv

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"
)

// monitor is what crm_mon prints as XML, as far as the lab uses it.
type monitor struct {
	DC struct {
		Present bool   `xml:"present,attr"`
		Name    string `xml:"name,attr"`
		Quorum  bool   `xml:"with_quorum,attr"`
	} `xml:"summary>current_dc"`
	Nodes []struct {
		Name    string `xml:"name,attr"`
		Online  bool   `xml:"online,attr"`
		Standby bool   `xml:"standby,attr"`
		Unclean bool   `xml:"unclean,attr"`
		Pending bool   `xml:"pending,attr"`
	} `xml:"nodes>node"`
	Clones []struct {
		ID        string `xml:"id,attr"`
		Resources []struct {
			Role   string `xml:"role,attr"`
			Failed bool   `xml:"failed,attr"`
			Nodes  []struct {
				Name string `xml:"name,attr"`
			} `xml:"node"`
		} `xml:"resource"`
	} `xml:"resources>clone"`
	Attributes []struct {
		Name   string `xml:"name,attr"`
		Values []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"attribute"`
	} `xml:"node_attributes>node"`
}

// attribute is a node attribute; "" when it is not set.
func (m monitor) attribute(host, name string) string {
	for _, node := range m.Attributes {
		if !strings.EqualFold(node.Name, host) {
			continue
		}
		for _, v := range node.Values {
			if v.Name == name {
				return v.Value
			}
		}
	}
	return ""
}

// role is the database's role on a host in Pacemaker's words: promoted, unpromoted, stopped, with "failed" where it is.
func (m monitor) role(host string) string {
	for _, c := range m.Clones {
		if c.ID != clone {
			continue
		}
		for _, r := range c.Resources {
			for _, n := range r.Nodes {
				if !strings.EqualFold(n.Name, host) {
					continue
				}
				role := map[string]string{"Master": "promoted", "Slave": "unpromoted"}[r.Role]
				if role == "" {
					role = strings.ToLower(r.Role)
				}
				if r.Failed {
					role += " failed"
				}
				return role
			}
		}
	}
	return "stopped"
}

// monitor asks Pacemaker on one host.
func (l *Lab) monitor(ctx context.Context, host string) (monitor, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var m monitor
	text, err := l.Exec(ctx, host, "crm_mon", "-1", "--output-as=xml")
	if err != nil {
		return m, err
	}
	if err := xml.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("crm_mon on %s: %w", host, err)
	}
	return m, nil
}

// view asks Pacemaker: the first host whose partition has quorum, or else the first that answers, and says which.
func (l *Lab) view(ctx context.Context) (monitor, string, error) {
	states, err := l.control.hosts(ctx)
	if err != nil {
		return monitor{}, "", err
	}
	var second monitor
	var answered string
	problems := errors.New("no host's Pacemaker answers")
	for _, cut := range []bool{false, true} {
		for _, s := range states {
			if !s.On || s.Cut != cut {
				continue
			}
			m, err := l.monitor(ctx, s.Name)
			switch {
			case err != nil:
				problems = fmt.Errorf("%w; %w", problems, err)
			case m.DC.Present && m.DC.Quorum:
				return m, s.Name, nil
			case answered == "":
				second, answered = m, s.Name
			}
		}
	}
	if answered == "" {
		return monitor{}, "", problems
	}
	return second, answered, nil
}

// Primary is the host that Pacemaker has promoted and the agent calls PRI. It is an error when there is none, or more
// than one.
func (l *Lab) Primary(ctx context.Context) (string, error) {
	m, _, err := l.view(ctx)
	if err != nil {
		return "", err
	}
	var primaries, seen []string
	for _, h := range l.config.Hosts {
		role, status := m.role(h), m.attribute(h, primitive+"-status")
		seen = append(seen, fmt.Sprintf("%s %s %s", h, role, status))
		if role == "promoted" && status == "PRI" {
			primaries = append(primaries, h)
		}
	}
	if len(primaries) != 1 {
		return "", fmt.Errorf("%d hosts are the primary: %s", len(primaries), strings.Join(seen, ", "))
	}
	return primaries[0], nil
}

// WaitFor polls until the condition holds. The error that comes with false only says why not yet; at the deadline the
// last one is in the error, beside what was awaited. Without a deadline it waits two minutes.
func (l *Lab) WaitFor(ctx context.Context, what string, condition func(context.Context) (bool, error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
	}
	return poll(ctx, 300*time.Millisecond, what, condition)
}

// WaitPrimary waits until a host is the primary and takes writes.
func (l *Lab) WaitPrimary(ctx context.Context, host string) error {
	return l.WaitFor(ctx, host+" as the primary", func(ctx context.Context) (bool, error) {
		now, err := l.Primary(ctx)
		if err != nil || now != host {
			return false, errors.Join(err, fmt.Errorf("the primary is %q", now))
		}
		return l.writable(ctx)
	})
}

// ApplicationName is the application_name that the agent gives a host's standby, as PostgreSQL shows it: it keeps 63
// bytes.
func ApplicationName(host string) string {
	name := strings.ToLower(host)
	return name[:min(len(name), 63)]
}

// WaitStreaming waits until a standby streams from the primary. Both are asked: a primary shows a standby that has lost
// its power for wal_sender_timeout more.
func (l *Lab) WaitStreaming(ctx context.Context, host string) error {
	return l.WaitFor(ctx, host+" as a standby that streams", func(ctx context.Context) (bool, error) {
		primary, err := l.Primary(ctx)
		if err != nil {
			return false, err
		}
		for _, look := range []struct{ at, sql string }{
			{host, "SELECT status FROM pg_catalog.pg_stat_wal_receiver"},
			{primary, fmt.Sprintf("SELECT state FROM pg_catalog.pg_stat_replication WHERE application_name = '%s'", ApplicationName(host))},
		} {
			limited, cancel := context.WithTimeout(ctx, 15*time.Second)
			state, err := l.SQL(limited, look.at, look.sql)
			cancel()
			if err != nil {
				return false, err
			}
			if state = strings.TrimSpace(state); state != "streaming" {
				return false, fmt.Errorf("%s says that %s is in state %q", look.at, host, state)
			}
		}
		return true, nil
	})
}

// writable tells whether the virtual IP takes writes.
func (l *Lab) writable(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := l.VIPSQL(ctx, "INSERT INTO rexlab.writes VALUES (0, now(), 'rexlab') ON CONFLICT (id) DO UPDATE SET at = now()")
	return err == nil, err
}

func (l *Lab) awaitMembers(ctx context.Context) error {
	return poll(ctx, 200*time.Millisecond, "all hosts as members of the cluster", func(ctx context.Context) (bool, error) {
		m, host, err := l.view(ctx)
		if err != nil {
			return false, err
		}
		online := 0
		for _, n := range m.Nodes {
			if n.Online && !n.Pending {
				online++
			}
		}
		if online < len(l.config.Hosts) {
			return false, fmt.Errorf("%s sees %d of %d hosts online, and the DC is %q", host, online, len(l.config.Hosts), m.DC.Name)
		}
		return m.DC.Present, fmt.Errorf("%s sees no DC", host)
	})
}

func (l *Lab) awaitPromoted(ctx context.Context) error {
	return poll(ctx, 200*time.Millisecond, l.config.Hosts[0]+" as the primary", func(ctx context.Context) (bool, error) {
		host, err := l.Primary(ctx)
		return err == nil && host == l.config.Hosts[0], err
	})
}

func (l *Lab) awaitWritable(ctx context.Context) error {
	return poll(ctx, 200*time.Millisecond, "writes through the virtual IP", l.writable)
}

// awaitStandbys waits until every standby streams and the agent would promote one of them.
func (l *Lab) awaitStandbys(ctx context.Context) error {
	for _, h := range l.config.Hosts[1:] {
		if err := l.WaitStreaming(ctx, h); err != nil {
			return err
		}
	}
	if l.config.RepMode == "async" && len(l.config.Hosts) > 2 {
		return nil // the agent promotes none before the primary has failed, because it cannot tell which one is ahead
	}
	return poll(ctx, 200*time.Millisecond, "a standby that the agent would promote", func(ctx context.Context) (bool, error) {
		m, _, err := l.view(ctx)
		if err != nil {
			return false, err
		}
		var seen []string
		for _, h := range l.config.Hosts[1:] {
			score := m.attribute(h, "master-"+primitive)
			seen = append(seen, fmt.Sprintf("%s %s %s", h, m.attribute(h, primitive+"-status"), score))
			if score == "100" {
				return true, nil
			}
		}
		return false, errors.New(strings.Join(seen, ", "))
	})
}
