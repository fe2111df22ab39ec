package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

// If a server's configuration is not in its data folder, its settings are read, and it recovers, with the options with
// which the agent starts it.
func TestConfigElsewhere(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.SQL("CREATE TABLE kept AS SELECT 1 AS a")
	server.Stop("immediate")
	server.MoveConfig()
	server.Place("etc/more.conf", []byte("work_mem = '5MB'\n"))
	server.Configured("include 'more.conf'", "application_name = 'of the file'")
	if err := p.Configuration(t.Context()); err == nil || !strings.Contains(err.Error(), p.Data+"/postgresql.conf") {
		t.Errorf("without config: %v", err)
	}
	p.Config = server.Config + "/postgresql.conf"
	p.StartOpt = `-p 5499 -c "application_name=of start_opt" -c max_slot_wal_keep_size='8MB'`
	must(t, p.Configuration(t.Context()))
	for name, want := range map[string]string{
		"port": "5499", "application_name": "of start_opt", "max_slot_wal_keep_size": "8", "work_mem": "5120", "config_file": p.Config,
		"hba_file": server.Config + "/pg_hba.conf",
	} {
		if got, err := p.Configured(t.Context(), name); err != nil || got != want {
			t.Errorf("%s is %q, not %q, %v", name, got, want, err)
		}
	}
	must(t, p.Recover(t.Context()))
	if c, err := p.Control(t.Context()); err != nil || !c.Clean() {
		t.Errorf("after recovery it is %q, %v", c["Database cluster state"], err)
	}
	server.Start()
	if got := server.SQL("SELECT a FROM kept"); got != "1" {
		t.Errorf("the table has %q", got)
	}

	// The agent would look at one data folder, and start a server on another one.
	other := p
	other.Data = filepath.Join(server.Dir, "other")
	must(t, os.Mkdir(other.Data, 0o700))
	if err := other.Configuration(t.Context()); err == nil || !strings.Contains(err.Error(), "data_directory is "+p.Data) {
		t.Errorf("the data of another folder: %v", err)
	}
	for _, same := range []string{server.Dir + "/link", server.Dir + "/../" + filepath.Base(server.Dir) + "/data"} {
		if strings.HasSuffix(same, "link") {
			must(t, os.Symlink(p.Data, same))
		}
		if other.Data = same; other.Configuration(t.Context()) != nil {
			t.Errorf("%s is the data folder", same)
		}
	}
	p.StartOpt = "-c port='1"
	if err := p.Configuration(t.Context()); err == nil {
		t.Error("a quote that does not end is taken")
	}
}

// Trap 40: what start_opt sets, no file changes. It is refused before anything is changed, with or without data here.
func TestTrap40Steerable(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	p := placeOf(t, server)
	server.Stop("fast")
	server.Configured("recovery_target_name = 'of a file'", "primary_slot_name = 'of_a_file'")
	gone := p
	gone.Data, gone.Config = t.TempDir()+"/gone", t.TempDir()+"/gone.conf"
	for options, says := range map[string]string{
		"":                           "",
		"-p 5499 -c work_mem='8MB'":  "",
		"-c primary_slot_name=mine":  "",
		"-c recovery_target_name=''": "",
		"-c recovery_target_timeline=latest -c recovery_target_time=":                       "",
		`-c "recovery_target_time=2020-01-01 00:00:00+00"`:                                  "recovery_target_time = '2020-01-01 00:00:00+00'",
		"--recovery-target=immediate -p 5499":                                               "recovery_target = 'immediate'",
		"-c recovery_target_timeline=current":                                               "recovery_target_timeline = 'current'",
		"-c recovery_target_timeline=1 -c primary_slot_name=other -c recovery_target_xid=7": "recovery_target_xid = '7', recovery_target_timeline = '1', primary_slot_name = 'other'",
	} {
		for _, place := range []Place{p, gone} {
			place.StartOpt = options
			err := place.Steerable(t.Context(), "mine")
			if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says+", which overrides every file") ||
				!strings.Contains(err.Error(), "take that out of start_opt first")) {
				t.Errorf("%s, with %q: %v", place.Data, options, err)
			}
		}
	}
	server.Deconfigure("recovery_target_name") // PostgreSQL takes one target only
	p.StartOpt = "-c recovery_target=immediate"
	if err := p.Follows(t.Context()); err == nil || !strings.Contains(err.Error(), "take that out of start_opt first") {
		t.Errorf("before a start it says %v", err)
	}
}

// What start_opt cuts off never makes a server of the program that is asked for a setting, and is refused by name.
func TestStartOptCutsOff(t *testing.T) {
	t.Parallel()
	for option, cut := range map[string]string{
		"": "", "-p 5499": "", `-c "application_name=a b"`: "", "-c x='8MB;#&'": "", `-c x="a;b|c<d>e&f #g"`: "", `-c x=a\;b`: "", "-c x=a#b": "",
		"-c x=$HOME": "", "-c x='`id`$(id)'": "", `-c x='a\'`: "",
		"-p 5499 # as on pm02": `an unquoted '#'`, "#": `an unquoted '#'`, "-p 1; true": `an unquoted ';'`, "-p 1 & true": `an unquoted '&'`,
		"-p 1|cat": `an unquoted '|'`, "-p 1 >/dev/null": `an unquoted '>'`, "-p 1 <x": `an unquoted '<'`, "-p 1\n": `an unquoted '\n'`,
		"-p `id`": "the command substitution `id`", `-p "$(id)"`: `the command substitution $(id)`, "-p '1": "a ' without its end",
		`-p "1`: `a " without its end`, `-p 1\`: `a \ at its end`,
	} {
		if got := cutsOff(option); !strings.HasPrefix(got, cut) || (got == "") != (cut == "") {
			t.Errorf("%q: %q, want %q", option, got, cut)
		}
		p := scripted(t, "port) echo 5499;; *) echo a server runs >&2; exit 1;;")
		p.StartOpt = option
		got, err := p.Configured(t.Context(), "port")
		if cut == "" && (err != nil || got != "5499") || cut != "" && (err == nil || !strings.Contains(err.Error(), "start_opt has "+cut)) {
			t.Errorf("%q: %q, %v", option, got, err)
		}
	}
	tool, err := Place{StartOpt: "-p 5499"}.postgres("-C port")
	must(t, err)
	if script := tool.Args[1]; strings.Index(script, "-C port") > strings.Index(script, "-p 5499") {
		t.Errorf("start_opt comes first: %s", script)
	}
}
