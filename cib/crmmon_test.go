package cib

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
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
			cluster, err := Parse(readFile(t, file))
			if err != nil {
				t.Fatal(err)
			}
			want := runCrmMon(t, crmMon, file)
			diff := cmp.Diff(want, ourView(cluster))
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

func runCrmMon(t *testing.T, crmMon, file string) monitored {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), crmMon, "-1", "--output-as=xml", "--inactive")
	cmd.Env = append(os.Environ(), "CIB_file="+path, "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("crm_mon: %v: %s", err, stderr.String())
	}
	var result monResult
	if err := xml.Unmarshal(out, &result); err != nil {
		t.Fatalf("crm_mon's output: %v", err)
	}
	m := monitored{DC: result.DC.Name, Nodes: map[string]model.Node{}, Roles: map[string]model.Role{}}
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
				if m.Nodes[n.Name].Online && m.Roles[key] != model.RolePromoted {
					m.Roles[key] = model.Role(strings.ToLower(r.Role))
				}
			}
		}
	}
	return m
}
