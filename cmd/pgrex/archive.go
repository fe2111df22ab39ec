package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation/prune"
	"github.com/pgrex/pgrex/model"
)

func archiveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "archive", Short: "Look after a folder of archived WAL", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pruneCommand())
	return cmd
}

func pruneCommand() *cobra.Command {
	s := newSettings()
	var a prune.Archive
	var ask asking
	var giveUp string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove archived WAL that nobody needs any more",
		Long: `Removes WAL from a folder of this host, or moves it, that no slot, no host and no backup needs any more. It asks this
host's PostgreSQL, the primary, and every standby that runs, and says what each needs; where one does not answer, or its need
is not known, it removes nothing and says why. For a host that is away, pgrex has to run here and to foretell that it
comes back. Histories of timelines and files of others stay.

What the backups need stays whose history files (*.backup) are in the archive. One that was taken on a standby leaves
none there: name its folder with --backup. Where no backup is known at all, nothing goes, except with --no-backups.

Run it on the host that has the folder, as root, and not while a backup is being taken. The files are removed with
the rights of the user that owns the data.

Exit status: 0 done or nothing to do, 1 failed or refused, 2 dry run with something to do, 64 wrong usage.`,
		Example: "  sudo pgrex archive prune --dry-run\n  sudo pgrex archive prune --keep-backups 2 --move /archive/old",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return fmt.Errorf("unknown argument %q", args[0])
			case cmd.Flags().Changed("keep-backups") && a.Backups < 0:
				return errors.New("--keep-backups: it is a number, 0 or more")
			case a.NoBackups && (cmd.Flags().Changed("keep-backups") || len(a.BackupFolders) > 0):
				return errors.New("--no-backups: there are none, or there are those of --backup and --keep-backups")
			}
			return nil
		},
		RunE: operates(s, startsPrograms, func(cmd *cobra.Command) error {
			a.Observer = s.observer()
			defer a.Observer.Close()
			a.Status = func(ctx context.Context) (controller.Status, error) { return controller.FetchStatus(ctx, s.Socket) }
			a.GivenUp = strings.FieldsFunc(model.FoldNode(giveUp), func(r rune) bool { return r == ',' })
			engine := s.engine(cmd, a.Observer)
			a.Report = engine.Report
			if err := engine.Ready(cmd.Context(), nil); err != nil {
				return err
			}
			work, err := a.Prune(cmd.Context())
			if err != nil {
				return err
			}
			return ask.performWork(cmd, engine, work)
		}),
	}
	s.observeFlags(cmd.Flags())
	s.socketFlag(cmd.Flags())
	ask.flags(cmd)
	cmd.Flags().StringVar(&a.Folder, "archive", "", "the folder (default: as archive_command or restore_command says)")
	cmd.Flags().StringVar(&a.Move, "move", "", "move the files into this folder instead of removing them")
	cmd.Flags().IntVar(&a.Backups, "keep-backups", prune.AllBackups, "how many backups to keep, the newest ones of those in the archive")
	cmd.Flags().Lookup("keep-backups").DefValue = "all"
	cmd.Flags().StringArrayVar(&a.BackupFolders, "backup", nil, "folder of a base backup that is kept, too; again for each")
	cmd.Flags().BoolVar(&a.NoBackups, "no-backups", false, "there is no backup that needs this archive")
	cmd.Flags().StringVar(&giveUp, "give-up", "", "hosts that are to be copied anyway, separated by commas: what they need does not count")
	return cmd
}
