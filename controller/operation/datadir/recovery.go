package datadir

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// target is a setting, and the value with which a standby follows its primary for ever, and on to each new timeline.
type target struct{ name, value string }

// targets are the settings that a restore to a point in time changes: a standby would stop at that point, or promote
// itself.
var targets = []target{
	{"recovery_target", ""},
	{"recovery_target_lsn", ""},
	{"recovery_target_name", ""},
	{"recovery_target_time", ""},
	{"recovery_target_xid", ""},
	{"recovery_target_timeline", "latest"},
}

// following returns the settings that can be read here. Without a main file of settings, none can, and only a copy is
// possible, which has the primary's.
func (p Place) following() []target {
	if !p.hasSettings() {
		return nil
	}
	return targets
}

const (
	recoverySignal = "recovery.signal"
	standbySignal  = "standby.signal"
)

// Unfollowing returns what would keep PostgreSQL from following the primary at its next start. The agent makes
// standby.signal, and has primary_conninfo in a file of its own, but what a restore has left overrides that.
func (p Place) Unfollowing(ctx context.Context, restored bool) (found []string, err error) {
	if _, err := os.Lstat(filepath.Join(p.Data, recoverySignal)); err == nil {
		found = append(found, recoverySignal)
	}
	for _, s := range p.following() {
		value, err := p.Configured(ctx, s.name)
		if err != nil {
			return nil, err
		}
		if value == s.value {
			continue
		}
		if err := p.unless(ctx, s); err != nil {
			return nil, err
		}
		found = append(found, fmt.Sprintf("%s = '%s'", s.name, value))
	}
	if !restored {
		return found, nil
	}
	has, err := p.hasConninfo()
	if has { // its value may hold a password
		found = append(found, "primary_conninfo of "+autoConf)
	}
	return found, err
}

// Steerable returns an error if the agent's start_opt sets what this host needs otherwise to follow a primary through its
// own slot.
func (p Place) Steerable(ctx context.Context, slot string) error {
	return p.unless(ctx, append(slices.Clone(targets), target{"primary_slot_name", slot})...)
}

// unless returns an error if the agent's start_opt sets one of these settings to another value. Options of the server
// override every file, so nothing that pgrex writes would count.
func (p Place) unless(ctx context.Context, needed ...target) error {
	var found []string
	for _, s := range needed {
		value, err := p.option(ctx, s)
		if err != nil {
			return err
		}
		if value != s.value {
			found = append(found, fmt.Sprintf("%s = '%s'", s.name, value))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("the agent's start_opt sets %s, which overrides every file, so this host could not follow a "+
		"primary: take that out of start_opt first (the agent then restarts the database on every host)",
		strings.Join(found, ", "))
}

// option returns the value that start_opt gives a setting, or the needed one if start_opt does not set it. The last
// option counts. No file does: there is none of PostgreSQL's in /dev.
func (p Place) option(ctx context.Context, s target) (string, error) {
	if strings.TrimSpace(p.StartOpt) == "" {
		return s.value, nil
	}
	none := p
	none.Data, none.Config = filepath.Dir(os.DevNull), os.DevNull
	tool, err := none.postgres("-C " + s.name + " -c " + s.name + "='" + s.value + "'")
	if err != nil {
		return "", err
	}
	out, err := tool.Run(ctx)
	if err != nil {
		return "", fmt.Errorf("read %s as a server here would, with the agent's start_opt alone: %w", s.name, err)
	}
	return strings.TrimSpace(out), nil
}

// Follows returns an error if a start here would not be that of a standby: by what a restore has left, PostgreSQL would
// stop its recovery at the target, or promote itself. Only pgrex rejoin may remove that. Or settings are too low.
func (p Place) Follows(ctx context.Context) error {
	c, err := p.Control(ctx)
	if err != nil {
		return err
	}
	if low, err := p.tooLow(ctx, c); low != "" || err != nil {
		return cmp.Or(err, fmt.Errorf("%s; to lower them, first start PostgreSQL once as a primary with the new "+
			"values", low))
	}
	found, err := p.Unfollowing(ctx, false)
	if err != nil || len(found) == 0 {
		return err
	}
	var do []string
	if i := slices.Index(found, recoverySignal); i >= 0 {
		do = append(do, "type "+sudo("rm", filepath.Join(p.Data, recoverySignal)))
	}
	if len(found) > len(do) {
		do = append(do, "take those settings out of "+filepath.Join(p.Data, autoConf)+
			" (ALTER SYSTEM RESET, while PostgreSQL runs), or of whichever file has them")
	}
	return fmt.Errorf("a restore has left what ends PostgreSQL's recovery here (%s): %s", strings.Join(found, ", "),
		strings.Join(do, "; "))
}

// sizes are the settings that a standby needs at least as high as the data had them last, by their names in the control
// file; with less its recovery ends at once (PostgreSQL's documentation, "Hot Standby", Administrator's Overview).
var sizes = []struct{ setting, inControl string }{
	{"max_connections", "max_connections setting"},
	{"max_worker_processes", "max_worker_processes setting"},
	{"max_wal_senders", "max_wal_senders setting"},
	{"max_prepared_transactions", "max_prepared_xacts setting"},
	{"max_locks_per_transaction", "max_locks_per_xact setting"},
}

// tooLow explains why these data cannot be started as a standby with the settings here; "" if they can.
func (p Place) tooLow(ctx context.Context, c Control) (string, error) {
	needed := map[string]string{}
	for _, s := range sizes {
		needed[s.setting] = c[s.inControl] // "" if the data are damaged, or none
	}
	low, err := p.lower(ctx, needed)
	if low == "" || err != nil {
		return "", err
	}
	return "PostgreSQL cannot start as a standby, because these settings are lower than those recorded in its data (" +
		low + "): raise them in the configuration here", nil
}

// TooLow explains why PostgreSQL here could not follow a primary for long; "" if it could. A standby with lower
// settings pauses its replay, or ends, at the WAL record that has those of the primary. Data that come from the primary
// are not even started with less. shows returns a setting of the primary.
func (p Place) TooLow(ctx context.Context, shows func(ctx context.Context, name string) (string, error)) (why string, err error) {
	needed := map[string]string{}
	for _, s := range sizes {
		if needed[s.setting], err = shows(ctx, s.setting); err != nil {
			return "", err
		}
	}
	low, err := p.lower(ctx, needed)
	if low == "" || err != nil {
		return "", err
	}
	return "PostgreSQL here could not follow the primary, because these settings are lower than the primary's (" + low +
		"): raise them in the configuration here", nil
}

// lower names the settings here that are lower than needed; "" if there are none. Once pg_rewind has begun, a part of
// this host's settings is in the journal, and the files in the data folder may be the primary's. Then nothing is known.
func (p Place) lower(ctx context.Context, needed map[string]string) (string, error) {
	if p.Rewinding() != NotBegun {
		return "", nil
	}
	var low []string
	for _, s := range sizes {
		needs, err := strconv.Atoi(needed[s.setting])
		if err != nil {
			continue
		}
		value, err := p.Configured(ctx, s.setting)
		if err != nil {
			return "", err
		}
		if has, err := strconv.Atoi(value); err == nil && has < needs {
			low = append(low, fmt.Sprintf("%s = %d, but %d is needed", s.setting, has, needs))
		}
	}
	return strings.Join(low, ", "), nil
}

// Recovered returns an error if a stopped server may not have ended the recovery that a restore began. What the restore
// has left must stay until then: without it, PostgreSQL would replay past the target, or recover without the archive.
func (p Place) Recovered(ctx context.Context, c Control) error {
	found, err := p.Unfollowing(ctx, false)
	if err != nil {
		return err
	}
	state := c["Database cluster state"]
	stops := func(what string) bool { return !strings.HasPrefix(what, "recovery_target_timeline ") }
	if !slices.Contains(found, recoverySignal) && (!strings.Contains(state, "recovery") ||
		!slices.ContainsFunc(found, stops)) {
		return nil
	}
	return fmt.Errorf("a restore has left what ends PostgreSQL's recovery here (%s), and that recovery may not have "+
		"ended (pg_controldata: %s): %s", strings.Join(found, ", "), state, p.EndRecovery())
}

// EndRecovery is what to do with restored data before anything else may be done with them.
func (p Place) EndRecovery() string {
	return fmt.Sprintf("let PostgreSQL recover first, without Pacemaker: make %s if it is not there, type pg_ctl "+
		"start, wait until SELECT pg_is_in_recovery() returns f (if it pauses at a target, SELECT "+
		"pg_wal_replay_resume() ends that), and type pg_ctl stop -m fast; see docs/rejoin.md",
		filepath.Join(p.Data, recoverySignal))
}

// hasConninfo reports whether postgresql.auto.conf overrides the agent's primary_conninfo.
func (p Place) hasConninfo() (bool, error) {
	text, err := readFile(filepath.Join(p.Data, autoConf))
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	return setting(string(text), "primary_conninfo") != "", nil
}

// Follow removes what Unfollowing finds, and makes standby.signal. So the next start is that of a standby, even if it
// is not the agent's: without a signal file, recovery would end where the WAL in pg_wal ends.
func (p Place) Follow(ctx context.Context, restored bool) error {
	if err := writeWhole(filepath.Join(p.Data, standbySignal), ""); err != nil {
		return err
	}
	if err := RemoveFile(filepath.Join(p.Data, recoverySignal)); err != nil {
		return err
	}
	for _, s := range p.following() {
		if err := p.reset(ctx, s); err != nil {
			return err
		}
	}
	if has, err := p.hasConninfo(); !has || !restored {
		return err
	}
	return p.alter("primary_conninfo", "")
}

// reset gives a setting the value of a target. Where postgresql.auto.conf alone sets another one, it no longer does;
// where another file does, too, postgresql.auto.conf overrides that. It does so only then, because it would also override
// the target of a later restore.
func (p Place) reset(ctx context.Context, s target) error {
	for _, line := range []string{"", fmt.Sprintf("%s = '%s'\n", s.name, s.value)} {
		value, err := p.Configured(ctx, s.name)
		if err != nil || value == s.value {
			return err
		}
		if err := p.alter(s.name, line); err != nil {
			return err
		}
	}
	return nil
}
