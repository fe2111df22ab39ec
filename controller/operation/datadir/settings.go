package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// autoConf is the file that ALTER SYSTEM writes. It overrides all other files.
const autoConf = "postgresql.auto.conf"

// Conninfo is what the agent wrote at its last start, which takes the file away for a moment, or else what it would
// write. The password is then left to the passfile.
func (p Place) Conninfo(ctx context.Context, clone model.Clone) (conninfo string, err error) {
	err = awaitFile(ctx, func(context.Context) error {
		text, err := readFile(filepath.Join(p.Tmp, "recovery.conf"))
		if conninfo = setting(string(text), "primary_conninfo"); err == nil && conninfo == "" {
			err = errors.New("it has no primary_conninfo")
		}
		return err
	})
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
			value = unquoted(body)
		} else {
			value, _, _ = strings.Cut(rest, "#")
			value = strings.TrimSpace(value)
		}
	}
	return value
}

// escapes are what a letter behind a backslash stands for in a configuration file; any other stands for itself.
var escapes = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unquoted is the value before the closing quote, as PostgreSQL reads it (guc-file.l, DeescapeQuotedString): a quote is
// doubled or behind a backslash, and a backslash may stand before up to three octal digits.
func unquoted(body string) string {
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		next := body[min(i+1, len(body)-1)]
		switch c := body[i]; {
		case c == '\'' && (i+1 == len(body) || next != '\''):
			return b.String()
		case c == '\\' && isOctal(next):
			octal := byte(0)
			for range 3 {
				if i+1 < len(body) && isOctal(body[i+1]) {
					i++
					octal = octal<<3 | body[i] - '0'
				}
			}
			b.WriteByte(octal)
		case c == '\\':
			i++
			b.WriteByte(cmp.Or(escapes[next], next))
		case c == '\'':
			i++
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// SetSlotName writes primary_slot_name into postgresql.auto.conf, where ALTER SYSTEM would: before the first start.
func (p Place) SetSlotName(slot string) error {
	return p.alter("primary_slot_name", "primary_slot_name = '"+slot+"'\n")
}

// alter replaces all lines of a setting in postgresql.auto.conf by one line, or by none.
func (p Place) alter(name, line string) error {
	path := filepath.Join(p.Data, autoConf)
	text, err := readFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	lines := slices.Collect(strings.Lines(string(text)))
	lines = slices.DeleteFunc(lines, func(l string) bool {
		key, _, _ := strings.Cut(l, "=")
		return strings.TrimSpace(key) == name
	})
	others := strings.Join(lines, "")
	if others != "" && !strings.HasSuffix(others, "\n") { // somebody has edited it
		others += "\n"
	}
	return writeWhole(path, others+line)
}
