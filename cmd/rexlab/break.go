package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

// hostCommand makes a command that does one thing to one host.
func (a *app) hostCommand(group, name, short, long string, do func(*testenv.Lab, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " HOST",
		GroupID:           group,
		Short:             short,
		Long:              long,
		Example:           "  rexlab " + name + " pm02",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			return do(lab, ctx, arguments[0])
		}),
	}
}

func (a *app) addBreak(root *cobra.Command) {
	const group = "break"
	root.AddCommand(
		a.hostCommand(group, "crash", "Kill -9 a host's postmaster",
			"Kills a host's postmaster with SIGKILL. On the primary Pacemaker fails over; the host itself stays up.",
			(*testenv.Lab).Crash),
		a.hostCommand(group, "freeze", "SIGSTOP a host's PostgreSQL",
			`Stops all processes of a host's PostgreSQL with SIGSTOP: connections stay, nothing is answered. Pacemaker finds it
failed after some time, cannot stop it, and has the host fenced.`, (*testenv.Lab).Freeze),
		a.hostCommand(group, "thaw", "SIGCONT a host's PostgreSQL", "Lets a host's frozen PostgreSQL go on.", (*testenv.Lab).Thaw),
		a.hostCommand(group, "off", "Cut a host's power",
			"Kills everything in a host at once. What it had written to its disk stays.", (*testenv.Lab).Off),
		a.hostCommand(group, "on", "Give a host power",
			`Boots a host: systemd starts its enabled units, such as corosync and Pacemaker. It does not wait for these, but
before the boot it waits up to a minute until the other hosts have noticed its loss, and have fenced it if need be.`,
			(*testenv.Lab).On),
		a.hostCommand(group, "cut", "Cut a host's network",
			"Takes a host's network away, until 'rexlab heal'. With fencing on, the others power it off.", (*testenv.Lab).Cut),
		a.hostCommand(group, "heal", "Give a host its network back", "Gives a host its network back.", (*testenv.Lab).Heal),
		a.hostCommand(group, "standby", "Put a host into Pacemaker's standby mode",
			"Puts a host into Pacemaker's standby mode: its resources are stopped, in order.", (*testenv.Lab).Standby),
		a.hostCommand(group, "unstandby", "End a host's standby mode",
			"Ends Pacemaker's standby mode on a host: its resources are started again.", (*testenv.Lab).Unstandby),
		a.loadCommand(group),
	)
}

func (a *app) loadCommand(group string) *cobra.Command {
	var wal string
	cmd := &cobra.Command{
		Use:     "load HOST",
		GroupID: group,
		Short:   "Write WAL on the primary",
		Long: `Writes WAL on the primary until its position has moved on by the given size. It waits for the standbys that stream, so
that only one that is away falls behind.`,
		Example:           "  rexlab load pm01 --wal 320MB",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHosts,
	}
	cmd.Flags().StringVar(&wal, "wal", "64MB", "how much")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		size, err := parseSize(wal)
		if err != nil {
			return fmt.Errorf("--wal: %w", err)
		}
		return a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			return lab.Load(ctx, arguments[0], size)
		})(cmd, arguments)
	}
	return cmd
}
