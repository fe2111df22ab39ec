package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/service"
)

// The end of the last line, after the host's name.
const (
	started = " is started"
	stopped = " is stopped; to start it again, type: sudo pgrex start"
)

func startCommand() *cobra.Command {
	var force bool
	cmd := serviceCommand("start", "Start the database on this host", started,
		`Starts the database of this host through Pacemaker, which has to run. Where another host is the primary, this one starts as
a standby, if its data are a part of the primary's and the primary has the rest; otherwise pgrex rejoin is the way. Where no
host is the primary, this one becomes it, if it has the newest data by what the agent keeps in the CIB; otherwise it says which
host has. If the agent's PGSQL.lock is there, or no host has the data status LATEST, it asks the servers of all other
members, and starts if none has newer data; otherwise it says what is missing, and on which host. It waits until the host
streams through its own slot, or takes writes.

With --force a host becomes the primary though its data are stale, or though it cannot be proven that they are not: what only
others have is lost. While there is a primary --force does nothing.

Interrupted before it is started, it leaves the database stopped, as it was.`,
		func(s *service.Service, ctx context.Context) (operation.Job, error) { return s.Start(ctx, force) })
	cmd.Flags().BoolVar(&force, "force", false, "become the primary with data that may be stale")
	return cmd
}

func stopCommand() *cobra.Command {
	var force, noCheckpoint bool
	cmd := serviceCommand("stop", "Stop the database on this host", stopped,
		`Stops the database of this host through Pacemaker, after a checkpoint, and waits for its end. A location constraint,
pgrex-stop-PRIMITIVE-NODE, keeps it stopped until pgrex start, even after a restart of Pacemaker. Other resources on this
node go on; pgrex says first which ones cannot, because they need the database. Stop the primary last: while others run, that is a failover, which only --force allows; pgrex switchover
is better. pgrex says first who is left.

Interrupted, it starts the database again; after a failover it says what to type.`,
		func(s *service.Service, ctx context.Context) (operation.Job, error) {
			return s.Stop(ctx, !noCheckpoint, force)
		})
	cmd.Flags().BoolVar(&force, "force", false, "stop the primary while other hosts run: a failover")
	cmd.Flags().BoolVar(&noCheckpoint, "no-checkpoint", false, "make no checkpoint before")
	return cmd
}

func serviceCommand(name, short, done, long string, make planning) *cobra.Command {
	s := newSettings()
	var ask asking
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long: long + `

Run it on the host in question, as root. All but Pacemaker's tools runs as the user that owns the data. If it is
killed, type: sudo pgrex operation finish, or undo.

Exit status: 0 done or nothing to do, 1 failed or refused, 2 dry run with something to do, 64 wrong usage.`,
		Example: "  sudo pgrex " + name + " --dry-run\n  sudo pgrex " + name,
		RunE: operates(s, startsPrograms, func(cmd *cobra.Command) error {
			return serve(cmd, s, &ask, make, nil, done)
		}),
	}
	s.observeFlags(cmd.Flags())
	ask.flags(cmd)
	return cmd
}

// planning plans to start or to stop the database.
type planning func(*service.Service, context.Context) (operation.Job, error)

// serve starts or stops the database. left is the journal of an operation to finish; it may be nil.
func serve(cmd *cobra.Command, s *settings, ask *asking, plan planning, left *operation.Journal, done string) error {
	o := s.observer()
	defer o.Close()
	engine := s.engine(cmd, o)
	goesOn := func(j *operation.Journal) bool { return left != nil && j.Token == left.Token }
	if err := engine.Ready(cmd.Context(), goesOn); err != nil {
		return err
	}
	job, err := plan(&service.Service{Observer: o, Left: left, Report: engine.Report}, cmd.Context())
	if err != nil {
		return err
	}
	job.Continues = goesOn
	return ask.perform(cmd, engine, job, s.Node+done)
}
