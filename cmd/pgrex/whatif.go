package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

func whatIfCommand() *cobra.Command {
	s := newSettings()
	var output, down string
	var away time.Duration
	cmd := &cobra.Command{
		Use:   "what-if",
		Short: "Tell how much WAL a host that is away would have held, and whether that lasts",
		Long: `Asks the daemon on this host how fast WAL comes, and tells how much of it would be held for a host that is away for some
time: at the usual rate and at the highest minute of the last 24 hours, whether the WAL budget and the disk last, and
which budget would. Ask the primary: a standby knows its own disk and budget only.

Exit status: 0 also when the budget does not last, 1 when it cannot be told, 64 wrong usage.`,
		Example: "  pgrex what-if --down pm03 --for 3h",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			status, err := controller.FetchStatus(cmd.Context(), s.Socket)
			if err != nil {
				return err
			}
			prospect, err := whatIf(status, down, away)
			if err != nil {
				return err
			}
			if output == "json" {
				return printer.Out(cmd).JSON(prospect)
			}
			return printProspect(printer.Out(cmd), status, prospect)
		}),
	}
	s.askFlags(cmd.Flags())
	cmd.Flags().StringVar(&down, "down", "", "the host that is away")
	cmd.Flags().DurationVar(&away, "for", 0, "how long, such as 90m or 3h")
	for _, name := range []string{"down", "for"} {
		_ = cmd.MarkFlagRequired(name) // fails for a name that is no flag only
	}
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

// whatIf asks with what a daemon's status says.
func whatIf(s controller.Status, down string, away time.Duration) (reconcile.Prospect, error) {
	a := reconcile.Absence{Host: model.FoldNode(down), For: away, Budget: s.WAL.Budget, Free: s.WAL.Free}
	var known []string
	for _, m := range s.Members {
		if !model.SameNode(m.Host, s.Node) {
			known = append(known, m.Host)
		}
	}
	found := false
	for _, host := range known {
		found = found || host == a.Host
	}
	if !found {
		return reconcile.Prospect{}, fmt.Errorf("--down %s: no other host of the database has this name; they are %s", down, orDash(strings.Join(known, ", ")))
	}
	for _, slot := range s.Slots {
		if slot.Member == a.Host {
			a.Held = slot.Retained
		}
	}
	if s.WAL.RateUsual != nil {
		a.Usual = *s.WAL.RateUsual
	}
	if s.WAL.RatePeak != nil {
		a.Peak = *s.WAL.RatePeak
	}
	return reconcile.WhatIf(a)
}

func printProspect(out *printer.Printer, s controller.Status, p reconcile.Prospect) error {
	out.Line("If %s is away for %s, %s would hold for it:", p.Host, model.FormatSeconds(p.Seconds), s.Node)
	var t printer.Table
	t.Head("", "RATE", "WAL", "BUDGET LASTS", "DISK LASTS")
	for _, h := range []struct {
		name string
		reconcile.Held
	}{{"usual", p.Usual}, {"peak", p.Peak}} {
		t.Text(h.name, model.FormatBytes(uint64(h.Rate))+"/s", model.FormatBytes(h.Bytes),
			lasts(h.BudgetLasts, h.BudgetSeconds), lasts(h.DiskLasts, nil))
	}
	out.Table(t)
	out.Line("A budget that lasts at the peak rate, with a quarter to spare: %s=%s", model.MetaWALBudget, p.Budget)
	if s.Role != model.Primary {
		out.Line("These are the figures of %s, which is %s; ask the primary, too.", s.Node, s.Role)
	}
	return out.Err()
}

func lasts(yes *bool, seconds *float64) string {
	switch {
	case yes == nil:
		return "unknown"
	case *yes:
		return "yes"
	case seconds != nil:
		return "no, " + model.FormatSeconds(*seconds)
	}
	return "no"
}
