package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/operation"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgrex",
		Short: "Keeps the replication slots of a PG-REX cluster right",
		Long: `pgrex keeps PostgreSQL replication slots right on a Pacemaker cluster (PG-REX), so that every host
rejoins without a full copy. It runs on every database host and changes only the PostgreSQL of its own host.

Run as root what changes more than slots: sudo pgrex rejoin, switchover, start, stop, operation, archive prune, adopt,
release. All but Pacemaker's tools then runs with the rights of the user that owns the data. Run the rest as that user,
with the group haclient (pgrex.service does so).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(), autoRejoinCommand(), planCommand(), applyCommand(), snapshotCommand(), inspectCommand(), statusCommand(), metricsCommand(), webCommand(), whatIfCommand(),
		rejoinCommand(), switchoverCommand(), startCommand(), stopCommand(), operationCommand(), archiveCommand(), pauseCommand(), resumeCommand(),
		doctorCommand(), adoptCommand(), releaseCommand(),
		versionCommand(), supportCommand(), manualOf.Command())
	complete(root)
	return root
}

// runE makes a command's own errors failures, so that the others are known as errors of usage.
func runE(f func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		err := f(cmd)
		if errors.Is(err, context.Canceled) {
			err = interrupted(err)
		}
		if _, ok := errors.AsType[statusError](err); ok || err == nil {
			return err
		}
		return commandError{err}
	}
}

// interrupted is the error after an interrupt. It says how the cluster is left, unless every step was undone.
func interrupted(err error) error {
	if left, ok := errors.AsType[*operation.LeftError](err); ok {
		return errors.New("interrupted; " + left.Left)
	}
	return errors.New("interrupted")
}
