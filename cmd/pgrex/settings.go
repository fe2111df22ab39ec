package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v3"

	"github.com/pgrex/pgrex/controller/operation/rejoin"
)

const (
	configDir     = "/etc/pgrex"
	runDir        = "/run/pgrex"
	stateDir      = "/var/lib/pgrex"
	configName    = "pgrex.yaml"
	socketName    = "pgrex.sock"
	defaultCIBDir = "/var/lib/pacemaker/cib"
)

// settings are what differs from host to host. Each is a flag, and by the same name a key of pgrex.yaml. What holds
// for the whole cluster is in the CIB.
type settings struct {
	Instance     string        `yaml:"-"`
	Config       string        `yaml:"-"`
	Node         string        `yaml:"node"`
	Resource     string        `yaml:"resource"`
	Socket       string        `yaml:"socket"`
	StateDir     string        `yaml:"state-dir"`
	CIBDir       string        `yaml:"cib-dir"`
	PGData       string        `yaml:"pg-data"`
	PGSocketDir  string        `yaml:"pg-socket-dir"`
	PGPort       uint16        `yaml:"pg-port"`
	PGUser       string        `yaml:"pg-user"`
	PGDatabase   string        `yaml:"pg-database"`
	LookInterval time.Duration `yaml:"look-interval"`
	ReadInterval time.Duration `yaml:"read-interval"`
	LogLevel     string        `yaml:"log-level"`
	WebListen    []string      `yaml:"web-listen"`
	WebConfig    string        `yaml:"web-config"`
}

func newSettings() *settings {
	return &settings{
		Config: filepath.Join(configDir, configName), Socket: filepath.Join(runDir, socketName), StateDir: stateDir,
		CIBDir:       defaultCIBDir,
		LookInterval: time.Second, ReadInterval: 10 * time.Second, LogLevel: "info",
		WebListen: []string{},
	}
}

// observeFlags are the settings of every command that looks at this host.
func (s *settings) observeFlags(f *pflag.FlagSet) {
	s.instanceFlags(f)
	f.StringVar(&s.Node, "node", "", "this host's node name in the cluster (default: the host name)")
	f.StringVar(&s.Resource, "resource", "", "id of the database's clone or primitive, when there are several")
	f.StringVar(&s.StateDir, "state-dir", s.StateDir,
		"folder for what a restart should not forget: the daemon's, and the journal of an operation")
	f.StringVar(&s.PGData, "pg-data", "", "data folder of the server that has to answer at the socket (default: the agent's pgdata)")
	f.StringVar(&s.PGSocketDir, "pg-socket-dir", "", "folder of PostgreSQL's socket (default: the agent's socketdir)")
	f.Uint16Var(&s.PGPort, "pg-port", 0, "PostgreSQL's port (default: the agent's pgport)")
	f.StringVar(&s.PGUser, "pg-user", "", "user to connect as (default: the agent's pgdba)")
	f.StringVar(&s.PGDatabase, "pg-database", "", `database to connect to (default "postgres")`)
}

// instanceFlags say which database of several is meant, and where its settings are.
func (s *settings) instanceFlags(f *pflag.FlagSet) {
	f.StringVar(&s.Instance, "instance", "", "id of the database's primitive, where the cluster has several databases")
	f.StringVar(&s.Config, "config", s.Config, "file with settings; the default one may be missing")
}

// askFlags are the settings of commands that ask the daemon.
func (s *settings) askFlags(f *pflag.FlagSet) {
	s.instanceFlags(f)
	s.socketFlag(f)
}

func (s *settings) socketFlag(f *pflag.FlagSet) {
	f.StringVar(&s.Socket, "socket", s.Socket, "unix socket of the daemon, for 'pgrex status'")
}

// daemonFlags are the settings of the daemon alone.
func (s *settings) daemonFlags(f *pflag.FlagSet) {
	s.socketFlag(f)
	f.StringVar(&s.CIBDir, "cib-dir", s.CIBDir, "folder that Pacemaker keeps the CIB in, watched for changes")
	f.DurationVar(&s.LookInterval, "look-interval", s.LookInterval, "how often the local PostgreSQL is looked at")
	f.DurationVar(&s.ReadInterval, "read-interval", s.ReadInterval, "how often the CIB and the primary are read, at least")
	f.StringVar(&s.LogLevel, "log-level", s.LogLevel, "info or debug")
}

// webFlags are the settings of what answers over HTTP.
func (s *settings) webFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&s.WebListen, "web-listen", s.WebListen, "address and port that 'pgrex web' listens on; may be given several times")
	f.StringVar(&s.WebConfig, "web-config", "", "file with TLS and passwords for 'pgrex web' (default: neither)")
}

// load adds what the file says. A flag on the command line wins over the file.
func (s *settings) load(cmd *cobra.Command) error {
	var given []func() error // sets a flag that was given again
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		again := func() error { return f.Value.Set(value) }
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values := slices.Clone(list.GetSlice())
			again = func() error { return list.Replace(values) } // Set would add to what the file says
		}
		given = append(given, again)
	})
	configGiven := cmd.Flags().Changed("config") && s.Config != ""
	if err := s.forInstance(configGiven); err != nil {
		return err
	}
	if err := s.readFile(configGiven); err != nil {
		return err
	}
	for _, again := range given {
		if err := again(); err != nil {
			return err
		}
	}
	if s.Instance != "" && s.Resource != s.Instance {
		return fmt.Errorf("the instance is for %s, but resource is %s (in %s, or by --resource): leave it out", s.Instance, s.Resource, s.Config)
	}
	if s.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w; give the node name with --node", err)
		}
		s.Node = host
	}
	return s.check()
}

// instanceName is what can be a part of a unit's name and of a path. Ids of the CIB are of these characters.
var instanceName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// forInstance sets the defaults for one of several databases, which share nothing.
func (s *settings) forInstance(configGiven bool) error {
	name := s.Instance
	if name == "" {
		return nil
	}
	if taken := []string{"pgrex", socketName, "state.json", "operation.json", "operation.lock",
		"auto-rejoin.json", "auto-rejoin.lock", rejoin.GivenUpFolder}; !instanceName.MatchString(name) || slices.Contains(taken, name) {
		return fmt.Errorf("instance %q: it is the id of the database's primitive, of letters, digits, '_', '.' and '-', and none of %v", name, taken)
	}
	if !configGiven {
		s.Config = filepath.Join(configDir, name+".yaml")
	}
	s.Resource = name
	s.Socket = filepath.Join(runDir, name, socketName)
	s.StateDir = filepath.Join(stateDir, name)
	return nil
}

// readFile decodes the file strictly. Only the default file may be missing.
func (s *settings) readFile(required bool) error {
	info, err := os.Stat(s.Config)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 { // to open a pipe could take for ever
		return fmt.Errorf("read the settings: %s is no file", s.Config)
	}
	f, err := os.Open(s.Config)
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	defer func() { _ = f.Close() }()
	decoder := yaml.NewDecoder(f)
	decoder.KnownFields(true)
	err = decoder.Decode(s)
	var wrong *yaml.TypeError
	switch {
	case err == nil, errors.Is(err, io.EOF): // an empty file says nothing
		return nil
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: %s", s.Config, strings.ReplaceAll(strings.Join(wrong.Errors, "; "), " in type main.settings", " among the settings"))
	}
	return fmt.Errorf("%s: %w", s.Config, err)
}

func (s *settings) check() error {
	switch {
	case s.LookInterval <= 0 || s.LookInterval > s.ReadInterval:
		return fmt.Errorf("look-interval %s and read-interval %s: both must be positive, and the first not the longer",
			s.LookInterval, s.ReadInterval)
	case s.LogLevel != "info" && s.LogLevel != "debug":
		return fmt.Errorf("log-level %q: it is info or debug", s.LogLevel)
	}
	return nil
}
