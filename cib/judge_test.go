package cib

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// system is a release of Pacemaker whose tools are asked: Debian 12's, which this machine has, and Debian 13's.
type system struct {
	name   string
	folder string // of the tools; "" where they are on PATH
}

const older, newest = "Debian 12", "Debian 13"

func systems(t testing.TB) []system {
	t.Helper()
	folder := cmp.Or(os.Getenv("PGREX_PACEMAKER_TOOLS"), "/var/cache/pgrex-test/debian13-tools")
	if _, err := os.Stat(filepath.Join(folder, "crm_mon")); err != nil {
		t.Fatalf("%v; run hack/debian13, which makes it", err)
	}
	if _, err := exec.LookPath("crm_mon"); err != nil {
		t.Fatalf("%v; install pacemaker-cli-utils", err)
	}
	return []system{{older, ""}, {newest, folder}}
}

func (s system) tool(name string) string { return filepath.Join(s.folder, name) }

func (s system) client() *Client {
	return &Client{CIBAdmin: s.tool("cibadmin"), CrmMon: s.tool("crm_mon"), CrmNode: s.tool("crm_node"), CrmSimulate: s.tool("crm_simulate")}
}

// sharedCIBs are the captured and Pacemaker's own CIBs. They lie beside the checkout, because Pacemaker's are not to be
// copied into this project.
func sharedCIBs(t testing.TB) []string {
	t.Helper()
	files := []string{filepath.Join("..", "..", "shared", "cases", "pacemaker-2.1.7-times.xml")}
	for folder, atLeast := range map[string]int{"lab": 14, "pacemaker": 52} {
		pattern := filepath.Join("..", "..", "shared", "cib", folder, "*.xml")
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < atLeast {
			t.Fatalf("%s: found %d CIBs, want at least %d: put the folder `shared` beside the checkout", pattern, len(found), atLeast)
		}
		files = append(files, found...)
	}
	return files
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Golden files show what is made of a CIB, by the tools of either system; people read them when they change.
func TestGolden(t *testing.T) {
	own, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		t.Fatal(err)
	}
	captured, err := filepath.Glob("../../shared/cib/lab/*.xml")
	if err != nil || len(captured) == 0 {
		t.Fatal("../../shared/cib/lab is not there: put the folder `shared` beside the checkout")
	}
	for _, file := range append(own, captured...) {
		name := strings.TrimSuffix(filepath.Base(file), ".xml")
		for _, s := range systems(t) {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				cluster, err := s.client().Interpret(t.Context(), readFile(t, file))
				if err != nil {
					t.Fatal(err)
				}
				got, err := json.MarshalIndent(cluster, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, '\n')
				golden := filepath.Join("testdata", "golden", name+".json")
				if name == withoutSchema && s.name == newest {
					golden = filepath.Join("testdata", "golden", name+"-3.0.0.json")
				}
				if *update {
					if err := os.WriteFile(golden, got, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if diff := gocmp.Diff(string(readFile(t, golden)), string(got)); diff != "" {
					t.Errorf("golden (-) and got (+) differ; go test -update rewrites it:\n%s", diff)
				}
			})
		}
	}
}

// withoutSchema is a CIB with validate-with="none", because of what no schema allows. Such a one is not upgraded when
// it is read, so that Pacemaker 3.0.0 does not see its <master> elements. In CIBs with a schema it does.
const withoutSchema = "spellings"

// refusedByOlder are the shared CIBs that Debian 12's tools are not asked about, with the feature set that is newer
// than their 3.16.1. What 3.17.4 has changed does not show in these CIBs; 3.19.0 came with Pacemaker 2.1.7 and its
// epoch times, which the older crm_mon takes for "offline".
var refusedByOlder = map[string]string{
	"bundle-promoted-anticolocation-1.xml":          "3.17.4",
	"bundle-promoted-anticolocation-5.xml":          "3.17.4",
	"bundle-promoted-colocation-1.xml":              "3.17.4",
	"bundle-promoted-location-3.xml":                "3.17.4",
	"clone-recover-no-shuffle-10.xml":               "3.17.4",
	"coloc-cloned-group-promoted-dependent1.xml":    "3.19.0",
	"coloc-optional-promoted-dependent-moves-2.xml": "3.19.7",
	"pacemaker-2.1.7-times.xml":                     "3.19.0",
}

// Both systems read the same out of every CIB that both know. There is no exception.
func TestTrap29SystemsAgree(t *testing.T) {
	both := systems(t)
	tools, err := both[0].client().Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]string{}
	for _, file := range sharedCIBs(t) {
		name, data := filepath.Base(file), readFile(t, file)
		now, err := both[1].client().Interpret(t.Context(), data)
		if err != nil {
			t.Errorf("%s: %s: %v", name, both[1].name, err)
			continue
		}
		before, err := both[0].client().Interpret(t.Context(), data)
		if errors.Is(err, ErrUnparseable) {
			root, _ := readDocument(data)
			refused[name] = attr(root, "crm_feature_set")
			for _, part := range []string{"newer than Pacemaker's tools here", "feature set " + refused[name], "the tools are of " + tools.Version} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: it does not say %q: %v", name, part, err)
				}
			}
			continue
		}
		if diff := gocmp.Diff(before, now); err != nil || diff != "" {
			t.Errorf("%s: %v; %s (-) and %s (+) differ:\n%s", name, err, both[0].name, both[1].name, diff)
		}
	}
	if diff := gocmp.Diff(refusedByOlder, refused); diff != "" {
		t.Errorf("refused by the older tools: listed (-) and found (+) differ:\n%s", diff)
	}
}

// What CIBs with epoch times mean is written down here from Pacemaker's own summaries of them
// (cts/scheduler/summary), and for the last one from how it was made, and not taken from what crm_mon says.
func TestEpochTimes(t *testing.T) {
	for name, want := range map[string]struct {
		online []string
		roles  map[string]map[string]model.Role // by primitive
	}{
		"pacemaker/coloc-cloned-group-promoted-dependent1.xml": {[]string{"node1", "node2"}, map[string]map[string]model.Role{
			"rsc1": {"node1": "promoted", "node2": "unpromoted"},
		}},
		"pacemaker/coloc-optional-promoted-dependent-moves-2.xml": {[]string{"fastvm-fedora39-22", "fastvm-fedora39-23"}, map[string]map[string]model.Role{
			"coloc_dependent": {"fastvm-fedora39-22": "promoted", "fastvm-fedora39-23": "unpromoted"},
		}},
		"../cases/pacemaker-2.1.7-times.xml": {[]string{"pm01", "pm02", "pm03"}, map[string]map[string]model.Role{
			"pgsql": {"pm01": "promoted", "pm02": "unpromoted", "pm03": "unpromoted"},
		}},
	} {
		cluster, err := systems(t)[1].client().Interpret(t.Context(), readFile(t, filepath.Join("..", "..", "shared", "cib", name)))
		if err != nil {
			t.Fatal(err)
		}
		var online []string
		for _, n := range cluster.Nodes {
			if n.Online && !n.Unclean && !n.Pending {
				online = append(online, n.Name)
			}
		}
		roles := map[string]map[string]model.Role{}
		for _, c := range cluster.Clones {
			roles[c.Primitive] = c.Roles
			if len(c.Unsettled) > 0 {
				t.Errorf("%s: unsettled: %v", name, c.Unsettled)
			}
		}
		if !slices.Equal(online, want.online) || !maps.EqualFunc(roles, want.roles, maps.Equal[map[string]model.Role, map[string]model.Role]) {
			t.Errorf("%s: online %v, roles %v", name, online, roles)
		}
	}
}

// A CIB whose schema the tools do not know is an error that names both sides, and so is one that crm_mon refuses.
func TestUnknownSchema(t *testing.T) {
	healthy := string(readFile(t, "../../shared/cib/lab/3node-healthy.xml"))
	for _, s := range systems(t) {
		tools, err := s.client().Tools(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for schema, begins := range map[string]string{
			"pacemaker-99.0": "the CIB cannot be understood: it is newer than Pacemaker's tools here",
			"nonsense":       "the CIB cannot be understood: crm_mon's answer is not understood",
		} {
			_, err := s.client().Interpret(t.Context(), []byte(strings.Replace(healthy, `validate-with="pacemaker-3.9"`, `validate-with="`+schema+`"`, 1)))
			if err == nil || !strings.HasPrefix(err.Error(), begins) || !strings.Contains(err.Error(), "schema "+schema) ||
				!strings.Contains(err.Error(), "the tools are of "+tools.Version) || !strings.Contains(err.Error(), "the CIB is of Pacemaker 2.1.5") {
				t.Errorf("%s, %s: %v", s.name, schema, err)
			}
		}
	}
}

// behindReferences are parameters of a primitive with a template that sit in a set with an id-ref. Pacemaker 3.0.0
// looks for the set in its copy of the primitive only, and says that there is none; 2.1.5 finds it.
var behindReferences = []string{"master_ip", "pgport", "repuser", "socketdir"}

// Pacemaker is the judge of parameters, too. Those that rules decide have no one value, so it is not asked.
func TestParametersAgreeWithCrmResource(t *testing.T) {
	file, err := filepath.Abs("testdata/parameters.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range systems(t) {
		cluster, err := s.client().Interpret(t.Context(), readFile(t, file))
		if err != nil {
			t.Fatal(err)
		}
		ask := func(primitive, name string, meta ...string) string {
			cmd := exec.CommandContext(t.Context(), s.tool("crm_resource"), append(meta, "--resource", primitive, "--get-parameter", name)...)
			cmd.Env = append(os.Environ(), "CIB_file="+file, "LC_ALL=C")
			out, _ := cmd.Output() // it fails when there is no such parameter, and says nothing then
			return strings.TrimSuffix(string(out), "\n")
		}
		for _, c := range cluster.Clones {
			for _, name := range model.AgentParameters {
				if s.name == newest && c.Primitive == "pg-template" && slices.Contains(behindReferences, name) {
					continue
				}
				if want, got := ask(c.Primitive, name), c.Parameters[name]; c.Primitive != "pg-rules" && want != got {
					t.Errorf("%s: %s: %s=%q, crm_resource says %q", s.name, c.Primitive, name, got, want)
				}
			}
			for _, name := range []string{"pgrex-wal-budget", "migration-threshold", "notify", "promotable"} {
				if want, got := ask(c.Primitive, name, "--meta"), c.Meta[name]; want != got {
					t.Errorf("%s: %s: meta attribute %s=%q, crm_resource says %q", s.name, c.Primitive, name, got, want)
				}
			}
		}
	}
}
