package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

func (a *app) serviceCommand() *cobra.Command {
	var s testenv.Service
	var stop bool
	cmd := &cobra.Command{
		Use:     "service HOST NAME [-- COMMAND [ARGUMENT...]]",
		GroupID: "look",
		Short:   "Keep a program running in a host",
		Long: `Starts a program in a host as an enabled unit would be: now and at every power-on, again a second after it ends, with
the folder /run/NAME of its own. What it writes is in 'rexlab logs HOST NAME'. With --stop it is stopped and forgotten.`,
		Example: `  rexlab service pm01 pgrex --user postgres --group haclient -- /usr/local/bin/pgrex run
  rexlab service pm01 pgrex --stop`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeHosts,
	}
	cmd.Flags().StringVar(&s.User, "user", "", "the user it runs as (default: root)")
	cmd.Flags().StringVar(&s.Group, "group", "", "the only group it has (default: the user's)")
	cmd.Flags().StringSliceVar(&s.Env, "env", nil, "a variable of its environment, NAME=VALUE; may be given again")
	cmd.Flags().BoolVar(&stop, "stop", false, "stop it and forget it")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if stop == (len(arguments) > 2) {
			return errors.New("give a command to start, or --stop")
		}
		s.Name, s.Argv = arguments[1], arguments[2:]
		return a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			if stop {
				return lab.Disable(ctx, arguments[0], s.Name)
			}
			return lab.Enable(ctx, arguments[0], s)
		})(cmd, arguments)
	}
	return cmd
}
