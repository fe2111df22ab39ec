package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

func (a *app) logsCommand() *cobra.Command {
	var path bool
	cmd := &cobra.Command{
		Use:     "logs HOST [LOG...]",
		GroupID: "look",
		Short:   "Print a host's logs",
		Long: `Prints a host's logs. LOG is postgresql, pacemaker, corosync, console (the host's own PID 1) or the name of a
service. Without LOG all that exist are printed, each line with its log's name in front. It works without power, too.`,
		Example: `  rexlab logs pm01 | grep FATAL
  rexlab logs pm01 postgresql
  tail -f $(rexlab logs pm01 postgresql --path)`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(_ context.Context, lab *testenv.Lab, arguments []string) error {
			names := arguments[1:]
			if len(names) == 0 {
				var err error
				if names, err = lab.Logs(arguments[0]); err != nil {
					return err
				}
			}
			for _, name := range names {
				if err := printLog(os.Stdout, lab, arguments[0], name, path, len(names) > 1); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&path, "path", false, "print where the logs lie on this machine")
	return cmd
}

func printLog(w io.Writer, lab *testenv.Lab, host, name string, path, label bool) error {
	if path {
		where, err := lab.LogPath(host, name)
		fmt.Fprintln(w, where)
		return err
	}
	text, err := lab.Log(host, name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if label {
			fmt.Fprint(w, name, ": ")
		}
		fmt.Fprint(w, line)
	}
	return nil
}
