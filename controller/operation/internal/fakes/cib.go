package fakes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/model"
)

// CIB is that of two hosts, pm01 and pm02, in a file that Pacemaker's real tools change. Nobody does what it asks for:
// what would wait for that, or ask for a new look, only notes what it is told (Typed).
type CIB struct {
	t      *testing.T
	folder string
	Data   string // pm01's data folder
	Tmp    string // the agent's, there
	Bin    string // of PostgreSQL's programs, which a test puts there
}

// asksPacemaker stands for crm_resource. %[1]s is a folder, %[2]s the real one.
const asksPacemaker = `#!/bin/sh
case "$1" in
--wait | --refresh | --cleanup) ;;
*) exec %[2]s "$@" ;;
esac
echo crm_resource "$@" >>%[1]s/asked
! grep -qxe "$1" %[1]s/fails 2>/dev/null
`

// NewCIB makes it, and has all tools use it until the test ends. Root is the way to the repository's root.
func NewCIB(t *testing.T, root string) *CIB {
	t.Helper()
	c := &CIB{t: t, folder: t.TempDir()}
	data, err := os.ReadFile(filepath.Join(root, "cmd/pgrex/testdata/cluster.xml"))
	c.must(err)
	for _, name := range []string{"cib", "tools", "data", "tmp", "bin"} {
		c.must(os.Mkdir(filepath.Join(c.folder, name), 0o700))
	}
	c.Data, c.Tmp, c.Bin = c.path("data"), c.path("tmp"), c.path("bin")
	c.must(os.WriteFile(filepath.Join(c.Data, "PG_VERSION"), []byte("15\n"), 0o600))
	c.must(os.WriteFile(c.path("cib/cib.xml"), data, 0o600)) // so named, and alone in its folder, as Pacemaker has it
	path, err := exec.LookPath("crm_resource")
	c.must(err)
	c.must(os.WriteFile(c.path("tools/crm_resource"), fmt.Appendf(nil, asksPacemaker, c.folder, path), 0o700))
	t.Setenv("CIB_file", c.path("cib/cib.xml"))
	t.Setenv("PATH", c.path("tools")+":"+os.Getenv("PATH"))
	c.Run(cib.SetParameter("pgsql", "pgdata", c.Data))
	c.Run(cib.SetParameter("pgsql", "tmpdir", c.Tmp))
	c.Run(cib.SetParameter("pgsql", "pgctl", filepath.Join(c.Bin, "pg_ctl")))
	return c
}

func (c *CIB) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *CIB) path(name string) string { return filepath.Join(c.folder, name) }

// For has another test's failures reported there, as those of a part of the first one.
func (c *CIB) For(t *testing.T) { c.t = t }

// Run runs one of Pacemaker's tools.
func (c *CIB) Run(command cib.Command) {
	c.t.Helper()
	c.must(command.Run(c.t.Context()))
}

// CIBAdmin runs cibadmin.
func (c *CIB) CIBAdmin(args ...string) {
	c.t.Helper()
	c.Run(cib.Command{Path: "cibadmin", Args: args})
}

// Did enters what Pacemaker has done last to the database on a host: start, promote, demote or stop.
func (c *CIB) Did(node, what string) {
	c.t.Helper()
	const transition = "1:1:0:4fe152cd-0709-489f-be86-f616ea064e34"
	c.CIBAdmin("--modify", "--allow-create", "--scope", "status", "--xml-text", fmt.Sprintf(
		`<node_state id="%[1]s"><lrm id="%[1]s"><lrm_resources><lrm_resource id="pgsql" class="ocf" provider="heartbeat" type="pgsql">`+
			`<lrm_rsc_op id="pgsql_last_0" operation_key="pgsql_%[2]s_0" operation="%[2]s" on_node="%[3]s" call-id="1" interval="0"`+
			` op-status="0" rc-code="0" transition-key="%[4]s" transition-magic="0:0;%[4]s"/>`+
			`</lrm_resource></lrm_resources></lrm></node_state>`,
		strings.TrimPrefix(node, "pm0"), what, node, transition))
}

// Primary makes pm01 the primary, and pm02 its standby in step, by every sign.
func (c *CIB) Primary() {
	c.t.Helper()
	c.Did("pm01", "promote")
	c.Did("pm02", "start")
	c.Run(cib.SetNodeAttribute("pm01", "pgsql-data-status", "LATEST"))
	c.Run(cib.SetNodeAttribute("pm02", "pgsql-data-status", "STREAMING|SYNC"))
	c.Run(cib.SetAttribute("pm01", "pgsql-status", "PRI"))
	c.Run(cib.SetAttribute("pm02", "pgsql-status", "HS:sync"))
}

// Cluster is what pgrex reads.
func (c *CIB) Cluster() model.Cluster {
	c.t.Helper()
	cluster, err := new(cib.Client).Read(c.t.Context())
	c.must(err)
	return cluster
}

// Configuration is what an operation may change, and an undo has to put back, to the letter.
func (c *CIB) Configuration() string {
	c.t.Helper()
	out, err := exec.CommandContext(c.t.Context(), "cibadmin", "--query", "--scope", "configuration").Output()
	c.must(err)
	return string(out)
}

// Fail has crm_resource fail where its first argument is an option, "" for none.
func (c *CIB) Fail(option string) {
	c.t.Helper()
	c.must(os.WriteFile(c.path("fails"), []byte(option+"\n"), 0o600))
}

// Asked is what Pacemaker was asked for, a line each.
func (c *CIB) Asked() string {
	c.t.Helper()
	text, err := os.ReadFile(c.path("asked"))
	if !os.IsNotExist(err) {
		c.must(err)
	}
	return string(text)
}

// Kept are all files of the CIB, as a kill leaves them.
func (c *CIB) Kept() map[string][]byte { return Files(c.t, c.path("cib")) }

// Set makes the CIB what it was.
func (c *CIB) Set(files map[string][]byte) { SetFiles(c.t, c.path("cib"), files) }

// Files are those of a folder. There are no folders in it.
func Files(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if os.IsNotExist(err) {
		return nil
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if err == nil {
			files[e.Name()], err = os.ReadFile(filepath.Join(folder, e.Name()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// SetFiles makes a folder's files what they were.
func SetFiles(t *testing.T, folder string, files map[string][]byte) {
	t.Helper()
	err := os.RemoveAll(folder)
	if err == nil {
		err = os.Mkdir(folder, 0o700)
	}
	for name, text := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), text, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
