package reconcile_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// TestDiagnose: a host that is set right has nothing to mend, and each setting that is not is told.
func TestDiagnose(t *testing.T) {
	right := reconcile.Settings{
		"allow_alter_system": "on", "data_checksums": "off", "full_page_writes": "on", "max_replication_slots": "10",
		"max_slot_wal_keep_size": "4096", "max_wal_senders": "10", "max_wal_size": "1024", "restart_after_crash": "off",
		"wal_keep_size": "1024", "wal_log_hints": "on", "wal_sender_timeout": "60000",
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
		"a target":               {map[string]string{"recovery_target_time": "2020-01-01"}, model.CodeRecoveryTarget},
		"the latest timeline":    {map[string]string{"recovery_target_timeline": "latest"}, ""},
		"another timeline":       {map[string]string{"recovery_target_timeline": "current"}, model.CodeRecoveryTarget},
		"an older server has no": {map[string]string{"allow_alter_system": ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			settings := maps.Clone(right)
			maps.Copy(settings, c.settings)
			who, err := reconcile.Resolve(busyStandby(3))
			findings := reconcile.Diagnose(who, settings, reconcile.Owner{Name: "postgres", Groups: []string{"postgres", "ssl-cert"}})
			switch {
			case err != nil:
				t.Error(err)
			case c.want == "" && len(findings) > 0, c.want != "" && (len(findings) != 1 || findings[0].Code != c.want):
				t.Errorf("%v, not %q", findings, c.want)
			}
		})
	}
}

// A target that a restore's own recovery may still need is not to be taken out before that has ended.
func TestDiagnoseTargetInUse(t *testing.T) {
	for primary, want := range map[string]bool{"pm01": false, "": true} {
		who, err := reconcile.Resolve(busyStandby(3))
		if err != nil {
			t.Fatal(err)
		}
		who.Primary = primary
		found := reconcile.Diagnose(who, reconcile.Settings{"recovery_target_time": "2020-01-01"}, reconcile.Owner{})
		i := slices.IndexFunc(found, func(f model.Finding) bool { return f.Code == model.CodeRecoveryTarget })
		if i < 0 || strings.Contains(found[i].Text, "once this recovery has ended") != want {
			t.Errorf("with the primary %q: %v", primary, found)
		}
	}
}

// A target in the agent's start_opt is not in any file.
func TestDiagnoseTargetInStartOpt(t *testing.T) {
	for options, want := range map[string]string{
		"-p 5432": "ALTER SYSTEM RESET", "-p 5432 -c recovery_target_time=2020-01-01": "take that out of start_opt",
		"--recovery-target-time=2020-01-01": "take that out of start_opt", "-c recovery_target=immediate": "ALTER SYSTEM RESET",
	} {
		who, err := reconcile.Resolve(busyStandby(3))
		if err != nil {
			t.Fatal(err)
		}
		who.Clone.Parameters = maps.Clone(who.Clone.Parameters)
		who.Clone.Parameters["start_opt"] = options
		found := reconcile.Diagnose(who, reconcile.Settings{"recovery_target_time": "2020-01-01"}, reconcile.Owner{})
		i := slices.IndexFunc(found, func(f model.Finding) bool { return f.Code == model.CodeRecoveryTarget })
		if i < 0 || !strings.Contains(found[i].Text, want) {
			t.Errorf("%s: %v", options, found)
		}
	}
}

// A release of Pacemaker with which the agent cannot work, as it calls itself in Debian and in RHEL.
func TestDiagnoseVersions(t *testing.T) {
	for version, clash := range map[string]bool{"2.1.5": true, "2.1.5-9.el9": true, "2.1.50": false, "3.0.0": false, "": false} {
		in := busyStandby(3)
		in.Versions.Pacemaker = version
		who, err := reconcile.Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(reconcile.Diagnose(who, reconcile.Settings{}, reconcile.Owner{}), func(f model.Finding) bool { return f.Code == model.CodeVersionsClash })
		if said != clash {
			t.Errorf("%q: %t", version, said)
		}
	}
}

// A slot that logical replication waits for is told of before its owner is away.
func TestDiagnoseAwaited(t *testing.T) {
	in := busyStandby(3)
	in.Instance.SynchronizedStandbySlots = []string{"other", "pgrex_pm03"}
	who, err := reconcile.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	awaited := slices.DeleteFunc(reconcile.Diagnose(who, reconcile.Settings{}, reconcile.Owner{}), func(f model.Finding) bool { return f.Code != model.CodeSlotAwaited })
	if len(awaited) != 1 || awaited[0].Subject != "pgrex_pm03" || awaited[0].Severity != model.Info {
		t.Errorf("%v", awaited)
	}
}

// TestDiagnoseOwner: the group haclient is for pgrex alone, never for the database.
func TestDiagnoseOwner(t *testing.T) {
	for name, c := range map[string]struct {
		owner reconcile.Owner
		want  []string // each: what a finding says
	}{
		"nobody knows":      {reconcile.Owner{}, nil},
		"no member":         {reconcile.Owner{Name: "db", Group: "db", Groups: []string{"db", "haclients"}, Postmaster: []string{"db"}}, nil},
		"a member":          {reconcile.Owner{Name: "db", Group: "db", Groups: []string{"db", "haclient"}}, []string{"'gpasswd -d db haclient'"}},
		"by primary group":  {reconcile.Owner{Name: "db", Group: "haclient", Groups: []string{"haclient"}}, []string{"'usermod -g'"}},
		"not yet restarted": {reconcile.Owner{Name: "db", Groups: []string{"db"}, Postmaster: []string{"db", "haclient"}}, []string{"the running PostgreSQL"}},
		"both": {reconcile.Owner{Name: "db", Group: "db", Groups: []string{"haclient"}, Postmaster: []string{"haclient"}},
			[]string{"gpasswd", "the running PostgreSQL"}},
	} {
		who, err := reconcile.Resolve(busyStandby(3))
		if err != nil {
			t.Fatal(err)
		}
		var found []model.Finding
		for _, f := range reconcile.Diagnose(who, reconcile.Settings{}, c.owner) {
			if f.Code == model.CodeOwnerInHaclient {
				found = append(found, f)
			}
		}
		if len(found) != len(c.want) {
			t.Errorf("%s: %v", name, found)
			continue
		}
		for i, f := range found {
			if !strings.Contains(f.Text, c.want[i]) || f.Severity != model.Warning {
				t.Errorf("%s: %v", name, f)
			}
		}
	}
}

// The file that PostgreSQL reads at its next start, and an operation now, has to be the file that it runs with.
func TestDiagnoseConfig(t *testing.T) {
	const debian = "/etc/postgresql/15/main/postgresql.conf"
	for name, c := range map[string]struct {
		parameters map[string]string
		now        string
		differs    bool
	}{
		"nobody may see it":     {nil, "", false},
		"the agent's default":   {map[string]string{"pgdata": "/data/"}, "/data/postgresql.conf", false},
		"elsewhere, as set":     {map[string]string{"config": debian}, debian, false},
		"elsewhere, not set":    {map[string]string{"pgdata": "/data"}, debian, true},
		"set, and not there":    {map[string]string{"pgdata": "/data", "config": debian}, "/data/postgresql.conf", true},
		"named in the options":  {map[string]string{"start_opt": "-c config_file=" + debian}, debian, false},
		"with no word about it": {map[string]string{"start_opt": "-p 5433"}, debian, true},
	} {
		in := busyStandby(3)
		for i := range in.Cluster.Clones {
			maps.Copy(in.Cluster.Clones[i].Parameters, c.parameters)
		}
		who, err := reconcile.Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		findings := reconcile.Diagnose(who, reconcile.Settings{"config_file": c.now}, reconcile.Owner{})
		differs := slices.ContainsFunc(findings, func(f model.Finding) bool { return f.Code == model.CodeConfigDiffers })
		if differs != c.differs {
			t.Errorf("%s: %v", name, findings)
		}
	}
}
