package cib

import (
	"bytes"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/model"
)

// sharedCIBs are the captured and Pacemaker's own CIBs. They lie beside the checkout, because Pacemaker's are not to be
// copied into this project.
func sharedCIBs(t testing.TB) []string {
	t.Helper()
	var files []string
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

// monitored is what crm_mon says of a CIB, in our words.
type monitored struct {
	DC    string
	Nodes map[string]model.Node
	// Roles on online nodes, by clone, primitive and node; what is stopped is left out.
	Roles map[string]model.Role
}

// knownDifferences are what crm_mon says otherwise, by file: what, and Pacemaker's reason. There are none.
var knownDifferences = map[string]string{}

// pendingRoles are what crm_mon shows while an operation is under way, and the role that the scheduler reckons with
// meanwhile (unpack_rsc_op).
var pendingRoles = map[string]model.Role{
	"starting": model.RoleUnpromoted, "promoting": model.RolePromoted, "demoting": model.RolePromoted,
}

// Pacemaker itself is the judge of what a CIB means.
func TestParseAgreesWithCrmMon(t *testing.T) {
	crmMon, err := exec.LookPath("crm_mon")
	if err != nil {
		t.Fatal("crm_mon is not installed; install pacemaker-cli-utils")
	}
	files := sharedCIBs(t)
	own, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, own...) {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data := readFile(t, file)
			cluster, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			judgement, crashed := runCrmMon(t, crmMon, data)
			if crashed {
				t.Fatal("crm_mon crashed")
			}
			diff := diffViews(judgement, cluster)
			reason, known := knownDifferences[filepath.Base(file)]
			switch {
			case diff != "" && !known:
				t.Errorf("crm_mon (-) and Parse (+) differ:\n%s", diff)
			case diff == "" && known:
				t.Errorf("no difference any more, although it is listed: %s", reason)
			}
		})
	}
}

// stopping is what crm_mon shows while an instance is being stopped, instead of the role that it still has.
const stopping = "stopping"

func diffViews(want monitored, c model.Cluster) string {
	got := ourView(c)
	for key, role := range want.Roles {
		if role == stopping && got.Roles[key] != "" {
			want.Roles[key] = got.Roles[key]
		}
	}
	return cmp.Diff(want, got)
}

func ourView(c model.Cluster) monitored {
	m := monitored{DC: c.DC, Nodes: map[string]model.Node{}, Roles: map[string]model.Role{}}
	for _, n := range c.Nodes {
		n.Permanent, n.Transient = nil, nil
		m.Nodes[n.Name] = n
	}
	for _, clone := range c.Clones {
		for node, role := range clone.Roles {
			if m.Nodes[node].Online && role != model.RoleStopped {
				m.Roles[clone.ID+" "+clone.Primitive+" "+node] = role
			}
		}
	}
	return m
}

type monResource struct {
	ID    string `xml:"id,attr"`
	Role  string `xml:"role,attr"`
	Nodes []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

type monResult struct {
	DC struct {
		Name string `xml:"name,attr"`
	} `xml:"summary>current_dc"`
	Nodes []struct {
		Name        string `xml:"name,attr"`
		ID          string `xml:"id,attr"`
		Online      bool   `xml:"online,attr"`
		Standby     bool   `xml:"standby,attr"`
		Maintenance bool   `xml:"maintenance,attr"`
		Pending     bool   `xml:"pending,attr"`
		Unclean     bool   `xml:"unclean,attr"`
	} `xml:"nodes>node"`
	Clones []struct {
		ID         string        `xml:"id,attr"`
		Promotable bool          `xml:"multi_state,attr"`
		Resources  []monResource `xml:"resource"`
		Grouped    []monResource `xml:"group>resource"`
	} `xml:"resources>clone"`
}

var validateWith = regexp.MustCompile(`validate-with="[^"]*"`)

// runCrmMon shows a CIB to crm_mon, without a schema: some CIBs are newer than the installed crm_mon's schemas.
func runCrmMon(t *testing.T, crmMon string, data []byte) (m monitored, crashed bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cib.xml")
	if err := os.WriteFile(path, validateWith.ReplaceAll(data, []byte(`validate-with="none"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), crmMon, "-1", "--output-as=xml", "--inactive")
	cmd.Env = append(os.Environ(), "CIB_file="+path, "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.As(err, new(*exec.ExitError)) && cmd.ProcessState.ExitCode() == -1 {
		return monitored{}, true
	}
	if err != nil {
		t.Fatalf("crm_mon: %v: %s", err, stderr.String())
	}
	var result monResult
	if err := xml.Unmarshal(out, &result); err != nil {
		t.Fatalf("crm_mon's output: %v", err)
	}
	m = monitored{DC: result.DC.Name, Nodes: map[string]model.Node{}, Roles: map[string]model.Role{}}
	for _, n := range result.Nodes {
		m.Nodes[n.Name] = model.Node{
			Name: n.Name, ID: n.ID, Online: n.Online, Standby: n.Standby,
			Maintenance: n.Maintenance, Pending: n.Pending, Unclean: n.Unclean,
		}
	}
	for _, clone := range result.Clones {
		if !clone.Promotable {
			continue
		}
		for _, r := range append(clone.Resources, clone.Grouped...) {
			base, _, _ := strings.Cut(r.ID, ":")
			for _, n := range r.Nodes {
				key := clone.ID + " " + base + " " + n.Name
				role := model.Role(strings.ToLower(r.Role))
				if settled, pending := pendingRoles[string(role)]; pending {
					role = settled
				}
				if m.Nodes[n.Name].Online && m.Roles[key] != model.RolePromoted {
					m.Roles[key] = role
				}
			}
		}
	}
	return m, false
}
