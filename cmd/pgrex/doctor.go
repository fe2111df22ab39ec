package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
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

Exit status: 0 nothing to mend, 3 something to mend (a warning or worse), 1 it could not look, 64 wrong usage.`,
		Example: "  pgrex doctor\n  pgrex doctor -o json",
		Args:    cobra.NoArgs,
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
	who, err := look(cmd.Context(), o)
	if err == nil {
		err = blind(who.Input)
	}
	if err != nil {
		return err
	}
	if who.Instance.State != model.ServerUp {
		return errors.New("PostgreSQL is " + string(who.Instance.State) + ": its settings can be read while it runs only")
	}
	server, ok := o.Server().(*postgres.Server) // the controller needs no settings, so that its port has none
	if !ok {
		return fmt.Errorf("the server is a %T", o.Server())
	}
	values, err := server.Settings(cmd.Context(), reconcile.DoctorSettings)
	if err != nil {
		return err
	}
	found := diagnosisOf(who, values, ownerOf(server))
	if err := printDiagnosis(printer.Out(cmd), found, output); err != nil {
		return err
	}
	for _, f := range found.Findings {
		if f.Severity != model.Info {
			return statusError(exitDegraded)
		}
	}
	return nil
}

// diagnosis is what doctor prints: versions, and what is to be mended.
type diagnosis struct {
	Versions controller.VersionStatus `json:"versions"`
	Findings []model.Finding          `json:"findings"`
}

func diagnosisOf(who reconcile.Who, settings reconcile.Settings, owner reconcile.Owner) diagnosis {
	return diagnosis{controller.VersionsOf(who), append([]model.Finding{}, reconcile.Diagnose(who, settings, owner)...)}
}

func printDiagnosis(out *printer.Printer, d diagnosis, output string) error {
	if output == "json" {
		return out.JSON(d)
	}
	printVersions(out, d.Versions)
	for _, f := range d.Findings {
		out.Line("%s %s (%s): %s", f.Severity, f.Code, f.Subject, f.Text)
	}
	if len(d.Findings) == 0 {
		out.Line("nothing to mend")
	}
	return out.Err()
}
