package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultDir is where a lab lives unless Config.Dir says otherwise.
const DefaultDir = "/var/tmp/rexlab"

// What every lab has in common. The network exists inside the lab's namespaces only.
const (
	VIP       = "192.168.77.100" // follows the promoted host: vip-rep, the agent's master_ip
	network   = "192.168.77.0/24"
	socketDir = "/run/postgresql"
	dba       = "postgres"
	repUser   = "repuser"
	clone     = "msPostgresql"
	primitive = "pgsql"
	maxHosts  = 16

	// minWALBytes has room for the WAL that a new database has, and a checkpoint's.
	minWALBytes = 128 << 20
)

// Config says what lab to boot.
type Config struct {
	// Dir is the lab's folder: it is made, mode 0700, or must be empty or hold what an earlier lab left.
	Dir string `json:"-"`
	// Hosts are the node names, 2 to 16. The first one becomes the primary. Default: pm01, pm02, pm03.
	Hosts []string `json:"hosts"`
	// System is the name of the release that the hosts are; see Systems. Default: the first of them.
	System string `json:"system"`
	// Layout says where PostgreSQL's files lie: LayoutPGREX (the default) or LayoutDebian.
	Layout string `json:"layout"`
	// Monitor is how often the agent looks at the primary, in whole seconds; at a standby it looks a second later.
	// Default: 9 s, PG-REX's own.
	Monitor time.Duration `json:"monitor"`
	// Slots is the agent's replication_slot_name; empty leaves it unset, as PG-REX does.
	Slots string `json:"slots,omitempty"`
	// RepMode is the agent's rep_mode, "sync" (the default) or "async".
	RepMode string `json:"rep_mode"`
	// DataBytes is about how much data the database holds beside its own catalogs.
	DataBytes int64 `json:"data_bytes,omitempty"`
	// WALBytes gives each host's pg_wal a file system of its own, of that size, which outlives a power cut; 0 for none.
	WALBytes int64 `json:"wal_bytes,omitempty"`
	// NoFencing sets stonith-enabled=false and leaves the fence device out.
	NoFencing bool `json:"no_fencing,omitempty"`
	// Properties are cluster properties, over the lab's own.
	Properties map[string]string `json:"properties,omitempty"`
	// PostgreSQL are settings of postgresql.conf, over the lab's own.
	PostgreSQL map[string]string `json:"postgresql,omitempty"`
	// Output gets a line for each stage of the boot; nil for none.
	Output io.Writer `json:"-"`
}

var (
	hostName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	slotName    = regexp.MustCompile(`^[a-z0-9_]*$`)
	settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

// complete fills in the defaults and refuses what cannot work.
func (c Config) complete() (Config, error) {
	if c.Dir == "" {
		c.Dir = DefaultDir
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("the lab's folder %q: %w", c.Dir, err)
	}
	c.Dir = dir
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"pm01", "pm02", "pm03"}
	}
	c.Hosts = slices.Clone(c.Hosts)
	if c.RepMode == "" {
		c.RepMode = "sync"
	}
	if c.Layout == "" {
		c.Layout = LayoutPGREX
	}
	if c.Monitor == 0 {
		c.Monitor = 9 * time.Second
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	system, err := SystemNamed(c.System)
	if err != nil {
		return c, err
	}
	c.System = system.Name
	return c, c.check()
}

// system is the hosts' system; the name was looked at when the configuration was completed.
func (c Config) system() System {
	s, _ := SystemNamed(c.System)
	return s
}

func (c Config) check() error {
	if len(c.Hosts) < 2 || len(c.Hosts) > maxHosts {
		return fmt.Errorf("a lab has 2 to %d hosts, not %d", maxHosts, len(c.Hosts))
	}
	seen := map[string]bool{}
	for _, h := range c.Hosts {
		// The kernel keeps 64 bytes for a host name.
		if !hostName.MatchString(h) || len(h) > 64 {
			return fmt.Errorf("%q is no host name: 1 to 64 letters, digits, dots and dashes", h)
		}
		if seen[strings.ToLower(h)] {
			return fmt.Errorf("two hosts are named %q: Pacemaker compares names without regard to case", h)
		}
		seen[strings.ToLower(h)] = true
	}
	if !slotName.MatchString(c.Slots) {
		return fmt.Errorf("replication_slot_name %q: only lower-case letters, digits and underscores", c.Slots)
	}
	if c.RepMode != "sync" && c.RepMode != "async" {
		return fmt.Errorf("rep_mode %q: sync or async", c.RepMode)
	}
	if c.Layout != LayoutPGREX && c.Layout != LayoutDebian {
		return fmt.Errorf("layout %q: %s or %s", c.Layout, LayoutPGREX, LayoutDebian)
	}
	if c.Monitor < time.Second || c.Monitor > time.Hour || c.Monitor%time.Second != 0 {
		return fmt.Errorf("a monitor every %s: whole seconds, from 1 s to 1 h", c.Monitor)
	}
	if c.DataBytes < 0 {
		return errors.New("the size of the data is negative")
	}
	if c.WALBytes != 0 && c.WALBytes < minWALBytes {
		return fmt.Errorf("a file system for WAL has %d bytes at least, not %d", minWALBytes, c.WALBytes)
	}
	for _, settings := range []map[string]string{c.Properties, c.PostgreSQL} {
		for name, value := range settings {
			if !settingName.MatchString(name) || strings.ContainsAny(value, "\n\x00") {
				return fmt.Errorf("setting %q = %q: a name and a value of one line", name, value)
			}
		}
	}
	return nil
}

// index is a host's number, from 1: its node id, its address and its folder hang on it, because names may be too long
// or too odd for a path.
func (c Config) index(host string) (int, error) {
	if i := slices.Index(c.Hosts, host); i >= 0 {
		return i + 1, nil
	}
	return 0, fmt.Errorf("no host %q in this lab; it has %s", host, strings.Join(c.Hosts, ", "))
}

func address(index int) string { return fmt.Sprintf("192.168.77.%d", 10+index) }

func hostDir(dir string, index int) string {
	return filepath.Join(dir, "hosts", fmt.Sprintf("h%d", index))
}

// Names in the lab's folder.
const (
	programName = "rexlab" // this binary, so that a host can be started when the original is gone
	configName  = "config.json"
	stateName   = "state.json"
	socketName  = "control.sock"
	lockName    = "lock"
	logName     = "lab.log"
)

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	// Whole or not at all: on a full disk, too.
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
