package datadir

import (
	"context"
	"fmt"
	"path/filepath"
)

// Recover lets a database that was not shut down replay its own WAL, following nobody: pg_rewind wants it clean, and a
// server in single-user mode refuses to be a standby, which the agent's last start has made it.
func (p Place) Recover(ctx context.Context) error {
	c, err := p.Control(ctx)
	if err != nil || c.Clean() {
		return err
	}
	if p.HasBackupLabel() { // without the primary's WAL, recovery would end where the WAL in pg_wal ends
		return fmt.Errorf("the data of %s were restored from a backup, and need the primary's WAL: backup_label is there",
			p.Data)
	}
	for _, signal := range []string{standbySignal, recoverySignal} {
		if err := RemoveFile(filepath.Join(p.Data, signal)); err != nil {
			return err
		}
	}
	// After the host's crash another process may have the number of the server of then: PostgreSQL takes it for that.
	if p.lockedBy() != "" && !p.Runs() {
		if err := RemoveFile(p.PIDFile()); err != nil {
			return err
		}
	}
	// The checkpoint at the end must not recycle what pg_rewind reads next.
	tool, err := p.postgres("--single",
		"-c", "synchronous_standby_names=", "-c", "wal_keep_size=2147483647", "template1")
	if err == nil {
		_, err = tool.Run(ctx)
	}
	return err
}
