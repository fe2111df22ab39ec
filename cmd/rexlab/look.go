package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

func (a *app) addLook(root *cobra.Command) {
	root.AddCommand(a.statusCommand(), a.execCommand(), a.sqlCommand(), a.logsCommand(), a.putCommand())
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		GroupID: "look",
		Short:   "Show the hosts: power, network, and what Pacemaker says",
		Example: "  rexlab status",
		Args:    cobra.NoArgs,
		RunE: a.withLab(func(ctx context.Context, lab *testenv.Lab, _ []string) error {
			status, err := lab.Status(ctx)
			if err != nil {
				return err
			}
			return printStatus(printer.Stdout(), status)
		}),
	}
}

func printStatus(out *printer.Printer, status testenv.Status) error {
	var t printer.Table
	t.Text("HOST", "ADDRESS", "POWER", "NETWORK", "MEMBER", "ROLE", "STATUS", "DATA")
	for _, h := range status.Hosts {
		t.Text(h.Name, h.Address, either(h.On, "on", "off"), either(h.Cut, "cut", "up"),
			dash(h.Member), dash(h.Role), dash(h.Status), dash(h.DataStatus))
	}
	out.Table(t)
	out.Line("")
	if status.From == "" {
		out.Line("Pacemaker answers on no host.")
		return out.Err()
	}
	out.Line("MEMBER to DATA: what Pacemaker says on %s, %s quorum; the DC is %s. The virtual IP is %s.", status.From,
		either(status.Quorum, "with", "without"), dash(status.DC), testenv.VIP)
	return out.Err()
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

func dash(text string) string { return cmp.Or(text, "-") }

func (a *app) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "exec HOST -- COMMAND [ARGUMENT...]",
		GroupID: "look",
		Short:   "Run a command in a host, as root",
		Long: `Runs a command in a host, as root, with this terminal. The exit status is the command's. What it
writes in the host survives a power cut, except in /run, /tmp and /dev.`,
		Example: `  rexlab exec pm01 -- crm_mon -1A
  rexlab exec pm01 -- systemctl status pacemaker
  rexlab exec pm01 -- journalctl --unit corosync
  rexlab exec pm01 -- bash
  rexlab exec pm01 -- runuser -u postgres psql`,
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
			return fmt.Errorf("run nsenter: %w", syscall.Exec(command[0], command, env)) //nolint:gosec // running it is what the user asks for
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
			said, err := run(ctx, arguments[0], arguments[1])
			printer.Stdout().Lines(said)
			return err
		}),
	}
}
