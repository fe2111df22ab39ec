package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/manual"
	"github.com/pgrex/pgrex/testenv"
)

// app is what the commands share.
type app struct{ dir string }

func rootCommand() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "rexlab",
		Short: "Boots a real PG-REX cluster on this machine",
		Long: `rexlab boots a real PG-REX cluster of several hosts on one machine, as root. Each host is a whole Debian with systemd, its
own corosync, Pacemaker and PostgreSQL, and the distribution's own ocf:heartbeat:pgsql agent: whatever an operator does on a
cluster can be rehearsed here, and whatever breaks there can be broken here.

A lab changes only its own folder and /var/cache/rexlab. 'rexlab down' removes the lab, not the systems' roots: see
'rexlab systems'.`,
		Example: `  rexlab up
  rexlab status
  rexlab exec pm01 -- crm_mon -1A
  rexlab crash pm01            # kill -9 the primary's server, and Pacemaker fails over
  rexlab rewind pm01           # bring the old primary back
  rexlab down`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		Args:             cobra.NoArgs,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) { testenv.SweepCgroups() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&a.dir, "dir", cmp.Or(os.Getenv("REXLAB_DIR"), testenv.DefaultDir),
		"the lab's folder; several labs can run side by side, each in its own (or set REXLAB_DIR)")
	root.AddGroup(&cobra.Group{ID: "lab", Title: "The lab:"}, &cobra.Group{ID: "look", Title: "Look, and work on a host:"},
		&cobra.Group{ID: "break", Title: "Break things, and mend them:"}, &cobra.Group{ID: "back", Title: "Bring a host back:"})
	a.addLab(root)
	a.addLook(root)
	a.addBreak(root)
	a.addBack(root)
	root.AddCommand(manual.Manual{Title: "rexlab", ExitStatus: "0 done, 1 it could not be done, 64 wrong usage."}.Command())
	return root
}

// withLab makes a command of one that needs a lab that is up.
func (a *app) withLab(f func(ctx context.Context, lab *testenv.Lab, arguments []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, arguments []string) error {
		if os.Geteuid() != 0 {
			return failure{fmt.Errorf("the lab belongs to root: run 'rexlab %s' as root", cmd.Name())}
		}
		lab, err := testenv.Open(a.dir)
		if err != nil {
			return failure{err}
		}
		if err := f(cmd.Context(), lab, arguments); err != nil {
			return failure{err}
		}
		return nil
	}
}

// completeHosts offers the lab's hosts for the first argument.
func (a *app) completeHosts(_ *cobra.Command, arguments []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(arguments) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	lab, err := testenv.Open(a.dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return lab.Hosts(), cobra.ShellCompDirectiveNoFileComp
}
