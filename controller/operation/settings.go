package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// nodeLocal are the files of the data folder that are this host's own.
var nodeLocal = []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"}

// conninfo is what the agent wrote at its last start, which takes the file away for a moment, or else what it would write. The
// password is then left to the passfile.
func (p place) conninfo(ctx context.Context, clone model.Clone) (conninfo string, err error) {
	err = await("primary_conninfo", configPatience, func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(p.tmp, "recovery.conf"))
		if conninfo = setting(string(text), "primary_conninfo"); err == nil && conninfo == "" {
			err = errors.New("it has no primary_conninfo")
		}
		return err
	}).Do(ctx)
	if err == nil || ctx.Err() != nil {
		return conninfo, err
	}
	host, user := clone.Parameters["master_ip"], clone.Parameters["repuser"]
	if host == "" {
		return "", errors.New("the agent has no master_ip: there is no way to ask the primary")
	}
	if user == "" {
		user = "postgres"
	}
	port := clone.Parameters["pgport"]
	if port == "" {
		port = "5432"
	}
	return fmt.Sprintf("host=%s port=%s user=%s", host, port, user), nil
}

// setting is the value of a setting in a configuration file: the last line that has it counts.
func setting(text, name string) (value string) {
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(key) != name {
			continue
		}
		rest = strings.TrimSpace(rest)
		if body, quoted := strings.CutPrefix(rest, "'"); quoted {
			if i := strings.LastIndex(body, "'"); i >= 0 {
				body = body[:i]
			}
			value = strings.ReplaceAll(body, "''", "'")
		} else {
			value, _, _ = strings.Cut(rest, "#")
			value = strings.TrimSpace(value)
		}
	}
	return value
}

// setSlotName writes primary_slot_name into postgresql.auto.conf, where ALTER SYSTEM would: before the first start.
func (p place) setSlotName(slot string) error {
	path := filepath.Join(p.data, "postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	lines := slices.Collect(strings.Lines(string(text)))
	lines = slices.DeleteFunc(lines, func(l string) bool { return setting(l, "primary_slot_name") != "" || isUnset(l) })
	return writeWhole(path, strings.Join(lines, "")+"primary_slot_name = '"+slot+"'\n")
}

func isUnset(line string) bool {
	key, _, _ := strings.Cut(line, "=")
	return strings.TrimSpace(key) == "primary_slot_name"
}
