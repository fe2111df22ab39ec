package main

import (
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/operation/switchover"
)

func switchoverCommand() *cobra.Command {
	s := newSettings()
	var to string
	var ask asking
	cmd := &cobra.Command{
		Use: "switchover", Short: "Make another host the primary, and this one its standby",
		Long: `Makes another host the primary and this host its standby, without a copy or a rewind. It shuts PostgreSQL down cleanly
here. Once the other host has everything, Pacemaker promotes it. pgrex refuses while anything speaks against that: no
quorum, maintenance, a failure that is not cleaned up, a constraint left by crm_resource, a host that does not stream,
that the agent would not promote, or that lacks a reserved slot for another member. It says how long writes were
impossible.

Run it on the primary, as root. All but Pacemaker's tools runs as the user that owns the data. If a step fails, or you
interrupt it, before Pacemaker has the database back, the steps are undone, and PostgreSQL is the primary here. Later
the message says what to type. If it is killed, or this host loses power, type: sudo pgrex operation finish, or undo.

Exit status: 0 the other host is the primary and this one streams from it, 1 failed or refused, 2 dry run with something
to do, 64 wrong usage.`,
		Example: "  sudo pgrex switchover --dry-run\n  sudo pgrex switchover --to pm02",
		Args:    cobra.NoArgs,
		RunE: operates(s, startsServer, func(cmd *cobra.Command) error {
			return switchOver(cmd, s, to, &ask)
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "the host that is to be the primary; the first that can, if not given")
	ask.flags(cmd)
	return cmd
}

func switchOver(cmd *cobra.Command, s *settings, to string, ask *asking) error {
	o := s.observer()
	defer o.Close()
	engine := s.engine(cmd, o)
	if err := engine.Ready(cmd.Context(), nil); err != nil {
		return err
	}
	operate := &switchover.Switchover{Observer: o, To: to, Report: engine.Report}
	job, err := operate.Job(cmd.Context())
	if err != nil {
		return err
	}
	return ask.perform(cmd, engine, job, operate.Target()+" is the primary, and "+s.Node+" streams from it")
}
