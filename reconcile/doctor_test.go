package reconcile_test

import (
	"maps"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestDiagnose: a host that is set right has nothing to mend, and each setting that is not is told.
func TestDiagnose(t *testing.T) {
	right := reconcile.Settings{
		"allow_alter_system": "on", "data_checksums": "off", "full_page_writes": "on", "max_replication_slots": "10",
		"max_slot_wal_keep_size": "4096", "max_wal_senders": "10", "max_wal_size": "1024", "restart_after_crash": "off",
		"synchronized_standby_slots": "", "wal_keep_size": "1024", "wal_log_hints": "on", "wal_sender_timeout": "60000",
	}
	for name, c := range map[string]struct {
		settings map[string]string
		want     model.Code
	}{
		"all right":              {nil, ""},
		"checksums do, too":      {map[string]string{"wal_log_hints": "off", "data_checksums": "on"}, ""},
		"neither":                {map[string]string{"wal_log_hints": "off"}, model.CodeRewindImpossible},
		"no full pages":          {map[string]string{"full_page_writes": "off"}, model.CodeRewindImpossible},
		"few slots":              {map[string]string{"max_replication_slots": "1"}, model.CodeCapacityShort},
		"few walsenders":         {map[string]string{"max_wal_senders": "5"}, model.CodeSendersShort},
		"walsenders for ever":    {map[string]string{"wal_sender_timeout": "0"}, model.CodeSendersShort},
		"no limit":               {map[string]string{"max_slot_wal_keep_size": "-1"}, model.CodeNoWALBudget},
		"little WAL kept":        {map[string]string{"wal_keep_size": "0"}, model.CodeWALKeptShort},
		"restarts by itself":     {map[string]string{"restart_after_crash": "on"}, model.CodeRestartAfterCrash},
		"no ALTER SYSTEM":        {map[string]string{"allow_alter_system": "off"}, model.CodeAlterSystemOff},
		"waited for":             {map[string]string{"synchronized_standby_slots": "other, pgrex_pm03"}, model.CodeSlotAwaited},
		"an older server has no": {map[string]string{"allow_alter_system": "", "synchronized_standby_slots": ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			settings := maps.Clone(right)
			maps.Copy(settings, c.settings)
			findings, err := reconcile.Diagnose(busyStandby(3), settings)
			switch {
			case err != nil:
				t.Error(err)
			case c.want == "" && len(findings) > 0, c.want != "" && (len(findings) != 1 || findings[0].Code != c.want):
				t.Errorf("%v, not %q", findings, c.want)
			}
		})
	}
}
