package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/web"
)

func webCommand() *cobra.Command {
	s := newSettings()
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Serve metrics and health checks over HTTP",
		Long: `pgrex-web.service runs this. It answers over HTTP with what the daemon on this host says: /metrics for Prometheus, and for load
balancers /primary, /replica?lag=SIZE, /health, /liveness and /readiness. docs/monitoring.md explains them. It changes nothing, and asks
neither PostgreSQL nor Pacemaker.

It listens on each --web-listen, and on the sockets that systemd passes to it. --web-config names a file for TLS and passwords, as
exporters of Prometheus have it.

Exit status: 0 when ended by SIGTERM or SIGINT, 1 when it could not start, 64 wrong usage.`,
		Example: "  pgrex web --web-listen 192.168.1.11:8008",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			return serveWeb(cmd.Context(), s)
		}),
	}
	s.askFlags(cmd.Flags())
	s.webFlags(cmd.Flags())
	return cmd
}

func serveWeb(ctx context.Context, s *settings) error {
	server, err := web.New(web.Options{
		Socket: s.Socket, Database: s.Instance, Config: s.WebConfig, Log: slog.New(newLogHandler(slog.LevelInfo)),
	})
	if err != nil {
		return err
	}
	listeners, err := webListeners(ctx, s.WebListen)
	if err != nil {
		return err
	}
	notify := &controller.Systemd{}
	notify.Ready()
	defer notify.Stopping()
	return server.Serve(ctx, listeners)
}

// webListeners are those that systemd passes, and one for each address.
func webListeners(ctx context.Context, addresses []string) ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the sockets that systemd passes: %w", err)
	}
	for _, address := range addresses {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen for web-listen: %w", err)
		}
		listeners = append(listeners, l)
	}
	if len(listeners) == 0 {
		return nil, errors.New("there is nowhere to listen: set web-listen in pgrex.yaml, or --web-listen, such as 192.168.1.11:8008")
	}
	return listeners, nil
}
