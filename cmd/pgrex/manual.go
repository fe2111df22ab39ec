package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgrex/pgrex/cmd/manual"
)

// manualOf are the manual pages: those of the commands, and pgrex.yaml(5).
var manualOf = manual.Manual{
	Title: "pgrex",
	Files: `**/etc/pgrex/pgrex.yaml**
: Settings of this host: pgrex.yaml(5). The file may be missing. What holds for the cluster is in the CIB, as meta
attributes of the database's clone: /usr/share/doc/pgrex/README.md.

**/run/pgrex/pgrex.sock**
: The daemon's socket, which **pgrex status**, **pgrex metrics**, **pgrex web** and **pgrex what-if** ask.

**/var/lib/pgrex**
: What the daemon keeps across a restart: the version of the newest CIB seen, and how fast WAL has come. An
operation keeps its journal, operation.json, here until it has ended, and its lock, operation.lock: **pgrex operation**.

**/etc/pgrex/NAME.yaml**, **/run/pgrex/NAME/pgrex.sock**, **/var/lib/pgrex/NAME**
: The same for one of several databases of a cluster, whose primitive has the id NAME: **pgrex@NAME.service**, and
**--instance NAME** with every command.

**/usr/share/doc/pgrex**
: The documentation. docs/findings.md explains every finding, docs/operations.md every operation.
`,
	Pages: func() ([]manual.Page, error) { return []manual.Page{settingsPage()}, nil },
}

// settingsPage is pgrex.yaml(5).
func settingsPage() manual.Page {
	var b strings.Builder
	b.WriteString(`# NAME
pgrex.yaml \- settings of pgrex on this host

# DESCRIPTION
**/etc/pgrex/pgrex.yaml** has what differs from host to host. Every key has a default, and the file may be missing. Each key is
also a flag of **pgrex run**, or, with **web** in its name, of **pgrex web**; the flag overrides the file. Other commands with a flag of that name use the key, too. An unknown
key or a wrong value is an error that names its line, and pgrex does not start. Restart the daemon after a change, or for a key with
**web** in its name that unit:

    systemctl restart pgrex
    systemctl restart pgrex-web

**--config** names another file. pgrex's user must be able to read the file. The file holds no secret: pgrex logs in to
PostgreSQL as the agent does, and to other hosts with what primary\_conninfo says.

# KEYS
`)
	for _, f := range settingsFlags() {
		fmt.Fprintf(&b, "**%s**: %s\n: %s\n\n", f.Name, f.Value.Type(), manual.Describe(f, f.Usage))
	}
	b.WriteString(`# EXAMPLES
    node: pm01
    log-level: debug

# SEE ALSO
**pgrex(1)**, **pgrex-run(1)**
`)
	return manual.Page{Name: "pgrex.yaml", Section: "5", Markdown: b.String()}
}

// settingsFlags are the flags that are keys of pgrex.yaml, in the file's order.
func settingsFlags() (flags []*pflag.Flag) {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	set.SortFlags = false
	s := newSettings()
	s.observeFlags(set)
	s.daemonFlags(set)
	s.webFlags(set)
	set.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "instance" {
			flags = append(flags, f)
		}
	})
	return flags
}
