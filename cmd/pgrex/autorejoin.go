package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/autorejoin"
	"github.com/pgrex/pgrex/model"
)

// clusterUser is Pacemaker's own user. As that user pgrex auto-rejoin asks for the CIB before it knows the data's owner.
const clusterUser = "hacluster"

// waitForCluster is how long pgrex auto-rejoin waits before it asks Pacemaker again.
const waitForCluster = 2 * time.Second

func autoRejoinCommand() *cobra.Command {
	s := newSettings()
	wait := time.Minute
	cmd := &cobra.Command{
		Use:   "auto-rejoin",
		Short: "Run the service that brings this host back without a person",
		Long: `pgrex-rejoin.service runs this. It waits until the database of this host does not come back by itself, and then does
what 'pgrex rejoin --yes' does, up to the way that the meta attribute pgrex-auto-rejoin allows. While no host is the
primary it does what 'pgrex start --yes' does. As long as that attribute is none, it does nothing. docs/rejoin.md,
"Without a person", says when it leaves a host alone.

It runs as root, and needs no capability but CAP_SETUID and CAP_SETGID, and the group haclient. All but Pacemaker's
tools runs as the user that owns the data.

Exit status: 0 when ended by SIGTERM or SIGINT, 1 when it could not start, 64 wrong usage.`,
		Example: "  systemctl enable --now pgrex-rejoin",
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			if !isPart(cmd.Context()) {
				return splitInUnit(cmd, s)
			}
			return autoRejoin(cmd, s, wait)
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().DurationVar(&s.LookInterval, "look-interval", s.LookInterval, "how often the local PostgreSQL is looked for")
	cmd.Flags().DurationVar(&s.ReadInterval, "read-interval", s.ReadInterval, "how often the CIB is read, at least")
	cmd.Flags().StringVar(&s.LogLevel, "log-level", s.LogLevel, "info or debug")
	cmd.Flags().DurationVar(&wait, "retry-wait", wait, "wait after the first try that fails; each further one is five times as long")
	return cmd
}

// splitInUnit waits until Pacemaker says whose data it is about, and then splits.
func splitInUnit(cmd *cobra.Command, s *settings) error {
	if os.Geteuid() != 0 {
		return errors.New("it has to run as root: type: sudo systemctl start pgrex-rejoin")
	}
	defer quits(cmd)()
	end, err := toolsAsCluster()
	if err != nil {
		return err
	}
	defer end()
	notify := &controller.Systemd{}
	for {
		owner, err := s.dataOwner(cmd.Context())
		if err == nil {
			return owner.split(cmd, startsInUnit, s.StateDir)
		}
		notify.Status("waits: " + err.Error())
		notify.Ready() // to wait for Pacemaker is its work
		notify.Alive()
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(waitForCluster):
		}
	}
}

// toolsAsCluster has Pacemaker's tools run as Pacemaker's own user. Root without capabilities cannot talk to Pacemaker:
// their common files belong to that user.
func toolsAsCluster() (end func(), err error) {
	account, err := user.Lookup(clusterUser)
	if err != nil {
		return nil, fmt.Errorf("find Pacemaker's user: %w; install pacemaker", err)
	}
	group, err := user.LookupGroup(cib.ClusterGroup)
	if err != nil {
		return nil, fmt.Errorf("find the group that may talk to Pacemaker: %w; install pacemaker", err)
	}
	numbers, err := idNumbers([]string{account.Uid, group.Gid})
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(theirs)
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = cib.Serve(ours, syscall.Credential{Uid: numbers[0], Gid: numbers[1]},
			cib.Environment(os.Environ(), account.Username, account.HomeDir), func() {}) // both ends are this process's
	}()
	cib.UseRemote(conn)
	return func() {
		_ = conn.Close()
		<-served
	}, nil
}

// waitsToRun waits until this process is the one that comes back without a person: pgrex.service may make the state
// folder later, and an earlier process may still be at its end. It returns nil if ctx ends before that.
func waitsToRun(ctx context.Context, folder string, notify controller.Notifier, again time.Duration) io.Closer {
	for {
		running, err := operation.RunsAutoRejoin(folder)
		if err == nil {
			return running
		}
		notify.Status("waits: " + err.Error())
		notify.Ready() // to wait is its work
		notify.Alive()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

// autoRejoin is the part with the rights of the data's owner.
func autoRejoin(cmd *cobra.Command, s *settings, wait time.Duration) error {
	running := waitsToRun(cmd.Context(), s.StateDir, &controller.Systemd{}, waitForCluster)
	if running == nil {
		return nil
	}
	defer func() { _ = running.Close() }() // nothing was written
	level := slog.LevelInfo
	if s.LogLevel == "debug" {
		level = slog.LevelDebug
	}
	log := logr.FromSlogHandler(newLogHandler(level))
	o := s.observer()
	report := func(line string) { log.Info("rejoin", "line", line) }
	log.Info("pgrex auto-rejoin starts", "version", version, "node", s.Node)
	(&autorejoin.AutoRejoin{
		Observer: o, Notify: &controller.Systemd{}, Log: log, Tick: s.LookInterval, Idle: s.ReadInterval, Wait: wait,
		Engine: &operation.Engine{Folder: s.StateDir, Observer: o, Report: report, Who: model.AutoRejoinWho},
	}).Run(cmd.Context())
	log.Info("pgrex auto-rejoin ends")
	return nil
}
