package main

import (
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/model"
)

// inspected is the contract of 'inspect -o json': see docs/inspect.md.
type inspected struct {
	Version     model.Version    `json:"version"`
	Quorate     bool             `json:"quorate"`
	DC          string           `json:"dc"`
	Maintenance bool             `json:"maintenance"`
	Nodes       []inspectedNode  `json:"nodes"`
	Clones      []inspectedClone `json:"clones"`
}

type inspectedNode struct {
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	Online      bool              `json:"online"`
	Standby     bool              `json:"standby"`
	Maintenance bool              `json:"maintenance"`
	Pending     bool              `json:"pending"`
	Unclean     bool              `json:"unclean"`
	Attributes  map[string]string `json:"attributes"` // the transient ones over the permanent ones, as Pacemaker uses them
}

type inspectedClone struct {
	ID        string                `json:"id"`
	Primitive string                `json:"primitive"`
	Agent     string                `json:"agent"`
	Managed   bool                  `json:"managed"`
	Roles     map[string]model.Role `json:"roles"`
	// Unsettled names the instances whose role proves nothing, and why.
	Unsettled map[string]model.Unsettled `json:"unsettled"`
}

func inspectCommand() *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Print the cluster as pgrex reads it from a CIB",
		Long: `Reads a CIB, from a file, from standard input (--cib -), or from the running cluster, and prints the nodes and every
promotable clone with its role on each node.

Exit status: 0 printed, 1 the CIB could not be read, 64 wrong usage.`,
		Example: "  pgrex inspect --cib /var/lib/pacemaker/cib/cib.xml\n  cibadmin -Q | pgrex inspect --cib - -o json",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			cluster, err := inspectCluster(cmd, file)
			if err != nil {
				return err
			}
			if output == "json" {
				return printer.Out(cmd).JSON(inspectedOf(cluster))
			}
			return printCluster(printer.Out(cmd), inspectedOf(cluster))
		}),
	}
	cmd.Flags().StringVar(&file, "cib", "", "CIB to read ('-': standard input) instead of the running cluster's")
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func inspectCluster(cmd *cobra.Command, file string) (model.Cluster, error) {
	if file == "" {
		return (&cib.Client{}).Read(cmd.Context())
	}
	data, err := readInput(cmd, file)
	if err != nil {
		return model.Cluster{}, err
	}
	cluster, err := (&cib.Client{}).Interpret(cmd.Context(), data)
	if err != nil {
		return model.Cluster{}, fmt.Errorf("%s: %w", file, err)
	}
	return cluster, nil
}

func inspectedOf(c model.Cluster) inspected {
	out := inspected{c.Version, c.Quorate, c.DC, c.Maintenance, []inspectedNode{}, []inspectedClone{}}
	for _, n := range c.Nodes {
		attributes := maps.Clone(n.Permanent)
		if attributes == nil {
			attributes = map[string]string{}
		}
		maps.Copy(attributes, n.Transient)
		out.Nodes = append(out.Nodes, inspectedNode{n.Name, n.ID, n.Online, n.Standby, n.Maintenance, n.Pending, n.Unclean, attributes})
	}
	for _, c := range c.Clones {
		unsettled := c.Unsettled
		if unsettled == nil {
			unsettled = map[string]model.Unsettled{}
		}
		out.Clones = append(out.Clones, inspectedClone{c.ID, c.Primitive, c.Agent, c.Managed, c.Roles, unsettled})
	}
	return out
}

func printCluster(out *printer.Printer, c inspected) error {
	out.Line("CIB %d.%d.%d, quorum: %s, DC: %s%s", c.Version.AdminEpoch, c.Version.Epoch, c.Version.NumUpdates,
		yesNo(c.Quorate), orDash(c.DC), when(c.Maintenance, ", in maintenance-mode"))
	var nodes printer.Table
	nodes.Text("NODE", "ID", "STATE")
	for _, n := range c.Nodes {
		nodes.Text(n.Name, n.ID, nodeState(n))
	}
	out.Line("")
	out.Table(nodes)
	for _, clone := range c.Clones {
		var roles printer.Table
		roles.Text(clone.ID, clone.Primitive, clone.Agent+when(!clone.Managed, " (unmanaged)"))
		for _, n := range c.Nodes {
			role, why := clone.Roles[n.Name], clone.Unsettled[n.Name]
			if role != "" || why != "" {
				roles.Text("  "+n.Name, orDash(string(role))+when(why != "", " ("+string(why)+")"))
			}
		}
		out.Line("")
		out.Table(roles)
	}
	return out.Err()
}

func nodeState(n inspectedNode) string {
	words := []string{"offline"}
	if n.Online {
		words[0] = "online"
	}
	for _, w := range []struct {
		is   bool
		word string
	}{{n.Pending, "pending"}, {n.Unclean, "unclean"}, {n.Standby, "standby"}, {n.Maintenance, "maintenance"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func when(is bool, text string) string {
	if is {
		return text
	}
	return ""
}
