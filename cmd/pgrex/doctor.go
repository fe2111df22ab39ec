package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

func doctorCommand() *cobra.Command {
	s := newSettings()
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell which settings of this host would stand in the way one day",
		Long: `Looks at this host's PostgreSQL and at the cluster, and says what would keep a host from coming back without a copy
or let a slot fill a disk one day, with what to set instead. It changes nothing. docs/findings.md explains each code.

Exit status: 0 nothing to mend, 3 something to mend (a warning or worse), 1 it could not look.`,
		Args: cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			return diagnose(cmd, s, output)
		}),
	}
	s.observeFlags(cmd.Flags())
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func diagnose(cmd *cobra.Command, s *settings, output string) error {
	o := s.observer()
	defer o.Close()
	in, err := look(cmd.Context(), o)
	if err == nil {
		err = blind(in)
	}
	if err != nil {
		return err
	}
	if in.Instance.State != model.ServerUp {
		return errors.New("PostgreSQL is " + string(in.Instance.State) + ": its settings can be read while it runs only")
	}
	server, ok := o.Server().(*postgres.Server) // the controller needs no settings, so that its port has none
	if !ok {
		return fmt.Errorf("the server is a %T", o.Server())
	}
	values, err := server.Settings(cmd.Context(), reconcile.DoctorSettings)
	if err != nil {
		return err
	}
	findings, err := reconcile.Diagnose(in, values)
	if err != nil {
		return err
	}
	if err := printFindings(cmd.OutOrStdout(), findings, output); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Severity != model.Info {
			return statusError(exitDegraded)
		}
	}
	return nil
}

func printFindings(w io.Writer, findings []model.Finding, output string) error {
	if output == "json" {
		if findings == nil {
			findings = []model.Finding{}
		}
		return printJSON(w, map[string]any{"findings": findings})
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%s %s (%s): %s\n", f.Severity, f.Code, f.Subject, f.Text)
	}
	if len(findings) == 0 {
		fmt.Fprintln(w, "nothing to mend")
	}
	return nil
}
