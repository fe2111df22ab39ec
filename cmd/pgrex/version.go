package main

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
)

// version is the one that Go has stamped into the program: that of the tag, or one of the commit's with its
// time and id.
var version = func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}()

func versionCommand() *cobra.Command {
	s := newSettings()
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of pgrex and of what it works with on this host",
		Long: `Prints the version of pgrex, then those of Pacemaker's tools, of the package with the database's resource agent, and of
PostgreSQL. One that cannot be found out is "unknown": the last two need a running cluster, or CIB_file.

Exit status: 0, 64 wrong usage.`,
		Example: "  pgrex version",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			_ = s.load(cmd) // what the settings are wrong about is not known
			out := printer.Out(cmd)
			out.Line("pgrex %s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			printVersions(out, s.versions(cmd.Context()))
			return out.Err()
		}),
	}
	s.observeFlags(cmd.Flags())
	return cmd
}

// versions are those on this host, "" for what cannot be found out now.
func (s *settings) versions(ctx context.Context) controller.VersionStatus {
	o := s.observer()
	defer o.Close()
	who, _ := o.Full(ctx) // what could not be read has no version
	if who.Versions.Pacemaker == "" {
		tools, _ := (&cib.Client{}).Tools(ctx) // they need no cluster
		who.Versions.Pacemaker = tools.Version
	}
	return controller.VersionsOf(who)
}

func printVersions(out *printer.Printer, v controller.VersionStatus) {
	const unknown = "unknown"
	out.Line("Pacemaker %s", cmp.Or(v.Pacemaker, unknown))
	out.Line("resource-agents %s", cmp.Or(v.ResourceAgents, unknown))
	out.Line("PostgreSQL %s", cmp.Or(v.PostgreSQL, unknown))
}
