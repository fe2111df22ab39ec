package main

import (
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller/operation"
)

// asking is how an operation is started: shown only, or done without a question.
type asking struct{ dryRun, yes bool }

func (a *asking) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.dryRun, "dry-run", false, "print the steps, and do nothing")
	cmd.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
}

// perform shows an operation's steps, asks, and does them. The last line is what is so then.
func (a *asking) perform(cmd *cobra.Command, work operation.Work, done string) error {
	report := printer.Out(cmd).Report
	for _, line := range work.Says {
		report(line)
	}
	if len(work.Steps) == 0 {
		report("it is so already")
		return nil
	}
	report("this is done:")
	operation.Show(work.Steps, report)
	if a.dryRun {
		return statusError(exitPending)
	}
	if err := confirm(cmd, a.yes); err != nil {
		return err
	}
	if err := do(cmd, work.Steps, report); err != nil {
		return err
	}
	if done != "" {
		report(done)
	}
	return nil
}

// do does an operation's steps. Nothing but an interrupt ends or stops it meanwhile, in either part of pgrex.
func do(cmd *cobra.Command, steps []operation.Step, report operation.Reporter) error {
	defer holdOut(func() {
		printer.Errors().Report("pgrex: it cannot be suspended while the steps are done, and goes on;" +
			" Ctrl-C takes back what can be")
	})()
	if err := cib.HoldOut(cmd.Context()); err != nil {
		return err // nothing was done
	}
	return operation.Do(cmd.Context(), steps, report)
}
