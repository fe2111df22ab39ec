package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/reconcile"
)

func rejoinCommand() *cobra.Command {
	s := newSettings()
	var method, maxRate string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "rejoin",
		Short: "Bring this host back that does not come back by itself",
		Long: `Looks at this host's data and at the primary, prints each way back with what it would fetch and why it is possible
or not, and takes the cheapest: start, rewind (pg_rewind) or copy (pg_basebackup, through this host's own slot, beside the old
data). Node-local files stay, primary_slot_name is right before the first start, and the agent's PGSQL.lock goes only when the
data are proven or mended. It waits until the host streams. Interrupted anywhere, it can be run again.

Run it on the host that is to come back, as the user that runs PostgreSQL.

Exit status: 0 the host streams, 1 it does not, 2 in a dry run something would be done, 64 wrong usage.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			if !slices.Contains([]string{"auto", "start", "rewind", "copy"}, method) {
				return fmt.Errorf("--method %q: it is auto, start, rewind or copy", method)
			}
			return nil
		},
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			return rejoin(cmd, s, method, maxRate, dryRun, yes)
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().StringVar(&method, "method", "auto", "auto, start, rewind or copy")
	cmd.Flags().StringVar(&maxRate, "max-rate", "", "limit of a copy's rate, in kB/s or as 100M (pg_basebackup)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the ways back and the steps, and do nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func rejoin(cmd *cobra.Command, s *settings, method, maxRate string, dryRun, yes bool) error {
	out := cmd.OutOrStdout()
	report := func(line string) { fmt.Fprintln(out, line) }
	o := s.observer()
	defer o.Close()
	r := &operation.Rejoin{Observer: o, Clusters: &cib.Client{}, Node: s.Node, Resource: s.Resource, MaxRate: maxRate, Report: report}
	found, err := r.Look(cmd.Context())
	if err != nil {
		return err
	}
	if found.Streams {
		report(s.Node + " streams through its own slot: there is nothing to do")
		return nil
	}
	printLadder(out, found.Ladder)
	rung, err := found.Choose(method)
	if err != nil {
		return err
	}
	by := func(method reconcile.Method) error {
		steps := r.Steps(found, method)
		report("this is done, by " + string(method) + ":")
		operation.Show(steps, report)
		if dryRun {
			return statusError(exitPending)
		}
		if err := confirm(cmd, yes); err != nil {
			return err
		}
		return operation.Do(cmd.Context(), steps, report)
	}
	err = by(rung.Method)
	if copied, e := found.Choose(string(reconcile.MethodCopy)); errors.Is(err, operation.ErrNoRewind) && method == "auto" && e == nil {
		report(oneLine(err))
		err = by(copied.Method)
	}
	if _, ok := errors.AsType[statusError](err); ok || err == nil {
		if err == nil {
			report(s.Node + " is back")
		}
		return err
	}
	return fmt.Errorf("%w; run pgrex rejoin again when that is mended", err)
}

func printLadder(w io.Writer, ladder []reconcile.Rung) {
	for _, rung := range ladder {
		verdict := "not possible"
		if rung.Possible {
			verdict = "possible (" + operation.Size(rung.Bytes) + ")"
		}
		fmt.Fprintf(w, "%-6s  %s: %s\n", rung.Method, verdict, rung.Why)
	}
}

// confirm asks, unless the answer is given. Nobody can be asked without a terminal.
func confirm(cmd *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return errors.New("there is no terminal to ask at: say --yes, or --dry-run")
	}
	fmt.Fprint(cmd.OutOrStdout(), "do it? [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is one, too
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
