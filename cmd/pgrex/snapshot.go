package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
)

// snapshotMode keeps a snapshot to its owner: it tells the layout of a cluster.
const snapshotMode = 0o600

func snapshotCommand() *cobra.Command {
	s := newSettings()
	var file string
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Write everything plan needs as one JSON document",
		Long: `Looks at this host once and writes what was seen, so that 'pgrex plan --snapshot FILE' gives the same plan on
another machine: for review, and for reports. It holds no password and no data.

Exit status: 0 written, 1 not, 64 wrong usage.`,
		Example: "  pgrex snapshot --file pm01.json",
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			who, err := s.observeOnce(cmd.Context())
			if err != nil {
				return err
			}
			data, err := snapshotOf(who.Input)
			if err != nil {
				return err
			}
			if file == "" {
				out := printer.Out(cmd)
				out.Lines(string(data))
				return out.Err()
			}
			if err := os.WriteFile(file, data, snapshotMode); err != nil {
				return fmt.Errorf("write the snapshot: %w", err)
			}
			return nil
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to this file (mode 0600) instead of standard output")
	return cmd
}
