package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

func systemNames() string {
	var names []string
	for _, s := range testenv.Systems() {
		names = append(names, s.Name)
	}
	return strings.Join(names, " or ")
}

func systemsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "systems",
		GroupID: "lab",
		Short:   "List, make and remove the systems that hosts can be",
		Long: `Lists the systems that hosts can be, with their versions. debootstrap makes a system's root from this machine's
package source in /var/cache/rexlab. All labs share it; none writes to it. 'rexlab up' makes a root that is missing,
was changed, or was made by another version of rexlab. That takes about 45 s.

Debian sid gets newer packages every day: 'rexlab systems remove sid' has the next 'up' make it of today's.`,
		Example: `  rexlab systems
  rexlab systems make debian12
  rexlab systems remove debian12`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listSystems(printer.Out(cmd)) },
	}
	cmd.AddCommand(
		systemCommand(cmd.GroupID, "make", "Make the roots of systems that are missing or not whole",
			func(cmd *cobra.Command, s testenv.System) error {
				return s.Make(cmd.Context(), printer.Out(cmd).Writer())
			}),
		systemCommand(cmd.GroupID, "remove", "Remove the roots of systems that no lab uses",
			func(_ *cobra.Command, s testenv.System) error { return s.Remove() }),
	)
	cmd.AddGroup(&cobra.Group{ID: cmd.GroupID, Title: "Commands:"})
	return cmd
}

// systemCommand makes a command that does one thing to each system that is named, or to all.
func systemCommand(group, name, short string, do func(*cobra.Command, testenv.System) error) *cobra.Command {
	return &cobra.Command{
		Use:     name + " [SYSTEM...]",
		GroupID: group,
		Short:   short,
		Long:    short + ". Without SYSTEM it is done for all.",
		Example: "  rexlab systems " + name + " debian13",
		RunE: func(cmd *cobra.Command, names []string) error {
			systems := testenv.Systems()
			if len(names) > 0 {
				systems = nil
			}
			for _, n := range names {
				s, err := testenv.SystemNamed(n)
				if err != nil {
					return err
				}
				systems = append(systems, s)
			}
			if os.Geteuid() != 0 {
				return failure{errors.New("the systems' roots belong to root: run 'rexlab systems " + name + "' as root")}
			}
			for _, s := range systems {
				if err := do(cmd, s); err != nil {
					return failure{err}
				}
			}
			return nil
		},
	}
}

func listSystems(out *printer.Printer) error {
	if os.Geteuid() != 0 {
		return failure{errors.New("the systems' roots belong to root: run 'rexlab systems' as root")}
	}
	var t printer.Table
	t.Text("SYSTEM", "ROOT", "STATE", "MADE", "VERSIONS")
	for _, s := range testenv.Systems() {
		state, made, has := "whole", s.Made().Format(time.DateOnly), s.Summary()
		if err := s.Check(); err != nil {
			state, made, has = err.Error(), "-", "-"
		} else if s.Used() {
			state = "in use"
		}
		t.Text(s.Name, s.Root(), state, made, has)
	}
	out.Table(t)
	return out.Err()
}
