package testenv

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// settings of postgresql.conf. The sizes are small, so that WAL is really recycled within minutes; the times are short,
// so that a host that is gone is noticed.
func (c Config) settings() map[string]string {
	s := map[string]string{
		"listen_addresses": "*", "unix_socket_directories": socketDir, "max_connections": "60", "shared_buffers": "32MB",
		"wal_level": "replica", "hot_standby": "on", "wal_log_hints": "on", "hot_standby_feedback": "on",
		"wal_keep_size": "32MB", "min_wal_size": "32MB", "max_wal_size": "128MB", "checkpoint_timeout": "30s",
		"max_wal_senders": "10", "max_replication_slots": "10",
		"wal_receiver_status_interval": "1s", "wal_retrieve_retry_interval": "1s",
		"wal_sender_timeout": "10s", "wal_receiver_timeout": "10s",
		// The agent's: Pacemaker restarts the server, not the server itself.
		"restart_after_crash": "off",
		// A host's power cut leaves the machine's page cache alone, so nothing that was written is lost without fsync.
		"fsync":           "off",
		"log_line_prefix": "%m [%p] ", "timezone": "UTC", "log_timezone": "UTC",
	}
	maps.Copy(s, c.PostgreSQL)
	return s
}

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
	host := l.config.Hosts[0]
	for _, step := range []struct {
		what, stdin string
		argv        []string
	}{
		{"initdb", "", []string{pgBin + "/initdb", "-D", dataDir, "-U", dba, "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8"}},
		{"write postgresql.conf", l.config.postgresqlConf(), []string{"sh", "-c", "cat >>" + dataDir + "/postgresql.conf"}},
		{"write pg_hba.conf", hba, []string{"sh", "-c", "cat >" + dataDir + "/pg_hba.conf"}},
		// A single-user server goes on after a failed statement, so its output is looked at.
		{"make the roles", l.config.databaseSQL(password), []string{"sh", "-c", singleUser}},
	} {
		argv, err := asUser(dba, dba, step.argv)
		if err != nil {
			return err
		}
		if _, err := l.run(ctx, host, step.stdin, argv); err != nil {
			return fmt.Errorf("%s on %s: %w", step.what, host, err)
		}
	}
	return nil
}

// singleUser runs statements from standard input in a server without a postmaster, and fails when one of them does.
const singleUser = `out=$(` + pgBin + `/postgres --single -D ` + dataDir + ` postgres 2>&1 >/dev/null) || { echo "$out" >&2; exit 1; }
if echo "$out" | grep -E 'ERROR:|FATAL:|PANIC:' >&2; then exit 1; fi`

// copyDatabase gives every other host the first one's database. The server has been shut down, so a copy of its files
// is what pg_basebackup would give.
func (l *Lab) copyDatabase(ctx context.Context) error {
	source := filepath.Join(hostDir(l.dir, 1), "pgsql", "data")
	group, ctx := errgroup.WithContext(ctx)
	for i := range l.config.Hosts[1:] {
		group.Go(func() error {
			target := filepath.Join(hostDir(l.dir, i+2), "pgsql")
			_, err := runGroup(ctx, "", baseEnv, []string{"cp", "-a", "--reflink=auto", source, target})
			if err != nil {
				return fmt.Errorf("copy the database to %s: %w", l.config.Hosts[i+1], err)
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
	const script = "mv " + dataDir + "/pg_wal " + walMount + "/ && ln -s " + walMount + "/pg_wal " + dataDir + "/pg_wal"
	for _, host := range l.config.Hosts {
		if _, err := l.ExecAs(ctx, dba, dba, host, "sh", "-c", script); err != nil {
			return fmt.Errorf("move the WAL of %s: %w", host, err)
		}
	}
	return nil
}
