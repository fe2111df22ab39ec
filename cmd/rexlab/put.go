package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

func (a *app) putCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "put HOST FILE PATH",
		GroupID: "look",
		Short:   "Copy a file of this machine into a host",
		Long:    "Copies a file of this machine into a host: owned by root, with the same mode. PATH may be a running program.",
		Example: `  rexlab put pm01 bin/pgrex /usr/bin/pgrex
  rexlab put pm01 hack/systemd/pgrex.service /usr/lib/systemd/system/pgrex.service`,
		Args: cobra.ExactArgs(3),
		ValidArgsFunction: func(cmd *cobra.Command, arguments []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(arguments) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeHosts(cmd, arguments, word)
		},
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			info, err := os.Stat(arguments[1])
			if err != nil {
				return err
			}
			return lab.CopyIn(ctx, arguments[0], arguments[1], arguments[2], info.Mode().Perm())
		}),
	}
}
