package cib

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
)

// token is one of an operation on pm01, made with a digit.
func token(digit string, phase model.Phase) model.Token {
	return model.Token{
		Operation: "switchover", Host: "pm01", Target: "pm02", Phase: phase, Value: strings.Repeat(digit, 32),
		Begun: time.Date(2026, 11, 30, 3, 20, 11, 0, time.UTC),
	}
}

// trial is a CIB file that real tools of a release change.
type trial struct {
	t    *testing.T
	s    system
	file string
}

// eachTrial runs a test with every release, whose tools come first on PATH.
func eachTrial(t *testing.T, test func(c *trial)) {
	for _, s := range systems(t) {
		t.Run(s.name, func(t *testing.T) {
			c := &trial{t, s, filepath.Join(t.TempDir(), "cib.xml")}
			t.Setenv("CIB_file", c.file)
			if s.folder != "" {
				t.Setenv("PATH", s.folder+":"+os.Getenv("PATH"))
			}
			c.set(string(readFile(t, "../../shared/cib/lab/3node-healthy.xml")))
			test(c)
		})
	}
}

func (c *trial) set(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.file, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *trial) read() model.Cluster {
	c.t.Helper()
	cluster, err := c.s.client().Read(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return cluster
}

// run runs a command, whose error has to be want.
func (c *trial) run(command Command, want error) {
	c.t.Helper()
	if err := command.Run(c.t.Context()); !errors.Is(err, want) || want == nil && err != nil {
		c.t.Fatalf("%s: %v, not %v", command, err, want)
	}
}

// holds checks the token and maintenance-mode ("" for unset).
func (c *trial) holds(primitive string, want *model.Token, maintenance string) {
	c.t.Helper()
	cluster := c.read()
	got, there, err := cluster.Token(primitive)
	if err != nil || there != (want != nil) || there && got != *want {
		c.t.Errorf("the token is %s, %t, %v", got, there, err)
	}
	if now := cluster.Properties["maintenance-mode"]; now != maintenance || cluster.Maintenance != (now == "true") {
		c.t.Errorf("maintenance-mode is %q", now)
	}
}

func TestTokenIsALock(t *testing.T) {
	eachTrial(t, func(c *trial) {
		one, two := token("1", model.PhaseBegun), token("2", model.PhaseBegun)
		c.run(CreateToken("pgsql", one), nil)
		c.run(CreateToken("pgsql", two), ErrExists)
		c.holds("pgsql", &one, "")
		c.run(CreateToken("other", two), nil)
		c.run(ChangeToken("pgsql", two, two), ErrNoMatch)
		c.holds("pgsql", &one, "")
		c.run(ChangeToken("pgsql", one, two), nil)
		c.run(ChangeToken("third", one, two), ErrNoMatch)
		c.holds("pgsql", &two, "")
		before := readFile(t, c.file)
		c.run(DeleteToken("pgsql", one), nil) // with no effect
		if string(readFile(t, c.file)) != string(before) {
			t.Error("deleting another token has changed the CIB")
		}
		c.run(DeleteToken("pgsql", two), nil)
		c.holds("pgsql", nil, "")
		c.holds("other", &two, "")
		if text := string(readFile(t, c.file)); strings.Contains(text, `"pgrex-operation-pgsql`) {
			t.Errorf("something of the token is left:\n%s", text)
		}
	})
}

// maintenance-mode and the token change in one epoch, under the own token only.
func TestSetMaintenance(t *testing.T) {
	eachTrial(t, func(c *trial) {
		begun, in, out := token("1", model.PhaseBegun), token("1", model.PhaseMaintenance), token("1", model.PhaseGiven)
		at := c.read().MaintenanceAt
		c.run(SetMaintenance(true, at, "pgsql", in), ErrNoMatch)
		c.run(CreateToken("pgsql", begun), nil)
		c.run(SetMaintenance(true, at, "pgsql", token("2", model.PhaseMaintenance)), ErrNoMatch)
		c.run(SetMaintenance(true, at, "pgsql", model.Token{}), ErrNoMatch)
		c.holds("pgsql", &begun, "")
		epoch := c.read().Version.Epoch
		c.run(SetMaintenance(true, at, "pgsql", in), nil)
		c.holds("pgsql", &in, "true")
		at = c.read().MaintenanceAt
		if at != (model.OptionAt{Set: "cib-bootstrap-options", ID: "cib-bootstrap-options-maintenance-mode"}) {
			t.Errorf("maintenance-mode is at %+v", at)
		}
		c.run(DropMaintenance(at), nil) // it is true: with no effect
		c.holds("pgsql", &in, "true")
		c.run(SetMaintenance(false, at, "pgsql", out), nil)
		c.holds("pgsql", &out, "false")
		if now := c.read().Version.Epoch; now != epoch+2 {
			t.Errorf("two changes took %d epochs", now-epoch)
		}
		c.run(DropMaintenance(at), nil)
		c.holds("pgsql", &out, "")
	})
}

// Two databases: while the operation of one is in maintenance-mode, that of the other does not enter it. Left once, it
// would be left for both.
func TestMaintenanceOfOneDatabase(t *testing.T) {
	eachTrial(t, func(c *trial) {
		at := c.read().MaintenanceAt
		ours, theirs := token("1", model.PhaseBegun), token("2", model.PhaseBegun)
		c.run(CreateToken("pgsql", ours), nil)
		c.run(CreateToken("other", theirs), nil)
		ours.Phase = model.PhaseMaintenance
		c.run(SetMaintenance(true, at, "pgsql", ours), nil)
		in := token("2", model.PhaseMaintenance)
		c.run(SetMaintenance(true, at, "other", in), ErrNoMatch)
		c.holds("other", &theirs, "true")
		c.run(SetMaintenance(true, at, "pgsql", ours), nil) // once more
		ours.Phase = model.PhaseGiven
		c.run(SetMaintenance(false, at, "pgsql", ours), nil)
		c.run(SetMaintenance(true, at, "other", in), nil)
		c.holds("other", &in, "true")
		c.holds("pgsql", &ours, "true")
	})
}

// What undoes or repeats a step also runs where there is nothing to remove: that is no error in any release.
func TestRemovedTwice(t *testing.T) {
	eachTrial(t, func(c *trial) {
		for name, commands := range map[string][2]Command{
			"meta attribute": {SetMeta("pgsql", "pgrex-paused", "true"), DeleteMeta("pgsql", "pgrex-paused")},
			"parameter":      {SetParameter("pgsql", "replication_slot_name", "rex"), DeleteParameter("pgsql", "replication_slot_name")},
			"property":       {SetProperty("maintenance-mode", "true"), DeleteProperty("maintenance-mode")},
			"standby":        {SetStandby("pm01", true), DeleteStandby("pm01")},
			"attribute":      {SetNodeAttribute("pm01", "a", "1"), SetNodeAttribute("pm01", "a", "")},
			"ban":            {Ban("msPostgresql", "pm01"), ClearBan("msPostgresql", "pm01")},
		} {
			c.t.Log(name)
			set, remove := commands[0], commands[1]
			c.run(remove, nil) // there never was one
			c.run(set, nil)
			c.run(remove, nil)
			c.run(remove, nil)
		}
		before := c.read()
		c.run(SetMeta("pgsql", "pgrex-paused", "true"), nil)
		if now := c.read(); reflect.DeepEqual(now.Clones, before.Clones) {
			c.t.Error("nothing is set at all")
		}
	})
}

// An operator who has just set maintenance-mode does not find it left by an operation.
func TestMaintenanceOfAnOperator(t *testing.T) {
	eachTrial(t, func(c *trial) {
		ours := token("1", model.PhaseBegun)
		c.run(CreateToken("pgsql", ours), nil)
		c.run(SetProperty("maintenance-mode", "true"), nil)
		in := token("1", model.PhaseMaintenance)
		c.run(SetMaintenance(true, c.read().MaintenanceAt, "pgsql", in), ErrNoMatch)
		c.holds("pgsql", &ours, "true")
		c.run(SetProperty("maintenance-mode", "false"), nil)
		c.run(SetMaintenance(true, c.read().MaintenanceAt, "pgsql", in), nil)
		c.holds("pgsql", &in, "true")
	})
}

// Where maintenance-mode is set already, that place is used, whatever it is called, and no second one is made.
func TestMaintenanceStaysWhereItIs(t *testing.T) {
	const (
		pair  = `<nvpair id="mine-m" name="maintenance-mode" value="false"/>`
		mine  = `<cluster_property_set id="mine">` + pair + `</cluster_property_set>`
		first = `<cluster_property_set id="b" score="9">`
		never = `<rule id="r" score="0"><date_expression id="d" operation="lt" end="2000-01-01"/></rule>`
	)
	for name, set := range map[string]string{
		"own set":     mine,
		"referred to": mine + first + `<nvpair id-ref="mine-m"/></cluster_property_set>`,
		"lower beside": `<cluster_property_set id="mine" score="2">` + pair + `</cluster_property_set>` +
			`<cluster_property_set id="b"><nvpair id="b-m" name="maintenance-mode" value="true"/></cluster_property_set>`,
		"a rule beside": first + never + `<nvpair id="b-m" name="maintenance-mode" value="false"/></cluster_property_set>` + mine,
	} {
		t.Run(name, func(t *testing.T) {
			eachTrial(t, func(c *trial) {
				c.set(strings.Replace(string(readFile(t, c.file)), "</crm_config>", set+"</crm_config>", 1))
				at := c.read().MaintenanceAt
				if at != (model.OptionAt{Set: "mine", ID: "mine-m"}) {
					t.Fatalf("maintenance-mode is at %+v", at)
				}
				c.run(CreateToken("pgsql", token("1", model.PhaseBegun)), nil)
				in := token("1", model.PhaseMaintenance)
				options := strings.Count(string(readFile(t, c.file)), `"maintenance-mode"`)
				c.run(SetMaintenance(true, at, "pgsql", in), nil)
				c.holds("pgsql", &in, "true")
				if now := strings.Count(string(readFile(t, c.file)), `"maintenance-mode"`); now != options {
					t.Errorf("%d pairs for maintenance-mode, not %d", now, options)
				}
				c.run(SetMaintenance(false, at, "pgsql", in), nil)
				if name == "referred to" {
					c.run(DropMaintenance(at), ErrFailed) // which Pacemaker refuses
					return
				}
				c.run(DropMaintenance(at), nil)
				if c.read().MaintenanceAt == at {
					t.Error("it is still there")
				}
			})
		})
	}
}

// No name leads out of its quotes, in XML or in XPath. Pacemaker takes such ids only where it checks no schema.
func TestTokenOfAHostilePrimitive(t *testing.T) {
	eachTrial(t, func(c *trial) {
		c.set(strings.Replace(string(readFile(t, c.file)), `validate-with="pacemaker-3.9"`, `validate-with="none"`, 1))
		for _, primitive := range []string{
			`a'b`, `a"b`, `a'"b'`, `']|//*['`, `"/><x y="`, `<&>]]>&amp;`, `$(reboot)`, ` a  b`, "-x", `' or '1'='1`,
		} {
			one, two := token("1", model.PhaseBegun), token("2", model.PhaseMaintenance)
			one.Host = `p'"<&>m`
			nodes := len(c.read().Nodes)
			c.run(CreateToken(primitive, one), nil)
			c.run(CreateToken(primitive, two), ErrExists)
			c.run(ChangeToken(primitive, two, one), ErrNoMatch)
			c.run(ChangeToken(primitive, one, two), nil)
			c.run(SetMaintenance(true, model.OptionAt{}, primitive, two), nil)
			c.holds(primitive, &two, "true")
			c.run(DeleteToken(primitive, one), nil)
			c.holds(primitive, &two, "true")
			c.run(ChangeToken(primitive, two, one), nil)
			c.run(DeleteToken(primitive, one), nil)
			c.run(SetProperty("maintenance-mode", "false"), nil)
			c.run(DropMaintenance(model.OptionAt{}), nil)
			c.holds(primitive, nil, "")
			if now := len(c.read().Nodes); now != nodes {
				t.Fatalf("%q: %d nodes", primitive, now)
			}
		}
	})
}

// Pacemaker does not mind the token: crm_verify says the same with it, and all other options stay as they are.
func TestPacemakerDoesNotMindATokenInCrmVerify(t *testing.T) {
	eachTrial(t, func(c *trial) {
		verify := func() string {
			t.Helper()
			said, err := exec.CommandContext(t.Context(), c.s.tool("crm_verify"), "-VVV", "--xml-file", c.file).CombinedOutput()
			if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
				t.Fatal(err)
			}
			return string(said)
		}
		before, said := c.read(), verify()
		c.run(CreateToken("pgsql", token("1", model.PhaseBegun)), nil)
		if now := verify(); now != said || said == "" {
			t.Errorf("crm_verify says\n%s\nand without a token\n%s", now, said)
		}
		after := c.read()
		for name, value := range before.Properties {
			if after.Properties[name] != value {
				t.Errorf("%s is %q, not %q", name, after.Properties[name], value)
			}
		}
		if len(after.Properties) != len(before.Properties)+1 {
			t.Errorf("the options are %v", after.Properties)
		}
	})
}
