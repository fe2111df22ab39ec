package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/handover"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/operation/service"
	"github.com/pgrex/pgrex/controller/operation/switchover"
	"github.com/pgrex/pgrex/model"
)

func operationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "operation", Short: "Show, finish or undo an operation that was left unfinished",
		Long: `An operation (rejoin, switchover, start, stop, adopt, release) is unfinished if it is killed, if its host
loses power, or if it cannot undo a step. It then leaves a journal in the state folder of its host, and a token in the
CIB. Until you finish or undo it, pgrex reports it on every host, and every other operation on this database refuses to
begin. pause and resume still work.

Type this on the host on which the operation was started. If Pacemaker shows that host offline and clean, type it on any
other member: it ends the operation, and Pacemaker gets the database back. If that host is unclean, wait until Pacemaker
has fenced it. An undone or finished operation can be repeated.`,
		Example: "  sudo pgrex operation show\n  sudo pgrex operation undo --dry-run\n  sudo pgrex operation finish",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		unfinished("show", "Show the operation that was left unfinished", startsPrograms,
			"0 nothing is unfinished, 1 failed, 2 an operation is unfinished", (*left).show),
		unfinished("finish", "Go on with an operation that was left unfinished", startsServer,
			"0 done or nothing to do, 1 failed or refused, 2 dry run with something to do", (*left).finish),
		unfinished("undo", "Undo the steps of an operation that was left unfinished", startsServer,
			"0 done or nothing to do, 1 failed or refused, 2 dry run with something to do", (*left).undo))
	return cmd
}

func unfinished(name, short string, starts starting, exit string, do func(*left) error) *cobra.Command {
	s := newSettings()
	l := &left{settings: s}
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs, Example: "  sudo pgrex operation " + name,
		Long: short + ".\n\nExit status: " + exit + ", 64 wrong usage.",
		RunE: operates(s, starts, func(cmd *cobra.Command) error {
			o := s.observer()
			defer o.Close()
			l.cmd, l.observer, l.engine = cmd, o, s.engine(cmd, o)
			l.report = l.engine.Report
			return l.find(do)
		}),
	}
	s.observeFlags(cmd.Flags())
	if name != "show" {
		l.ask.flags(cmd)
	}
	return cmd
}

// left is an operation that was left unfinished, and how to deal with it.
type left struct {
	settings *settings
	cmd      *cobra.Command
	ask      asking
	observer *controller.Observer
	engine   *operation.Engine
	report   operation.Reporter

	journal *operation.Journal // nil if there is only
	token   model.Token
	job     operation.Job
}

// find finds what there is, and calls do for it.
func (l *left) find(do func(*left) error) error {
	ctx := l.cmd.Context()
	j, err := operation.LoadJournal(l.settings.StateDir)
	if err != nil {
		return err
	}
	if j == nil {
		return l.withoutJournal(do)
	}
	l.journal = j
	if j.Held(l.engine.Folder) {
		l.report(j.What() + " is under way here")
		if l.cmd.Name() != "show" {
			return statusError(exitPending) // its journal is not to be worked on by two
		}
	}
	l.job, err = l.resume(ctx)
	if err != nil {
		return fmt.Errorf("%s is unfinished here, and pgrex cannot tell its steps: %w", j.What(), err)
	}
	return do(l)
}

// resume makes the steps of the operation.
func (l *left) resume(ctx context.Context) (operation.Job, error) {
	switch l.journal.Operation {
	case rejoin.Name:
		return (&rejoin.Rejoin{Observer: l.observer, Report: l.report}).Resume(ctx, l.journal)
	case switchover.Name:
		return (&switchover.Switchover{Observer: l.observer, Report: l.report}).Resume(ctx, l.journal)
	case handover.Adopt, handover.Release:
		return (&handover.Handover{Observer: l.observer}).Resume(ctx, l.journal)
	case service.Start, service.Stop:
		return (&service.Service{Observer: l.observer, Left: l.journal, Report: l.report}).Resume(ctx, l.journal)
	}
	return operation.Job{}, fmt.Errorf("this pgrex does not know the operation %q: use the pgrex that began it",
		l.journal.Operation)
}

// show prints what there is.
func (l *left) show() error {
	if l.journal == nil {
		return statusError(exitPending) // the token was shown
	}
	for _, line := range l.journal.Describe(l.job.Steps) {
		l.report(line)
	}
	if l.journal.Held(l.engine.Folder) {
		l.report("the operation is under way: wait for it, or interrupt it")
	} else {
		l.report("sudo pgrex operation finish does what is left; sudo pgrex operation undo --dry-run shows what " +
			"would be undone")
	}
	return statusError(exitPending)
}

// finish goes on. It plans again what depends on the present state of the cluster.
func (l *left) finish() error {
	if l.journal == nil {
		return l.takeOver()
	}
	switch l.journal.Operation {
	case rejoin.Name:
		var p rejoin.Plan
		if err := l.journal.Read(&p); err != nil {
			return err
		}
		return rejoinHost(l.cmd, l.settings, cmp.Or(p.Asked, "auto"), p.MaxRate, &l.ask)
	case service.Start, service.Stop:
		return l.finishService()
	}
	remaining := l.journal.Remaining(l.job.Steps)
	l.report("pgrex does this to finish " + l.journal.What() + ":")
	operation.Show(remaining, l.report)
	return l.perform(func(ctx context.Context) error { return l.engine.Finish(ctx, l.journal, l.job) },
		l.journal.Operation+" is finished")
}

func (l *left) finishService() error {
	var p service.Plan
	if err := l.journal.Read(&p); err != nil {
		return err
	}
	if l.journal.Operation == service.Start {
		return serve(l.cmd, l.settings, &l.ask, func(s *service.Service, ctx context.Context) (operation.Job, error) {
			return s.Start(ctx, p.Force)
		}, l.journal, started)
	}
	return serve(l.cmd, l.settings, &l.ask, func(s *service.Service, ctx context.Context) (operation.Job, error) {
		return s.Stop(ctx, p.Checkpoint, p.Force)
	}, l.journal, stopped)
}

// undo undoes the steps.
func (l *left) undo() error {
	if l.journal == nil {
		return l.takeOver()
	}
	_ = l.journal.Pass(l.cmd.Context(), l.job.Steps) // what cannot be told, the undo says itself
	actions, how := l.journal.Backwards(l.job.Steps)
	l.report("pgrex does this to undo " + l.journal.What() + ":")
	operation.ShowActions(actions, l.report)
	if how != "" {
		l.report("the operation has passed a point of no return: " + how)
	}
	return l.perform(func(ctx context.Context) error { return l.engine.Undo(ctx, l.journal, l.job) },
		l.journal.Operation+" is undone")
}

// withoutJournal deals with a token in the CIB without a journal here.
func (l *left) withoutJournal(do func(*left) error) error {
	who, err := l.observer.Cluster(l.cmd.Context())
	if who.Cluster == nil {
		return err
	}
	t, is, err := who.Cluster.Token(who.Clone.Primitive)
	switch {
	case err != nil:
		return fmt.Errorf("this pgrex does not understand the token of an operation in the CIB: %w; look at it with "+
			"cibadmin --query --scope crm_config", err)
	case !is:
		l.report("no operation is unfinished")
		return nil
	}
	l.token = t
	l.report(fmt.Sprintf("%s was started on %s at %s; phase %s", t.What(), t.Host,
		t.Begun.Local().Format(time.DateTime), t.Phase))
	return do(l)
}

// takeOver ends an operation whose host is gone, from its token alone.
func (l *left) takeOver() error {
	actions, err := operation.TakeOver(l.cmd.Context(), l.observer, l.token)
	if err != nil {
		return err
	}
	l.report("its journal is on " + l.token.Host + "; this host can only end the operation, and give the database " +
		"back to Pacemaker:")
	operation.ShowActions(actions, l.report)
	return l.perform(func(ctx context.Context) error { return l.engine.RunAlone(ctx, actions) },
		"the operation is ended; see sudo pgrex status for what "+l.token.Host+" needs once it is back")
}

// perform asks, and then does what was shown.
func (l *left) perform(do func(ctx context.Context) error, done string) error {
	if l.ask.dryRun {
		return statusError(exitPending)
	}
	if err := confirm(l.cmd, l.ask.yes); err != nil {
		return err
	}
	err := undisturbed(l.cmd, do)
	switch {
	case errors.Is(err, operation.ErrNothingLeft):
		l.report(err.Error())
		return nil
	case err == nil:
		l.report(done)
	}
	return err
}
