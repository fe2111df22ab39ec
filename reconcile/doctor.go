package reconcile

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Settings are the server's settings by name, in the units of pg_settings. A setting that the server does not know is
// missing.
type Settings map[string]string

// Owner is the operating system user who owns the data folder, with the names of groups. What could not be read is
// empty.
type Owner struct {
	Name       string
	Group      string   // his primary group, by the system's user database
	Groups     []string // all of his groups, by the system's user database
	Postmaster []string // the groups of the running postmaster
}

// DoctorSettings are the settings that Diagnose looks at.
var DoctorSettings = []string{
	"allow_alter_system", "config_file", "data_checksums", "full_page_writes", "max_replication_slots", "max_slot_wal_keep_size",
	"max_wal_senders", "max_wal_size", "recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time",
	"recovery_target_timeline", "recovery_target_xid", "restart_after_crash", "wal_keep_size", "wal_log_hints", "wal_sender_timeout",
}

func (s Settings) is(name, value string) bool { return s[name] == value }

// number is a setting's number, or none for a setting that is not there or has none.
func (s Settings) number(name string) (int, bool) {
	n, err := strconv.Atoi(s[name])
	return n, err == nil
}

// Diagnose reports which settings of a host would stand in the way one day, and what to set instead, beside what a
// plan finds. The order is that of the plan's findings, then of the checks.
func Diagnose(w Who, settings Settings, owner Owner) []model.Finding {
	plan := w.Plan()
	d := doctor{w, settings, owner, plan.Steps, plan.Findings}
	for _, check := range []func(){d.rewind, d.capacity, d.senders, d.budget, d.kept, d.crash, d.alterSystem, d.awaited, d.versions,
		d.haclient, d.config, d.targets, d.crashHint, d.comeback} {
		check()
	}
	return d.findings
}

type doctor struct {
	Who
	Settings
	owner    Owner
	steps    []model.Step
	findings []model.Finding
}

func (d *doctor) say(code model.Code, severity model.Severity, subject, format string, args ...any) {
	d.findings = append(d.findings, model.Finding{Code: code, Severity: severity, Subject: subject, Text: fmt.Sprintf(format, args...)})
}

// rewind: pg_rewind's own prerequisites (PostgreSQL documentation, pg_rewind).
func (d *doctor) rewind() {
	if d.is("wal_log_hints", "off") && d.is("data_checksums", "off") {
		d.say(model.CodeRewindImpossible, model.Critical, "wal_log_hints",
			"pg_rewind cannot take this host back after a failover: set wal_log_hints = on on every host and restart PostgreSQL, one by one")
	}
	if d.is("full_page_writes", "off") {
		d.say(model.CodeRewindImpossible, model.Critical, "full_page_writes",
			"pg_rewind needs full_page_writes = on: set it on every host and reload")
	}
}

// capacity: room for a slot for every other member beside all that is not ours. A standby's need counts, too.
func (d *doctor) capacity() {
	names := d.Names
	others := 0
	for _, s := range d.Instance.Slots {
		if !slices.ContainsFunc(d.Policy.Members, func(m string) bool { return names[m] == s.Name }) {
			others++
		}
	}
	need := others + len(d.Policy.Members) - 1
	if n, ok := d.number("max_replication_slots"); ok && n < need && !d.found(model.CodeCapacityShort) {
		d.say(model.CodeCapacityShort, model.Warning, "max_replication_slots",
			"%d is too few for %d members and %d other slots: set it to %d or more and restart PostgreSQL", n, len(d.Policy.Members), others, need)
	}
}

func (d *doctor) found(code model.Code) bool {
	return slices.ContainsFunc(d.findings, func(f model.Finding) bool { return f.Code == code })
}

// senders checks that there are enough walsenders: each other member needs one, pgrex on it one for a moment, and a
// copy two (for files and for WAL).
func (d *doctor) senders() {
	need := 2*(len(d.Policy.Members)-1) + 2
	if n, ok := d.number("max_wal_senders"); ok && n < need {
		d.say(model.CodeSendersShort, model.Warning, "max_wal_senders",
			"%d is too few for %d members, pgrex on each, and a copy at the same time: set it to %d or more and restart PostgreSQL",
			n, len(d.Policy.Members), need)
	}
	if d.is("wal_sender_timeout", "0") {
		d.say(model.CodeSendersShort, model.Warning, "wal_sender_timeout",
			"the walsender of a host that has lost its power stays for ever, and with it its slot is in use: set wal_sender_timeout, 60s is the default, and reload")
	}
}

// budget: pgrex sets one, unless something or somebody keeps it from that.
func (d *doctor) budget() {
	sets := slices.ContainsFunc(d.steps, func(s model.Step) bool { _, ok := s.(model.SetWALBudget); return ok })
	if d.is("max_slot_wal_keep_size", "-1") && !sets && !d.found(model.CodeBudgetPinned) {
		d.say(model.CodeNoWALBudget, model.Warning, "max_slot_wal_keep_size",
			"the slot of a host that stays away can fill this host's disk, and pgrex does not limit it: set %s to what the disk can spare, "+
				"or see what keeps pgrex from setting it", model.MetaWALBudget)
	}
}

// kept: slots follow the standbys. On a primary that is cut off and writes on, only wal_keep_size keeps the WAL back to
// the last common checkpoint, which pg_rewind needs there.
func (d *doctor) kept() {
	kept, ok := d.number("wal_keep_size")
	size, known := d.number("max_wal_size")
	if ok && known && kept < size {
		d.say(model.CodeWALKeptShort, model.Info, "wal_keep_size",
			"an old primary that wrote on after it was cut off may have recycled WAL that pg_rewind needs, and then needs a copy: "+
				"wal_keep_size = %dMB, which is max_wal_size, makes that rare", size)
	}
}

func (d *doctor) crash() {
	if d.is("restart_after_crash", "on") {
		d.say(model.CodeRestartAfterCrash, model.Warning, "restart_after_crash",
			"after a crash PostgreSQL would start again by itself, behind Pacemaker's back: set restart_after_crash = off and reload")
	}
}

func (d *doctor) alterSystem() {
	if d.is("allow_alter_system", "off") {
		d.say(model.CodeAlterSystemOff, model.Critical, "allow_alter_system",
			"pgrex cannot set primary_slot_name and max_slot_wal_keep_size: set allow_alter_system = on and reload")
	}
}

func (d *doctor) awaited() {
	for _, m := range d.Policy.Members {
		name := d.Names[m]
		said := slices.ContainsFunc(d.findings, func(f model.Finding) bool { return f.Code == model.CodeSlotAwaited && f.Subject == name })
		if slices.Contains(d.Instance.SynchronizedStandbySlots, name) && !said {
			d.say(model.CodeSlotAwaited, model.Info, name,
				"synchronized_standby_slots names it: logical replication waits while %s is away", m)
		}
	}
}

// comeback: what this host does without a person, now and if it fails.
func (d *doctor) comeback() {
	dearest := d.Policy.AutoRejoin
	if dearest == model.DearestNone || d.AutoRejoin == nil {
		return
	}
	r := d.remembered()
	d.say(model.CodeAutoRejoin, model.Info, model.MetaAutoRejoin,
		"this host comes back without a person, by %s at most; now it is left alone: %s; %d tries have failed, %d returns are remembered",
		dearest, d.Comeback(r.Next).Why, r.Tries, len(r.Returns))
}

// targets: the agent always starts PostgreSQL as a standby (pgsql_replication_start), and a standby obeys the recovery
// targets.
func (d *doctor) targets() {
	do := "type"
	if d.Instance.InRecovery && d.Primary == "" { // it may be the restore's own recovery, which would go on past the target
		do = "once this recovery has ended (SELECT pg_is_in_recovery() returns f), type"
	}
	for _, name := range DoctorSettings {
		value := d.Settings[name]
		follows := value == "" || name == "recovery_target_timeline" && value == "latest"
		if !strings.HasPrefix(name, "recovery_target") || follows {
			continue
		}
		option := strings.ReplaceAll(d.Clone.Parameters["start_opt"], "-", "_") // --recovery-target-time, too
		if strings.Contains(option, name+"=") {
			d.say(model.CodeRecoveryTarget, model.Warning, name, "the agent's start_opt sets %s = '%s': at its next start this host would "+
				"not follow the primary to the end, and may promote itself; take that out of start_opt (the agent then restarts the "+
				"database on every host)", name, value)
			continue
		}
		d.say(model.CodeRecoveryTarget, model.Warning, name,
			"%s = '%s' is left of a restore: at its next start this host would not follow the primary to the end, and may "+
				"promote itself; %s ALTER SYSTEM RESET %[1]s, or take it out of the file that pg_settings names (sourcefile)",
			name, value, do)
	}
}

// brokenPacemaker cannot work with the database's agent as it was released: its crm_attribute takes the value of "-p -v
// -INFINITY" for an option. The agent's start and demote repeat that call until they time out
// (pgsql_replication_start, pgsql_demote).
const brokenPacemaker = "2.1.5"

// versions: known bad pairs of releases.
func (d *doctor) versions() {
	if release, _, _ := strings.Cut(d.Versions.Pacemaker, "-"); release == brokenPacemaker {
		d.say(model.CodeVersionsClash, model.Info, "Pacemaker", "crm_attribute of Pacemaker %s rejects '-p -v -INFINITY', which %s uses: unless "+
			"your distribution has fixed it, the agent's start and demote repeat it until they time out; install another release",
			brokenPacemaker, d.Clone.Agent)
	}
}

// haclient is the group whose members may change the CIB, and with it have any program run as root on every node
// (Pacemaker Administration, "Cluster users and access control").
const haclient = "haclient"

// haclient checks who has that group. Every backend has the groups of the postmaster, and so has every program that a
// superuser of the database runs.
func (d *doctor) haclient() {
	const risk = "whoever may run programs in the database, as every superuser may, can do anything as root on every node"
	if name := d.owner.Name; slices.Contains(d.owner.Groups, haclient) {
		leave := "type 'gpasswd -d " + name + " " + haclient + "'"
		if d.owner.Group == haclient {
			leave = "give it another primary group with 'usermod -g'"
		}
		d.say(model.CodeOwnerInHaclient, model.Warning, name,
			"the user %s, who runs PostgreSQL, is a member of the group %s: %s; %s, and restart PostgreSQL at the next "+
				"chance; pgrex gets the "+
				"group from its unit", name, haclient, risk, leave)
	}
	if slices.Contains(d.owner.Postmaster, haclient) {
		d.say(model.CodeOwnerInHaclient, model.Warning, "postmaster",
			"the running PostgreSQL has the group %s: %s; restart PostgreSQL at the next chance, once its user is no longer "+
				"a member", haclient, risk)
	}
}

// config compares the postgresql.conf that PostgreSQL runs with and the one of the agent's next start, which operations
// read, too. It does not compare them if start_opt names the file.
func (d *doctor) config() {
	now, next := d.Settings["config_file"], path.Clean(d.Clone.ConfigFile())
	if now != "" && path.Clean(now) != next && !strings.Contains(d.Clone.Parameters["start_opt"], "config_file") {
		d.say(model.CodeConfigDiffers, model.Warning, "config_file",
			"PostgreSQL runs with %s, and the agent starts it with %s: set the agent's parameter config to the file with this host's settings", now, next)
	}
}

// crashHint reports whether a crash of the primary here would be told to Pacemaker at once. Where that is not switched on,
// it recommends to do so, once the pgrex on every host knows the setting: one that does not would do nothing any more.
func (d *doctor) crashHint() {
	wanted := d.Who
	wanted.Policy.CrashHint = true
	now := "now it would be, if pgrex.service runs here and watches PostgreSQL"
	switch v := wanted.HintNow(); {
	case d.Primary != "" && !d.Is(d.Primary):
		now = fmt.Sprintf("on %s, pgrex doctor says whether it would be now", d.Primary)
	case !v.OK:
		now = "now it would not be: " + v.Why
	}
	switch {
	case d.Policy.CrashHint:
		d.say(model.CodeCrashHintNow, model.Info, model.MetaCrashHint, "a crash of the primary's PostgreSQL is told to Pacemaker at once; %s", now)
	case d.everyoneKnows():
		d.say(model.CodeCrashHintNow, model.Info, model.MetaCrashHint,
			"Pacemaker sees a crash of the primary's PostgreSQL at its next monitor only; pgrex can tell it at once; type: "+
				"crm_resource --resource %s --meta --set-parameter %s --parameter-value true; %s", d.Clone.ID, model.MetaCrashHint, now)
	}
}

// everyoneKnows reports whether the pgrex on every other host is known to accept pgrex-crash-hint: all those do that
// publish their forecast under its present name.
func (d *doctor) everyoneKnows() bool {
	return d.Cluster != nil && len(d.Others) > 0 && !slices.ContainsFunc(d.Others, func(member string) bool {
		n := d.NodeOf(member)
		return n.Transient[model.ForecastAttribute(d.Clone.Primitive)] == "" || n.Attribute(model.FormerForecastAttribute) != ""
	})
}
