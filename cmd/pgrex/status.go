package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
)

const watchInterval = 2 * time.Second

func statusCommand() *cobra.Command {
	s := newSettings()
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print the cluster as the daemon on this host sees it",
		Long: `Asks the daemon on this host, and prints every host of the database: its role, timeline and position, how far it is behind, what
its slot on the primary holds and for how long that lasts; how each host would come back if another one were promoted now;
what is to be done, and the conditions that hold, since when. docs/status.md explains each column, and the JSON.

  -o wide  adds the agent's own attributes, this host's slots and disk, and why each forecast is as it is

Exit status: 0 healthy, 3 degraded, 1 no daemon answers, 64 wrong usage.`,
		Example: "  pgrex status --watch\n  pgrex status -o json",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			if watch {
				return watchStatus(cmd, s.Socket, output)
			}
			return showStatus(cmd.Context(), printer.Out(cmd), s.Socket, output)
		}),
	}
	s.askFlags(cmd.Flags())
	cmd.Flags().BoolVar(&watch, "watch", false, "print again every two seconds, in place on a terminal, until Ctrl-C")
	outputFlag(cmd, &output, "table", "wide", "json")
	return cmd
}

// showStatus prints the status once; the error is the exit status of a degraded host.
func showStatus(ctx context.Context, out *printer.Printer, socket, output string) error {
	status, err := controller.FetchStatus(ctx, socket)
	if err != nil {
		return err
	}
	if output == "json" {
		err = out.JSON(status)
	} else {
		err = printStatus(out, status, output == "wide")
	}
	if err == nil && !status.Healthy {
		return statusError(exitDegraded)
	}
	return err
}

// watchStatus prints until the user ends it; a daemon that is away for a while is waited for.
func watchStatus(cmd *cobra.Command, socket, output string) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		out := printer.Out(cmd) // the window may have another size by now
		page := out.Page()
		err := showStatus(cmd.Context(), page, socket, output)
		if _, degraded := errors.AsType[statusError](err); err != nil && !degraded && cmd.Context().Err() == nil {
			page.Report(printer.OneLine(err))
		}
		if err := out.Show(page); err != nil {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}
