package main

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/testenv"
)

func (a *app) addLook(root *cobra.Command) {
	root.AddCommand(a.execCommand(), a.sqlCommand())
}

func (a *app) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "exec HOST -- COMMAND [ARGUMENT...]",
		GroupID: "look",
		Short:   "Run a command in a host, as root",
		Example: `  rexlab exec pm01 -- crm_mon -1A
  rexlab exec pm01 -- bash`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			command, env, err := lab.Command(ctx, arguments[0], arguments[1:]...)
			if err != nil {
				return err
			}
			if term := os.Getenv("TERM"); term != "" {
				env = append(env, "TERM="+term)
			}
			// In place of this program: the command has the terminal, the signals and the exit status for itself.
			return fmt.Errorf("run nsenter: %w", syscall.Exec(command[0], command, env))
		}),
	}
}

func (a *app) sqlCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sql HOST SQL",
		GroupID: "look",
		Short:   "Run SQL on a host's own server, as postgres",
		Long: `Runs SQL on a host's own server, as postgres, and prints the rows without headings. With vip for the host it goes
through the virtual IP.`,
		Example: `  rexlab sql pm01 'SELECT * FROM pg_stat_replication'
  rexlab sql vip 'SELECT pg_current_wal_lsn()'`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeHosts,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, arguments []string) error {
			run := lab.SQL
			if arguments[0] == "vip" {
				run = func(ctx context.Context, _, sql string) (string, error) { return lab.VIPSQL(ctx, sql) }
			}
			out, err := run(ctx, arguments[0], arguments[1])
			fmt.Print(out)
			return err
		}),
	}
}
