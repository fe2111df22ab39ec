package datadir

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// config is the main file of settings. It may be anywhere: Debian has it below /etc/postgresql. Until pg_rewind's
// journal is closed, that in the data folder may be the primary's.
func (p Place) config() string {
	config := cmp.Or(p.Config, filepath.Join(p.Data, "postgresql.conf"))
	if name := p.nameOf(config); name != "" && p.Rewinding() != NotBegun {
		if kept := filepath.Join(p.Marker(), name); isThere(kept) {
			return kept
		}
	}
	return config
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// postgres runs the server's program with the agent's own options, and then these, which count more. mode comes before
// all: without it the program would be a server. As with pg_ctl, whose -o the agent makes of it, a shell reads
// start_opt; and as with the agent, which goes to the data folder first, a relative hba_file is in there.
func (p Place) postgres(mode string, options ...string) (Tool, error) {
	if cut := cutsOff(p.StartOpt); cut != "" {
		return Tool{}, fmt.Errorf("the agent's start_opt has %s, which a shell takes for the end of the options: put the "+
			"value in quotes, or into %s", cut, p.config())
	}
	script := `postgres=$0 data=$1 config=$2 && shift 2 && exec "$postgres" ` + mode +
		` -D "$data" -c "config_file=$config" ` + p.StartOpt + ` "$@"`
	args := []string{"-c", script, filepath.Join(p.Bin, "postgres"), p.Data, p.config()}
	return Tool{Name: "postgres", Path: "/bin/sh", Args: append(args, options...), Folder: p.Data}, nil
}

// cutsOff is what in some options, as a shell reads them, ends them or runs another command; "" if nothing does.
func cutsOff(options string) string {
	var quote rune // that is open, 0 for none
	before, escaped := ' ', false
	for i, r := range options {
		substitutes := r == '`' || r == '$' && strings.HasPrefix(options[i:], "$(")
		switch {
		case escaped:
			escaped = false
		case quote == '\'':
			if r == quote {
				quote = 0
			}
		case r == '\\':
			escaped = true
		case substitutes:
			return "the command substitution " + options[i:]
		case r == quote:
			quote = 0
		case quote != 0:
		case r == '\'' || r == '"':
			quote = r
		case strings.ContainsRune(";&|<>\n", r), r == '#' && strings.ContainsRune(" \t", before):
			return fmt.Sprintf("an unquoted %q", r)
		}
		before = r
	}
	switch {
	case quote != 0:
		return fmt.Sprintf("a %c without its end", quote)
	case escaped:
		return `a \ at its end`
	}
	return ""
}

// Configuration returns an error unless a server that the agent starts here reads its settings, and has these data.
func (p Place) Configuration(ctx context.Context) error {
	folder, err := p.Configured(ctx, "data_directory")
	if err != nil {
		return err
	}
	if here, err := os.Stat(p.Data); err == nil {
		if its, err := os.Stat(folder); err == nil && os.SameFile(here, its) {
			return nil
		}
	}
	return fmt.Errorf("data_directory is %s in the settings with which the agent starts a server (%s), and its pgdata "+
		"is %s: make them one folder", folder, p.config(), p.Data)
}

// Configured is what a setting is at the next start, by the configuration files. The agent takes one of them away for a
// moment at each start.
func (p Place) Configured(ctx context.Context, name string) (value string, err error) {
	tool, err := p.postgres("-C " + name)
	if err != nil {
		return "", err
	}
	err = awaitFile(ctx, func(ctx context.Context) error {
		out, err := tool.Run(ctx)
		value = strings.TrimSpace(out)
		return err
	})
	if err != nil {
		err = fmt.Errorf("read %s as a server here would, with the agent's config and start_opt (%s): %w",
			name, p.config(), err)
	}
	return value, err
}

// configPatience is how long a file that the agent takes away at each start may be away.
const configPatience = 5 * time.Second

// awaitFile looks again until a condition holds that needs such a file. The condition's error says what is not so yet,
// unless that attempt was cut off.
func awaitFile(ctx context.Context, condition func(ctx context.Context) error) error {
	const between = 200 * time.Millisecond
	look, cancel := context.WithTimeout(ctx, configPatience)
	defer cancel()
	var last error
	for {
		err := condition(look)
		if err == nil {
			return nil
		}
		if last == nil || look.Err() == nil {
			last = err
		}
		select {
		case <-look.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), last)
			}
			return fmt.Errorf("not within %s: %w", configPatience, last)
		case <-time.After(between):
		}
	}
}
