package datadir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// following are the settings with which a standby follows its primary for ever, and on to each new timeline. Restoring
// to a point in time changes them, and a standby would stop there, or be promoted.
var following = []struct{ name, value string }{
	{"recovery_target", ""},
	{"recovery_target_lsn", ""},
	{"recovery_target_name", ""},
	{"recovery_target_time", ""},
	{"recovery_target_xid", ""},
	{"recovery_target_timeline", "latest"},
}

const (
	recoverySignal = "recovery.signal"
	standbySignal  = "standby.signal"
)

// Unfollowing is what keeps the next start from being one as a standby that follows the primary. The agent makes
// standby.signal and has primary_conninfo in a file of its own, but what a restore has left counts before that.
func (p Place) Unfollowing(ctx context.Context, restored bool) (found []string, err error) {
	if _, err := os.Lstat(filepath.Join(p.Data, recoverySignal)); err == nil {
		found = append(found, recoverySignal)
	}
	for _, s := range following {
		value, err := p.Configured(ctx, s.name)
		if err != nil {
			return nil, err
		}
		if value != s.value {
			found = append(found, fmt.Sprintf("%s = '%s'", s.name, value))
		}
	}
	if !restored {
		return found, nil
	}
	has, err := p.hasConninfo()
	if has { // with a password perhaps
		found = append(found, "primary_conninfo of "+autoConf)
	}
	return found, err
}

// Follows returns an error if a restore has left what keeps a start here from being one as a standby: PostgreSQL would
// stop its recovery at the target, or promote itself. pgrex rejoin takes that out; nothing else may.
func (p Place) Follows(ctx context.Context) error {
	found, err := p.Unfollowing(ctx, false)
	if err != nil || len(found) == 0 {
		return err
	}
	var do []string
	if i := slices.Index(found, recoverySignal); i >= 0 {
		do = append(do, "type sudo rm "+filepath.Join(p.Data, recoverySignal))
	}
	if len(found) > len(do) {
		do = append(do, "take those settings out of "+filepath.Join(p.Data, autoConf)+
			" (ALTER SYSTEM RESET, while PostgreSQL runs), or of whichever file has them")
	}
	return fmt.Errorf("a restore has left what ends PostgreSQL's recovery here (%s): %s", strings.Join(found, ", "),
		strings.Join(do, "; "))
}

// hasConninfo reports whether postgresql.auto.conf hides the agent's primary_conninfo.
func (p Place) hasConninfo() (bool, error) {
	text, err := readFile(filepath.Join(p.Data, autoConf))
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	return setting(string(text), "primary_conninfo") != "", nil
}

// Follow takes out what Unfollowing finds. The next start is one as a standby, even if it is not the agent's: without a
// signal file the server would end its recovery wherever the WAL here ends.
func (p Place) Follow(ctx context.Context, restored bool) error {
	if err := writeWhole(filepath.Join(p.Data, standbySignal), ""); err != nil {
		return err
	}
	if err := RemoveFile(filepath.Join(p.Data, recoverySignal)); err != nil {
		return err
	}
	for _, s := range following {
		value, err := p.Configured(ctx, s.name)
		if err == nil && value != s.value { // whichever file has it, what is in this one counts
			err = p.alter(s.name, fmt.Sprintf("%s = '%s'\n", s.name, s.value))
		}
		if err != nil {
			return err
		}
	}
	if has, err := p.hasConninfo(); !has || !restored {
		return err
	}
	return p.alter("primary_conninfo", "")
}
