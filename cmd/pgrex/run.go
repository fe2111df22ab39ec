package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
)

func runCommand() *cobra.Command {
	s := newSettings()
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: keep this host's slots right",
		Long: `Looks at the local PostgreSQL every second and at the cluster every ten, and makes this host's slots and
primary_slot_name what they should be. PostgreSQL or Pacemaker being down is waited for.

With --dry-run nothing is changed: what would be done is logged, and shown by 'pgrex status'.

Exit status: 0 when ended by SIGTERM or SIGINT, 1 when it could not start, 64 wrong usage.`,
		Example: "  pgrex run --dry-run",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			return runDaemon(cmd.Context(), s, dryRun)
		}),
	}
	s.observeFlags(cmd.Flags())
	s.daemonFlags(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, say what would be done")
	return cmd
}

func runDaemon(ctx context.Context, s *settings, dryRun bool) error {
	level := slog.LevelInfo
	if s.LogLevel == "debug" {
		level = slog.LevelDebug
	}
	log := logr.FromSlogHandler(newLogHandler(level))

	var server controller.StatusServer
	if err := server.Listen(ctx, s.Socket); err != nil {
		return err
	}
	defer func() { _ = server.Close() }() // the program ends
	watcher := cib.NewWatcher(s.CIBDir)
	watched := make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	go func() { watched <- watcher.Run(watching) }()

	log.Info("pgrex starts", "version", version, "node", s.Node, "dryRun", dryRun)
	stateDir := s.keptIn(log)
	controller.New(controller.Options{
		Observer: s.observer(), Hints: watcher.Hints(), DryRun: dryRun,
		LookEvery: s.LookInterval, ReadEvery: s.ReadInterval,
		StateDir: stateDir, Version: version, Publish: server.Publish, Notify: &controller.Systemd{}, Log: log,
	}).Run(ctx)
	stop()
	if err := <-watched; err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch %s: %w", s.CIBDir, err)
	}
	log.Info("pgrex ends")
	return nil
}

// keptIn returns the state folder, or "" if it does not exist: systemd makes it.
func (s *settings) keptIn(log logr.Logger) string {
	if _, err := controller.LoadState(s.StateDir); err != nil {
		log.Error(nil, "state not read", "problem", err.Error())
	}
	if info, err := os.Stat(s.StateDir); err != nil || !info.IsDir() {
		log.Info("nothing is kept across restarts: the state folder does not exist", "folder", s.StateDir)
		return ""
	}
	return s.StateDir
}
