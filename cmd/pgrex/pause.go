package main

import (
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/service"
)

func pauseCommand() *cobra.Command {
	return pausing("pause", true, "Make pgrex look, say and do nothing, on every host",
		"Sets the meta attribute pgrex-paused=true. The slots stay as they are; nothing is restarted. Where idle_replication_slot_timeout is "+
			"set (PostgreSQL 18), slots of hosts that are away may be lost to it meanwhile.")
}

func resumeCommand() *cobra.Command {
	return pausing("resume", false, "Let pgrex go on, on every host", "Removes the meta attribute pgrex-paused.")
}

func pausing(name string, paused bool, short, long string) *cobra.Command {
	s := newSettings()
	var dryRun bool
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long:    long + "\n\nExit status: 0 done or nothing to do, 1 failed or refused, 2 dry run with something to do, 64 wrong usage.",
		Example: "  pgrex " + name + " --dry-run\n  pgrex " + name,
		RunE: runE(func(cmd *cobra.Command) error {
			defer quits(cmd)()
			if err := s.load(cmd); err != nil {
				return err
			}
			o := s.observer()
			defer o.Close()
			actions, err := service.Pause(cmd.Context(), o, paused)
			if err != nil {
				return err
			}
			ask := asking{dryRun: dryRun, yes: true}
			return ask.performWork(cmd, s.engine(cmd, o), operation.Work{Actions: actions})
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the steps, and do nothing")
	return cmd
}
