package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

func (a *app) logsCommand() *cobra.Command {
	var path bool
	cmd := &cobra.Command{
		Use:     "logs HOST [LOG...]",
		GroupID: "look",
		Short:   "Print a host's logs",
		Long: `Prints a host's logs. LOG is postgresql, pacemaker or corosync for a log file; console for the output before
systemd started; journal for all units; or a unit's name. Without LOG it prints the files and the journal, each line with
the log's name in front. The host may be off.`,
		Example: `  rexlab logs pm01 | grep FATAL
  rexlab logs pm01 postgresql
  rexlab logs pm01 pgrex
  tail -f $(rexlab logs pm01 postgresql --path)`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			host, names := arguments[0], arguments[1:]
			if len(names) == 0 {
				if names = slices.Clone(testenv.LogNames); !path {
					names = append(names, journal)
				}
			}
			out := printer.Stdout()
			for _, name := range names {
				if path {
					where, err := lab.LogPath(host, name)
					if err != nil {
						return err
					}
					out.Report(where)
					continue
				}
				text, err := readLog(ctx, lab, host, name)
				if errors.Is(err, os.ErrNotExist) && len(arguments) == 1 {
					continue // not every host has said something everywhere
				}
				if err != nil {
					return err
				}
				printLog(out, name, text, len(names) > 1)
			}
			return out.Err()
		}),
	}
	cmd.Flags().BoolVar(&path, "path", false, "print where the logs lie on this machine")
	return cmd
}

const journal = "journal"

func readLog(ctx context.Context, lab *testenv.Lab, host, name string) (string, error) {
	switch {
	case slices.Contains(testenv.LogNames, name):
		return lab.Log(host, name)
	case name == journal:
		return lab.Journal(ctx, host, "", time.Time{})
	}
	return lab.Journal(ctx, host, name, time.Time{})
}

func printLog(out *printer.Printer, name, text string, label bool) {
	if !label {
		out.Lines(text)
		return
	}
	for line := range strings.Lines(text) {
		out.Line("%s: %s", name, strings.TrimSuffix(line, "\n"))
	}
}
