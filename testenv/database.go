package testenv

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

func (c Config) postgresqlConf() string {
	var b strings.Builder
	b.WriteString("\n# the lab's own\n")
	s := c.settings()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(s[name], "'", "''"))
	}
	return b.String()
}

const hba = `# Inside a host its own users; over the lab's network only with a password.
local all         all                    peer
local replication all                    peer
host  all         all     ` + network + ` scram-sha-256
host  replication repuser ` + network + ` scram-sha-256
`

// fillRow is what a row of rexlab.filler takes on disk, in bytes: seven to a page.
const (
	fillRow   = 8192 / 7
	fillBatch = 64 << 20
)

// databaseSQL makes the roles and tables, one statement a line for a single-user server.
func (c Config) databaseSQL(password string) string {
	lines := []string{
		"SET password_encryption = 'scram-sha-256'",
		"ALTER ROLE postgres PASSWORD '" + password + "'",
		"CREATE ROLE repuser LOGIN REPLICATION PASSWORD '" + password + "'",
		// What pg_rewind needs of its source: https://www.postgresql.org/docs/15/app-pgrewind.html
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO repuser",
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO repuser",
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO repuser",
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO repuser",
		"CREATE SCHEMA rexlab",
		"CREATE TABLE rexlab.writes (id int PRIMARY KEY, at timestamptz, by text)",
		"CREATE TABLE rexlab.filler (id bigint, filler text)",
	}
	for written := int64(0); written < c.DataBytes; written += fillBatch {
		rows := min(fillBatch, c.DataBytes-written) / fillRow
		lines = append(lines,
			fmt.Sprintf("INSERT INTO rexlab.filler SELECT i, repeat('x', 1100) FROM generate_series(1, %d) i", rows), "CHECKPOINT")
	}
	if c.DataBytes > 0 {
		lines = append(lines, "VACUUM (FREEZE) rexlab.filler")
	}
	return strings.Join(lines, ";\n") + ";\n"
}

// makeDatabase makes the database in the first host.
func (l *Lab) makeDatabase(ctx context.Context, password string) error {
	host, at := l.config.Hosts[0], l.Paths()
	for _, step := range []struct{ what, stdin, script string }{
		{"initdb", "", l.config.initdb()},
		{"write " + at.Config, l.config.postgresqlConf(), "cat >>" + at.Config},
		{"write " + at.HBA, hba, "cat >" + at.HBA},
		// A single-user server goes on after a failed statement, so its output is looked at.
		{"make the roles", l.config.databaseSQL(password), `out=$(` + at.Bin + `/postgres --single -D ` + filepath.Dir(at.Config) +
			` postgres 2>&1 >/dev/null) || { echo "$out" >&2; exit 1; }
if echo "$out" | grep -E 'ERROR:|FATAL:|PANIC:' >&2; then exit 1; fi`},
	} {
		argv := []string{"sh", "-c", step.script}
		if step.what != "initdb" || l.config.Layout == LayoutPGREX { // Debian's tool is root's
			as, err := l.asUser(dba, dba, argv)
			if err != nil {
				return err
			}
			argv = as
		}
		if _, err := l.run(ctx, host, step.stdin, argv); err != nil {
			return fmt.Errorf("%s on %s: %w", step.what, host, err)
		}
	}
	return nil
}

// copyDatabase gives every other host the first one's database. The server has been shut down, so a copy of its files
// is what pg_basebackup would give.
func (l *Lab) copyDatabase(ctx context.Context) error {
	pids, roots := map[string]string{}, map[string]string{}
	for _, host := range l.config.Hosts {
		state, err := l.state(ctx, host)
		if err != nil {
			return err
		}
		pids[host] = strconv.Itoa(state.Process.PID)
		roots[host] = fmt.Sprintf("/proc/%d/root", state.Process.PID)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, host := range l.config.Hosts[1:] {
		group.Go(func() error {
			for _, dir := range l.config.copied() {
				// In the host's process namespace, so that it ends with the host.
				argv := []string{
					"nsenter", "--target", pids[host], "--pid", "--",
					"cp", "-a", "--no-target-directory", roots[l.config.Hosts[0]] + dir, roots[host] + dir,
				}
				if _, err := runGroup(ctx, nil, baseEnv, argv); err != nil {
					return fmt.Errorf("copy the database to %s: %w", host, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// moveWAL puts pg_wal on the file system of its own, if the lab has one, as initdb --waldir would have done.
func (l *Lab) moveWAL(ctx context.Context) error {
	if l.config.WALBytes == 0 {
		return nil
	}
	at := l.Paths()
	script := "mv " + at.Data + "/pg_wal " + at.WAL + "/ && ln -s " + at.WAL + "/pg_wal " + at.Data + "/pg_wal"
	for _, host := range l.config.Hosts {
		if _, err := l.ExecAs(ctx, dba, dba, host, "sh", "-c", script); err != nil {
			return fmt.Errorf("move the WAL of %s: %w", host, err)
		}
	}
	return nil
}
