package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

func (a *app) addLab(root *cobra.Command) {
	root.AddCommand(a.upCommand(), a.downCommand(), systemsCommand())
}

func (a *app) upCommand() *cobra.Command {
	var config testenv.Config
	var data, wal string
	cmd := &cobra.Command{
		Use:     "up",
		GroupID: "lab",
		Short:   "Boot a cluster and wait until it takes writes",
		Long: `Boots the hosts, makes the database, copies it to the standbys, configures the cluster, and waits until the first
host is promoted, writes go through the virtual IP and every standby streams. Each stage prints a line with the time.

Each host is a whole Debian over its system's root (overlayfs), with systemd as PID 1. Its corosync, Pacemaker and
PostgreSQL are that release's. The first 'up' of a system makes its root (see 'rexlab systems').

Fencing is on and real: a host that the others lose is powered off, and stays off until 'rexlab on'.

It reports and removes what an earlier lab left in the same folder. Ctrl-C takes everything down again.`,
		Example: `  rexlab up
  rexlab up --system debian12 --monitor 3s
  rexlab up --layout debian
  rexlab up --hosts db-1,db-2 --rep-mode async
  rexlab up --data 1GB --slots rex
  rexlab up --wal 512MB
  rexlab up --dir /var/tmp/second --property no-quorum-policy=stop --setting wal_keep_size=64MB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			size, err := parseSize(data)
			if err != nil {
				return fmt.Errorf("--data: %w", err)
			}
			if config.WALBytes, err = parseSize(wal); err != nil {
				return fmt.Errorf("--wal: %w", err)
			}
			config.Dir, config.DataBytes, config.Output = a.dir, size, printer.Out(cmd).Writer()
			return up(cmd.Context(), config)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&config.Hosts, "hosts", []string{"pm01", "pm02", "pm03"}, "the hosts' names; the first becomes the primary")
	f.StringVar(&config.System, "system", testenv.Systems()[0].Name, "the system that the hosts are: "+systemNames())
	f.StringVar(&config.Layout, "layout", testenv.LayoutPGREX,
		"where PostgreSQL's files lie: pgrex (all in /var/lib/pgsql/data) or debian (as Debian's packages have it, with TLS)")
	f.DurationVar(&config.Monitor, "monitor", 9*time.Second,
		"the agent's monitor interval on the primary (PG-REX has 9s); on standbys it is 1s longer")
	f.StringVar(&config.Slots, "slots", "", "the agent's replication_slot_name (default: unset, as PG-REX has it)")
	f.StringVar(&config.RepMode, "rep-mode", "sync", "the agent's rep_mode: sync or async")
	f.StringVar(&data, "data", "0", "fill the database with about this much, such as 500MB")
	f.StringVar(&wal, "wal", "0", "give each host's pg_wal a file system of its own in memory, of that size, such as 512MB")
	f.BoolVar(&config.NoFencing, "no-fencing", false, "stonith-enabled=false")
	f.StringToStringVar(&config.Properties, "property", nil, "a cluster property, NAME=VALUE; may be given again")
	f.StringToStringVar(&config.PostgreSQL, "setting", nil, "a PostgreSQL setting, NAME=VALUE; may be given again")
	return cmd
}

func up(ctx context.Context, config testenv.Config) error {
	lab, err := testenv.Up(ctx, config)
	if err != nil {
		return failure{err}
	}
	if err := lab.Detach(ctx); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return failure{errors.Join(err, lab.Down(end))}
	}
	return nil
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		GroupID: "lab",
		Short:   "End the lab and remove everything that it made",
		Long: `Ends the lab's processes, and with them its namespaces, mounts and links, and removes its folder with the databases
and logs. It also removes what a lab that has crashed left behind.`,
		Example: "  rexlab down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return failure{errors.New("the lab belongs to root: run 'rexlab down' as root")}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			if err := testenv.Remove(ctx, a.dir); err != nil {
				return failure{err}
			}
			return nil
		},
	}
}
