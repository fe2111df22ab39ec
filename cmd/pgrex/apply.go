package main

import (
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
)

func applyCommand() *cobra.Command {
	s := newSettings()
	var output string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Do once what plan prints, then exit",
		Long: `Looks at this host once, prints the plan as 'pgrex plan' does, carries it out, and exits. It may run beside the
daemon: each step checks again, as it is done, that what it was planned on still holds.

Exit status: 0 all steps done or none needed, 1 a step failed or no plan could be made,
3 not all could be decided now, as 'pgrex plan' says, 64 wrong usage.`,
		Example: "  pgrex plan && echo 'nothing to do' || pgrex apply",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			return apply(cmd, s, output)
		}),
	}
	s.observeFlags(cmd.Flags())
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func apply(cmd *cobra.Command, s *settings, output string) error {
	o := s.observer()
	defer o.Close()
	who, err := look(cmd.Context(), o)
	if err != nil {
		return err
	}
	plan, err := planFrom(who)
	if err != nil {
		return err
	}
	if err := printPlan(printer.Out(cmd), plan, output); err != nil {
		return err
	}
	result := controller.Apply(cmd.Context(), o, plan.Steps, logr.Discard())
	var errs []error
	for _, f := range result.Failures {
		errs = append(errs, fmt.Errorf("%s: %s;", f.Step, f.Text))
	}
	if result.Changed {
		errs = append(errs, errors.New("something changed between looking and acting: look at 'pgrex plan' again;"))
	}
	if len(result.Pending) > 0 {
		return errors.Join(append(errs, fmt.Errorf("%d of %d steps are still to do", len(result.Pending), len(plan.Steps)))...)
	}
	return undecided(who, plan)
}
