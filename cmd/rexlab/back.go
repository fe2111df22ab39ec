package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

func (a *app) addBack(root *cobra.Command) {
	const group = "back"
	root.AddCommand(
		a.hostCommand(group, "rewind", "Bring an old primary back with pg_rewind",
			`Does what an operator does to bring a host back without a copy: keeps Pacemaker away from it, lets its database
recover from its crash, checkpoints the primary, runs pg_rewind, removes the agent's PGSQL.lock, clears the fail count, and
lets Pacemaker start it. When pg_rewind fails, the host is left in standby mode.`, (*testenv.Lab).Rewind),
		a.copyCommand(group),
	)
}

func (a *app) copyCommand(group string) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:     "copy HOST",
		GroupID: group,
		Short:   "Bring a host back with a new copy of the database",
		Long: `Replaces a host's database with a copy made by pg_basebackup, from the primary or from another standby, and does
around it what 'rexlab rewind' does.`,
		Example: `  rexlab copy pm03
  rexlab copy pm03 --from pm02`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			return lab.Copy(ctx, arguments[0], from)
		}),
	}
	cmd.Flags().StringVar(&from, "from", "", "the host to copy from (default: the primary)")
	return cmd
}
