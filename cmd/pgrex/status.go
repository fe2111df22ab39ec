package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

const watchInterval = 2 * time.Second

func statusCommand() *cobra.Command {
	s := newSettings()
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what the daemon on this host sees and does",
		Long: `Asks the daemon on this host: the members, this host's PostgreSQL and slots with the WAL they hold, what is to be
done, and the conditions that hold, since when.

Exit status: 0 healthy, 3 degraded, 1 no daemon answers.`,
		Example: "  pgrex status --watch\n  pgrex status -o json",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			if watch {
				return watchStatus(cmd, s.Socket, output)
			}
			return showStatus(cmd.Context(), cmd.OutOrStdout(), s.Socket, output)
		}),
	}
	cmd.Flags().StringVar(&s.Config, "config", s.Config, "file with settings; the default one may be missing")
	cmd.Flags().StringVar(&s.Socket, "socket", s.Socket, "unix socket of the daemon")
	cmd.Flags().BoolVar(&watch, "watch", false, "print again every two seconds, until Ctrl-C")
	outputFlag(cmd, &output, "table", "json")
	return cmd
}

// showStatus prints the status once; the error is the exit status of a degraded host.
func showStatus(ctx context.Context, w io.Writer, socket, output string) error {
	status, err := controller.FetchStatus(ctx, socket)
	if err != nil {
		return err
	}
	if output == "json" {
		err = printJSON(w, status)
	} else {
		err = printStatus(w, status)
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
		err := showStatus(cmd.Context(), cmd.OutOrStdout(), socket, output)
		if _, degraded := errors.AsType[statusError](err); err != nil && !degraded && cmd.Context().Err() == nil {
			fmt.Fprintln(cmd.OutOrStdout(), oneLine(err))
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
			fmt.Fprintln(cmd.OutOrStdout())
		}
	}
}

func printStatus(w io.Writer, s controller.Status) error {
	fmt.Fprintf(w, "%s: %s\n", s.Node, s.Summary)
	fmt.Fprintf(w, "pgrex %s since %s, looked %s ago, cluster read %s ago, %d steps done\n\n",
		s.Version, s.Started.Local().Format(time.DateTime), ago(s.Looked), ago(s.Read), s.StepsDone)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tONLINE\tROLE\tSTATUS\tDATA STATUS")
	for _, m := range s.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Host, yesNo(m.Online), orDash(string(m.Role)), orDash(m.Status), orDash(m.DataStatus))
	}
	fmt.Fprintf(t, "\nPostgreSQL here is %s%s\n", orDash(string(s.Server.State)), where(s))
	if len(s.Slots) > 0 {
		fmt.Fprintln(t, "\nSLOT\tFOR\tATTACHED\tRESTART LSN\tHOLDS\tWAL STATUS")
	}
	for _, l := range s.Slots {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, orDash(l.Member), yesNo(l.Active), lsn(l.RestartLSN),
			model.FormatBytes(l.Retained), orDash(l.WALStatus))
	}
	if len(s.Planned)+len(s.Failures)+len(s.Conditions) > 0 {
		fmt.Fprintln(t)
	}
	for _, step := range s.Planned {
		fmt.Fprintf(t, "to do: %s\n", step)
	}
	for _, f := range s.Failures {
		fmt.Fprintf(t, "failed: %s: %s\n", f.Step, f.Text)
	}
	for _, c := range s.Conditions {
		fmt.Fprintf(t, "%s %s since %s: %s\n", c.Severity, c.Code, c.Since.Local().Format(time.DateTime), c.Text)
	}
	return t.Flush()
}

// where is what there is to say of a server that is up.
func where(s controller.Status) string {
	if s.Server.State != model.ServerUp {
		return ""
	}
	return fmt.Sprintf(", timeline %d, at %s%s", s.Server.Timeline, s.Server.Current, streams(s))
}

func streams(s controller.Status) string {
	switch {
	case s.Server.Streaming && s.Server.StreamingSlot != "":
		return ", streams through slot " + s.Server.StreamingSlot
	case s.Server.Streaming:
		return ", streams without a slot"
	case s.Role == model.Standby:
		return ", does not stream"
	}
	return ""
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never:"
	}
	return time.Since(t).Round(time.Second).String()
}

func lsn(l model.LSN) string {
	if !l.IsValid() {
		return "-"
	}
	return l.String()
}
