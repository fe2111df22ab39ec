package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/metrics"
)

func metricsCommand() *cobra.Command {
	s := newSettings()
	var textfile string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print what the daemon on this host knows, for Prometheus",
		Long: `Asks the daemon on this host, and prints what it knew at its last look as metrics in Prometheus' text format. Nothing is looked at,
and PostgreSQL is asked nothing. docs/metrics.md explains each metric, docs/monitoring.md how Prometheus gets them.

With --textfile they are written to a file for node_exporter's textfile collector: call it from a timer, every 15 seconds or so. The file is
replaced in one step. If no daemon answers, the file says just that (pgrex_up 0), and the exit status is 1.

Exit status: 0 done, 1 no daemon answers, or the file could not be written, 64 wrong usage.`,
		Example: "  pgrex metrics\n  pgrex metrics --textfile /var/lib/prometheus/node-exporter/pgrex.prom",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			var known *controller.Status
			status, unanswered := controller.FetchStatus(cmd.Context(), s.Socket)
			if unanswered == nil {
				known = &status
			}
			if textfile != "" {
				return errors.Join(unanswered, metrics.WriteFile(textfile, known, s.Instance))
			}
			text, err := metrics.Text(known, s.Instance)
			if err != nil {
				return errors.Join(unanswered, err)
			}
			out := printer.Out(cmd)
			out.Lines(string(text))
			return errors.Join(unanswered, out.Err())
		}),
	}
	s.askFlags(cmd.Flags())
	cmd.Flags().StringVar(&textfile, "textfile", "", "write them to this file, for node_exporter's textfile collector")
	return cmd
}
