package main

import (
	"context"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
)

// asking is how an operation is started: shown only, or done without a question.
type asking struct{ dryRun, yes bool }

func (a *asking) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.dryRun, "dry-run", false, "print the steps, and do nothing")
	cmd.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
}

// perform shows an operation's steps, asks, and does them. done is the last line.
func (a *asking) perform(cmd *cobra.Command, engine *operation.Engine, job operation.Job, done string) error {
	for _, line := range job.Says {
		engine.Report(line)
	}
	if len(job.Steps) == 0 {
		engine.Report("nothing to do")
		return a.endLeft(cmd, engine, job)
	}
	engine.Report("pgrex does this:")
	operation.Show(job.Steps, engine.Report)
	if a.dryRun {
		return statusError(exitPending)
	}
	if err := confirm(cmd, a.yes); err != nil {
		return err
	}
	err := undisturbed(cmd, func(ctx context.Context) error { return engine.Do(ctx, job) })
	if err == nil && done != "" {
		engine.Report(done)
	}
	return err
}

// endLeft ends what was left of an operation that turns out to be whole.
func (a *asking) endLeft(cmd *cobra.Command, engine *operation.Engine, job operation.Job) error {
	if a.dryRun || job.Continues == nil {
		return nil
	}
	return undisturbed(cmd, func(ctx context.Context) error { return engine.EndLeft(ctx, job.Continues) })
}

// performWork is perform for work without a journal.
func (a *asking) performWork(cmd *cobra.Command, engine *operation.Engine, work operation.Work) error {
	for _, line := range work.Says {
		engine.Report(line)
	}
	if len(work.Actions) == 0 {
		engine.Report("nothing to do")
		return nil
	}
	engine.Report("pgrex does this:")
	operation.ShowActions(work.Actions, engine.Report)
	if a.dryRun {
		return statusError(exitPending)
	}
	if err := confirm(cmd, a.yes); err != nil {
		return err
	}
	return undisturbed(cmd, func(ctx context.Context) error { return engine.Run(ctx, work.Actions) })
}

// undisturbed does what changes something. Meanwhile only an interrupt ends it, and nothing suspends it, in either part
// of pgrex.
func undisturbed(cmd *cobra.Command, do func(ctx context.Context) error) error {
	defer holdOut(func() {
		printer.Errors().Report("pgrex: an operation cannot be suspended while it does its steps; it goes on." +
			" Ctrl-C undoes the steps")
	})()
	if err := cib.HoldOut(cmd.Context()); err != nil {
		return err // nothing was done
	}
	return do(cmd.Context())
}

// engine does operations on this host.
func (s *settings) engine(cmd *cobra.Command, o *controller.Observer) *operation.Engine {
	return &operation.Engine{Folder: s.StateDir, Observer: o, Report: printer.Out(cmd).Report, Who: starter(cmd.Context())}
}

// starter names who starts an operation: the user that sudo names, and the login user id that the kernel keeps.
func starter(ctx context.Context) string {
	name := os.Getenv("SUDO_USER")
	account, err := user.Current()
	switch {
	case name != "":
	case isPart(ctx):
		name = "root"
	case err == nil:
		name = account.Username
	}
	const unset = "4294967295"
	text, err := os.ReadFile("/proc/self/loginuid")
	if id := strings.TrimSpace(string(text)); err == nil && id != unset && id != "" {
		name += " (login uid " + id + ")"
	}
	return name
}
