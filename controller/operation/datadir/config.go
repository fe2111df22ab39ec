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

// config is postgresql.conf. It may be anywhere: Debian has it below /etc/postgresql. Until pg_rewind's journal is
// closed, the file in the data folder may be the primary's; then config is the file that the journal keeps.
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

// postgres is the server's program with the agent's options (start_opt) and further ones, which override them. mode
// comes first: without it, the program would be a server. A shell reads start_opt, as with the agent, which passes it to
// pg_ctl by -o. The program runs in the data folder, as with the agent, and so finds a relative hba_file there.
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

// cutsOff names what a shell would take for the end of some options, or for another command; "" if there is nothing of
// the kind.
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

// Configuration returns an error if a server that the agent starts here could not read its settings, or would use
// another data folder.
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

// Configured returns the value that a setting has at the next start, by the configuration files. It tries again for a
// while, because the agent takes one of the files away for a moment at each start.
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

// configPatience is how long pgrex waits for a file that the agent takes away for a moment at each start.
const configPatience = 5 * time.Second

// awaitFile repeats a condition that needs such a file until it holds, or configPatience is over. It then returns the
// error of the last attempt that was not cut off.
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
