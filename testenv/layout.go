package testenv

import (
	"fmt"
	"maps"
	"strings"
)

// Layouts are the ways in which a database host can be laid out, the default first.
const (
	// LayoutPGREX is PG-REX's own: data and configuration in one folder of /var/lib/pgsql.
	LayoutPGREX = "pgrex"
	// LayoutDebian is that of Debian's packages: configuration in /etc/postgresql, which the agent's "config" names, data
	// in /var/lib/postgresql, TLS with the key that belongs to the group ssl-cert.
	LayoutDebian = "debian"
)

// Paths are the places of PostgreSQL on a lab's hosts.
type Paths struct {
	Bin     string // PostgreSQL's programs
	Home    string // of the user postgres
	Data    string // the data folder
	Config  string // postgresql.conf
	HBA     string // pg_hba.conf
	Socket  string // the folder of PostgreSQL's socket
	Agent   string // the agent's tmpdir
	Lock    string // PGSQL.lock, in it
	Pass    string // .pgpass
	WAL     string // the mount point of pg_wal's own file system, if the lab has one
	Archive string // a folder for an archive, not made
}

// Paths are the places of PostgreSQL on this lab's hosts.
func (l *Lab) Paths() Paths { return l.config.paths() }

func (c Config) paths() Paths {
	major := c.system().PostgreSQL
	p := Paths{Bin: "/usr/lib/postgresql/" + major + "/bin", Home: "/var/lib/pgsql", Socket: socketDir}
	p.Data = p.Home + "/data"
	p.Config, p.HBA = p.Data+"/postgresql.conf", p.Data+"/pg_hba.conf"
	if c.Layout == LayoutDebian {
		p.Home = "/var/lib/postgresql"
		p.Data = p.Home + "/" + major + "/main"
		config := "/etc/postgresql/" + major + "/main"
		p.Config, p.HBA = config+"/postgresql.conf", config+"/pg_hba.conf"
	}
	p.Agent, p.Pass, p.WAL, p.Archive = p.Home+"/tmp", p.Home+"/.pgpass", p.Home+"/wal", p.Home+"/archive"
	p.Lock = p.Agent + "/PGSQL.lock"
	return p
}

// agentParameters are those of the pgsql agent, as PG-REX sets them.
func (c Config) agentParameters() map[string]string {
	at := c.paths()
	p := map[string]string{
		"pgctl": at.Bin + "/pg_ctl", "psql": at.Bin + "/psql", "pgdata": at.Data, "start_opt": "-p 5432",
		"rep_mode": c.RepMode, "node_list": strings.Join(c.Hosts, " "), "master_ip": VIP, "repuser": repUser,
		"tmpdir": at.Agent, "socketdir": socketDir, "logfile": "/var/log/postgresql/postgresql.log",
		"primary_conninfo_opt": "passfile=" + at.Pass + " keepalives_idle=60 keepalives_interval=5 keepalives_count=5",
		// There is no archive: every file is missing from it.
		"restore_command": "/bin/false",
		"stop_escalate":   "0", "xlog_check_count": "0",
	}
	if c.Layout == LayoutDebian {
		p["psql"], p["config"] = "/usr/bin/psql", at.Config
	}
	if c.Slots != "" {
		p["replication_slot_name"] = c.Slots
	}
	return p
}

// initdbOptions are those of every new database.
const initdbOptions = "--no-sync --no-instructions --encoding=UTF8 --locale=C.UTF-8"

// initdb makes an empty database where the layout has it, as postgres.
func (c Config) initdb() string {
	at := c.paths()
	if c.Layout == LayoutDebian {
		// Debian's own tool, and with it its pg_hba.conf, TLS and folder of further settings.
		return fmt.Sprintf("pg_createcluster --start-conf=manual --socketdir=%s --encoding=UTF8 --locale=C.UTF-8 %s main -- --no-sync",
			socketDir, c.system().PostgreSQL)
	}
	return fmt.Sprintf("%s/initdb -D %s -U %s %s", at.Bin, at.Data, dba, initdbOptions)
}

// copied are the folders that every host has its own copy of once the database is made.
func (c Config) copied() []string {
	if c.Layout == LayoutDebian {
		return []string{"/etc/postgresql", "/var/lib/postgresql/" + c.system().PostgreSQL}
	}
	return []string{c.paths().Data}
}

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
