package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// maxInputBytes bounds what is read from a file or standard input.
const maxInputBytes = 64 << 20

func planCommand() *cobra.Command {
	s := newSettings()
	var snapshot, output string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what run would do now, and change nothing",
		Long: `Prints the steps that 'pgrex run' would do on this host now, why, and what else is worth knowing. With
--snapshot it plans for the host and moment of a snapshot, on any machine.

Exit status: 0 nothing to do, 2 something to do, 3 nothing can be decided now (a transition, a doubt about who is the primary, a
pause), 1 no plan could be made, 64 wrong usage.`,
		Example: "  pgrex plan\n  pgrex plan --snapshot pm01.json -o json",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			who, err := planInput(cmd, s, snapshot)
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
			return planStatus(who, plan)
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "plan from this snapshot ('-': standard input) instead of this host")
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

// planStatus tells a plan with something to do, and one that could not be made to its end, from one with nothing to do.
func planStatus(who reconcile.Who, plan model.Plan) error {
	if len(plan.Steps) > 0 {
		return statusError(exitPending)
	}
	return undecided(who, plan)
}

// undecided returns an exit status if a plan is not complete, or if pgrex is paused.
func undecided(who reconcile.Who, plan model.Plan) error {
	if !plan.Complete || who.Policy.Paused {
		return statusError(exitDegraded)
	}
	return nil
}

// planInput is what a plan is made from: a snapshot, or this host as it is now.
func planInput(cmd *cobra.Command, s *settings, snapshot string) (reconcile.Who, error) {
	if snapshot == "" {
		if err := s.load(cmd); err != nil {
			return reconcile.Who{}, err
		}
		return s.observeOnce(cmd.Context())
	}
	data, err := readInput(cmd, snapshot)
	if err != nil {
		return reconcile.Who{}, err
	}
	doc, err := reconcile.DecodeSnapshot(data)
	if err != nil {
		return reconcile.Who{}, fmt.Errorf("%s: %w", snapshot, err)
	}
	return reconcile.Resolve(doc.Input)
}

func printPlan(out *printer.Printer, plan model.Plan, output string) error {
	if output == "json" {
		return out.JSON(plan)
	}
	out.Lines(plan.String())
	return out.Err()
}

// choiceFlag is a string flag that takes certain words only.
type choiceFlag struct {
	value   *string
	choices []string
}

func (c choiceFlag) String() string { return *c.value }
func (c choiceFlag) Type() string   { return "string" }
func (c choiceFlag) Set(v string) error {
	if !slices.Contains(c.choices, v) {
		return fmt.Errorf("it is one of %v", c.choices)
	}
	*c.value = v
	return nil
}

// outputFlag adds -o, the first choice being the default.
func outputFlag(cmd *cobra.Command, output *string, choices ...string) {
	*output = choices[0]
	cmd.Flags().VarP(choiceFlag{output, choices}, "output", "o", fmt.Sprintf("how to print: one of %v", choices))
}

// readInput reads a file, or standard input for "-".
func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	r := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInputBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxInputBytes {
		return nil, fmt.Errorf("%s is larger than %s: this is no file of pgrex's", name, model.FormatBytes(maxInputBytes))
	}
	return data, nil
}
