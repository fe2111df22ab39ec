package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgrex/pgrex/model"
)

// What scripts do with a CIB beside running Pacemaker's tools on it. With CIB_file set these need no cluster.

// pacemakerTools are those that scripts, and pgrex under them, run on the CIB.
var pacemakerTools = []string{"cibadmin", "crm_attribute", "crm_resource", "crm_mon"}

// oneAtATime has one of Pacemaker's tools take its turn. A cluster does one thing after the other, but on a CIB file
// the tools overwrite it in place, and one beside it reads half of it, or undoes what the other did. Nobody does what a
// CIB file asks for: nothing is waited for, and nobody is asked to look again (crm_resource 2.1.5 crashes at that).
// %[1]s is the lock, %[2]s the tool, %[3]s the folder by which "killed" and "together" have it wait.
const oneAtATime = `#!/bin/sh
turn() {
	echo $PPID >%[3]s/new.$$ && mv %[3]s/new.$$ %[3]s/turns/$1.$PPID
	while [ -e %[3]s/turns/$1.$PPID ]; do sleep 0.02; done
}
meet() {
	echo "$(basename %[2]s) $2" | grep -qEx -e "$(cat %[3]s/$1 2>/dev/null || echo nobody)" || return
	rm %[3]s/$1
	echo $PPID >%[3]s/new && mv %[3]s/new %[3]s/waits
	while [ -e %[3]s/waits ]; do sleep 0.02; done
}
case "$*" in
*--wait* | *--refresh* | *--cleanup*) tool=true ;;
*) tool="flock --no-fork %[1]s %[2]s" ;;
esac
if [ -e %[3]s/turns ] && [ "$1" = --create ]; then
	turn before
	$tool "$@"
	status=$?
	[ $status != 0 ] || turn after
	exit $status
fi
[ -e %[3]s/before ] || [ -e %[3]s/after ] || exec $tool "$@"
if meet before "$*"; then exit 1; fi
$tool "$@"
status=$?
meet after "$*"
exit $status
`

// cluster makes the CIB of two hosts, pm01 and pm02, that have joined and run nothing yet, for all that follows. From
// then on PATH leads to the same tools one at a time.
func cluster(ts *testscript.TestScript, _ bool, _ []string) {
	data, err := os.ReadFile(filepath.Join(ts.Getenv("TESTDATA"), "cluster.xml"))
	ts.Check(err)
	file := ts.MkAbs("cib/cib.xml") // so named, and alone in its folder, as Pacemaker has it
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o755))
	ts.Check(os.WriteFile(file, data, 0o600))
	ts.Check(os.Chmod(file, 0o666)) // the tools are the server's user's, where an operation of root's runs them
	ts.Setenv("CIB_file", file)

	turn, lock, meeting := ts.MkAbs("one-at-a-time"), ts.MkAbs("cib.lock"), ts.MkAbs(meetingFolder) // not where the daemons watch
	ts.Check(os.Mkdir(turn, 0o755))
	ts.Check(os.Mkdir(meeting, 0o755))
	ts.Check(os.Chmod(meeting, 0o777)) // for the server's user, as above
	for _, tool := range pacemakerTools {
		path, err := exec.LookPath(tool)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(turn, tool), fmt.Appendf(nil, oneAtATime, lock, path, meeting), 0o755))
	}
	ts.Setenv("PATH", turn+string(filepath.ListSeparator)+ts.Getenv("PATH"))
}

// lrmOperation NODE OPERATION [STATUS [CODE]] enters into the CIB, with cibadmin, what Pacemaker has done to the
// database on a host, as its controller does: the last of start, promote, demote, stop. "-1 193" is an operation still
// under way.
func lrmOperation(ts *testscript.TestScript, _ bool, args []string) {
	node, name := args[0], args[1]
	status, code := "0", "0"
	if len(args) == 4 {
		status, code = args[2], args[3]
	}
	id := strings.TrimPrefix(node, "pm0")
	const transition = "1:1:0:4fe152cd-0709-489f-be86-f616ea064e34"
	ts.Check(ts.Exec("cibadmin", "--modify", "--allow-create", "--scope", "status", "--xml-text", fmt.Sprintf(
		`<node_state id="%s"><lrm id="%[1]s"><lrm_resources><lrm_resource id="pgsql" class="ocf" provider="heartbeat" type="pgsql">`+
			`<lrm_rsc_op id="pgsql_last_0" operation_key="pgsql_%[2]s_0" operation="%[2]s" on_node="%[3]s" call-id="1" interval="0"`+
			` op-status="%[4]s" rc-code="%[5]s" transition-key="%[6]s" transition-magic="%[4]s:%[5]s;%[6]s"/>`+
			`</lrm_resource></lrm_resources></lrm></node_state>`,
		id, name, node, status, code, transition)))
}

// agrees wants pgrex and crm_mon to see the same hosts, online or not, and the same database on those that are online.
func agrees(ts *testscript.TestScript, _ bool, _ []string) {
	var ours inspected
	ts.Check(ts.Exec("pgrex", "inspect", "-o", "json"))
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &ours))
	var theirs struct {
		Nodes []struct {
			Name   string `xml:"name,attr"`
			Online bool   `xml:"online,attr"`
		} `xml:"nodes>node"`
		Resources []struct {
			Role string `xml:"role,attr"`
			Node struct {
				Name string `xml:"name,attr"`
			} `xml:"node"`
		} `xml:"resources>clone>resource"`
	}
	ts.Check(ts.Exec("crm_mon", "-1", "--output-as=xml", "--inactive"))
	ts.Check(xml.Unmarshal([]byte(ts.ReadFile("stdout")), &theirs))

	got, want := map[string]string{}, map[string]string{}
	for _, n := range ours.Nodes {
		got[n.Name] = fmt.Sprintf("online=%t ", n.Online)
		if role := ours.Clones[0].Roles[n.Name]; role != model.RoleStopped {
			got[n.Name] += string(role) + string(ours.Clones[0].Unsettled[n.Name]) // an action is in place of a role
		}
	}
	for _, n := range theirs.Nodes {
		want[n.Name] = fmt.Sprintf("online=%t ", n.Online)
	}
	for _, r := range theirs.Resources {
		if want[r.Node.Name] == "online=true " {
			want[r.Node.Name] += strings.ToLower(r.Role)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		ts.Fatalf("crm_mon (-) and pgrex (+) differ:\n%s", diff)
	}
}
