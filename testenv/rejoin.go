package testenv

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Rewind brings a host back with pg_rewind, as an operator would: Pacemaker is kept away from it, its data is
// crash-recovered, the primary is checkpointed so that its control file shows its timeline, pg_rewind runs, the agent's
// lock and fail count are cleared, and Pacemaker starts it. When it fails the host is left in standby mode.
func (l *Lab) Rewind(ctx context.Context, host string) error {
	return l.rejoin(ctx, host, "pg_rewind", func(ctx context.Context, primary string) error {
		if err := l.recoverCrashed(ctx, host); err != nil {
			return err
		}
		if _, err := l.SQL(ctx, primary, "CHECKPOINT"); err != nil {
			return err
		}
		_, err := l.asDBA(ctx, host, l.Paths().Bin+"/pg_rewind", "--no-sync", "--target-pgdata="+l.Paths().Data,
			"--source-server=host="+VIP+" user="+repUser+" dbname=postgres passfile="+l.Paths().Pass)
		return err
	})
}

// Copy brings a host back with a new copy of the primary's database, or of another standby's when from is not "". What
// it does beside is what Rewind does.
func (l *Lab) Copy(ctx context.Context, host, from string) error {
	source := VIP
	if from != "" {
		index, err := l.config.index(from)
		if err != nil {
			return err
		}
		if from == host {
			return fmt.Errorf("%s cannot be a copy of itself", host)
		}
		source = address(index)
	}
	return l.rejoin(ctx, host, "pg_basebackup", func(ctx context.Context, _ string) error {
		if _, err := l.asDBA(ctx, host, "find", l.Paths().Data, "-mindepth", "1", "-delete"); err != nil {
			return err
		}
		_, err := l.asDBA(ctx, host, l.Paths().Bin+"/pg_basebackup", "--no-sync", "--checkpoint=fast", "--wal-method=stream",
			"--pgdata="+l.Paths().Data, "--host="+source, "--username="+repUser, "--no-password")
		return err
	})
}

// asDBA runs one of PostgreSQL's programs as its owner.
func (l *Lab) asDBA(ctx context.Context, host string, argv ...string) (string, error) {
	as, err := l.asUser(dba, dba, append([]string{"PGPASSFILE=" + l.Paths().Pass}, argv...))
	if err != nil {
		return "", err
	}
	out, err := l.run(ctx, host, "", as)
	if err != nil {
		err = fmt.Errorf("%s: %w", argv[0], err)
	}
	return out, err
}

// rejoin is what is around Rewind and Copy.
func (l *Lab) rejoin(ctx context.Context, host, how string, mend func(ctx context.Context, primary string) error) error {
	if _, err := l.config.index(host); err != nil {
		return err
	}
	var primary string
	err := l.WaitFor(ctx, "a primary", func(ctx context.Context) (ok bool, err error) {
		primary, err = l.Primary(ctx)
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("%s for %s: %w", how, host, err)
	}
	if primary == host {
		return fmt.Errorf("%s is the primary: %s is for a host that is to follow it", host, how)
	}
	if err := l.stopDatabase(ctx, host); err != nil {
		return fmt.Errorf("%s for %s: %w", how, host, err)
	}
	if err := mend(ctx, primary); err != nil {
		return fmt.Errorf("%s for %s: %w; it is left in standby mode", how, host, err)
	}
	if err := l.startDatabase(ctx, host); err != nil {
		return fmt.Errorf("after %s for %s: %w", how, host, err)
	}
	return nil
}

// stopDatabase keeps Pacemaker away from a host's database, which is then not running. Standby mode does so whatever
// state the resource is in.
func (l *Lab) stopDatabase(ctx context.Context, host string) error {
	state, err := l.state(ctx, host)
	if err != nil {
		return err
	}
	if !state.On {
		return fmt.Errorf("it has no power: 'rexlab on %s' gives it", host)
	}
	err = l.WaitFor(ctx, host+" as a member of the cluster", func(ctx context.Context) (bool, error) {
		m, _, err := l.view(ctx)
		if err != nil {
			return false, err
		}
		member := m.member(host)
		return member == "online" || member == "standby", fmt.Errorf("it is %s", member)
	})
	if err != nil {
		return err
	}
	if err := l.Standby(ctx, host); err != nil {
		return err
	}
	return l.WaitFor(ctx, "the end of PostgreSQL on "+host, func(ctx context.Context) (bool, error) {
		m, _, err := l.view(ctx)
		if err != nil {
			return false, err
		}
		if role := m.role(host); m.member(host) != "standby" || role != "stopped" {
			return false, fmt.Errorf("it is %s, its database %s", m.member(host), role)
		}
		if l.withPostmaster(ctx, host, "look", "") == nil {
			return false, errors.New("PostgreSQL runs, though Pacemaker says it is stopped")
		}
		return true, nil
	})
}

// recoverCrashed lets a database that was not shut down replay its own WAL, without following anybody: pg_rewind wants
// it clean, and a server in single-user mode refuses to be a standby, which the agent's last attempt may have made it.
func (l *Lab) recoverCrashed(ctx context.Context, host string) error {
	out, err := l.asDBA(ctx, host, l.Paths().Bin+"/pg_controldata", l.Paths().Data)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, state, _ := strings.Cut(line, ":")
		if name == "Database cluster state" && strings.HasPrefix(strings.TrimSpace(state), "shut down") {
			return nil
		}
	}
	if _, err := l.asDBA(ctx, host, "rm", "-f", l.Paths().Data+"/standby.signal", l.Paths().Data+"/recovery.signal"); err != nil {
		return err
	}
	// The end of recovery is a checkpoint, which must not recycle the WAL since the last common one.
	recovery := fmt.Sprintf("%s/postgres --single -D %s -c synchronous_standby_names= -c wal_keep_size=2147483647 template1 </dev/null",
		l.Paths().Bin, filepath.Dir(l.Paths().Config))
	if _, err := l.asDBA(ctx, host, "sh", "-c", recovery); err != nil {
		return fmt.Errorf("crash recovery: %w", err)
	}
	return nil
}

// startDatabase lets Pacemaker start a host's database, whose data somebody has just put right.
func (l *Lab) startDatabase(ctx context.Context, host string) error {
	if _, err := l.Exec(ctx, host, "rm", "-f", l.Paths().Agent+"/PGSQL.lock"); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"crm_resource", "--cleanup", "--resource", primitive, "--node", host},
		// The agent bans a host whose data was ahead of the new primary's.
		{"crm_resource", "--clear", "--resource", primitive, "--node", host},
	} {
		if err := l.pacemaker(ctx, argv...); err != nil {
			return err
		}
	}
	if err := l.Unstandby(ctx, host); err != nil {
		return err
	}
	return l.WaitFor(ctx, host+" as a standby that answers", func(ctx context.Context) (bool, error) {
		m, _, err := l.view(ctx)
		if err != nil {
			return false, err
		}
		if role := m.role(host); role != "unpromoted" {
			return false, fmt.Errorf("its database is %s", role)
		}
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		out, err := l.SQL(ctx, host, "SELECT pg_catalog.pg_is_in_recovery()")
		if err == nil && strings.TrimSpace(out) != "t" {
			err = errors.New("it is no standby")
		}
		return err == nil, err
	})
}
