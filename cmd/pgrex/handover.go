package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/handover"
)

func adoptCommand() *cobra.Command {
	return handingOver("adopt", "Hand the slots over from the agent to pgrex",
		`Removes the agent's replication_slot_name without a restart of PostgreSQL: in maintenance-mode, with a refresh before
that is left. The slots keep their names, and every standby goes on streaming. pgrex has to run on every host by then.`,
		(*handover.Handover).Adopt)
}

func releaseCommand() *cobra.Command {
	return handingOver("release", "Hand the slots back from pgrex to the agent",
		`Sets the agent's replication_slot_name to the prefix of the slots, without a restart of PostgreSQL. From its next start
on the agent drops the slots and makes them again, as it always did.`,
		(*handover.Handover).Release)
}

func handingOver(name, short, long string, make func(*handover.Handover, context.Context) (operation.Job, error)) *cobra.Command {
	s := newSettings()
	var ask asking
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long: long + `

Run it on the primary, as root. If a step fails, or you interrupt it, before maintenance-mode is left, the steps are
undone. If it is killed, do not leave maintenance-mode by hand: Pacemaker has to look first. Type: sudo pgrex operation
finish, or undo.

Exit status: 0 done or nothing to do, 1 failed or refused, 2 dry run with something to do, 64 wrong usage.`,
		Example: "  sudo pgrex " + name + " --dry-run\n  sudo pgrex " + name,
		RunE: operates(s, startsTools, func(cmd *cobra.Command) error {
			o := s.observer()
			defer o.Close()
			engine := s.engine(cmd, o)
			if err := engine.Ready(cmd.Context(), nil); err != nil {
				return err
			}
			job, err := make(&handover.Handover{Observer: o}, cmd.Context())
			if err != nil {
				return err
			}
			return ask.perform(cmd, engine, job, "")
		}),
	}
	s.observeFlags(cmd.Flags())
	ask.flags(cmd)
	return cmd
}
