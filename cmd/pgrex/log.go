package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// newLogHandler writes the daemon's log to standard error: as lines with a time and a level, or, if that is the
// journal, with a priority that journalctl knows and without the time, which the journal adds.
func newLogHandler(level slog.Level) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	out := printer.Errors().Writer() // slog quotes what has a line break in it, and leaves DEL as it is
	if !toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
		return slog.NewTextHandler(out, options)
	}
	return newJournalHandler(out, options)
}

// toJournal reports whether a file is the stream that systemd connected to the journal: $JOURNAL_STREAM names its
// device and inode (systemd.exec(5)).
func toJournal(file *os.File, stream string) bool {
	var stat syscall.Stat_t
	if stream == "" || syscall.Fstat(int(file.Fd()), &stat) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// The priorities of syslog(3), in the form in which the journal takes them at the beginning of a line (sd-daemon(3)).
const (
	priorityCritical = "<2>"
	priorityError    = "<3>"
	priorityWarning  = "<4>"
	priorityInfo     = "<6>"
	priorityDebug    = "<7>"
)

// priority of a record: a finding's severity, or else the level.
func priority(record slog.Record) string {
	found := ""
	record.Attrs(func(a slog.Attr) bool {
		if a.Key != controller.KeySeverity {
			return true
		}
		found = map[string]string{string(model.Critical): priorityCritical, string(model.Warning): priorityWarning}[a.Value.String()]
		return false
	})
	switch {
	case found != "":
		return found
	case record.Level >= slog.LevelError:
		return priorityError
	case record.Level >= slog.LevelWarn:
		return priorityWarning
	case record.Level >= slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}

// journalHandler writes one line for a record, behind its priority.
type journalHandler struct {
	mu   *sync.Mutex
	out  io.Writer
	line *bytes.Buffer // what text has written of the record in hand
	text slog.Handler
}

func newJournalHandler(out io.Writer, options *slog.HandlerOptions) slog.Handler {
	options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && slices.Contains([]string{slog.TimeKey, slog.LevelKey}, a.Key) {
			return slog.Attr{}
		}
		return a
	}
	line := &bytes.Buffer{}
	return journalHandler{mu: &sync.Mutex{}, out: out, line: line, text: slog.NewTextHandler(line, options)}
}

func (h journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h journalHandler) Handle(ctx context.Context, record slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if err := h.text.Handle(ctx, record); err != nil {
		return err
	}
	_, err := io.WriteString(h.out, priority(record)+strings.TrimLeft(h.line.String(), " "))
	return err
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.text = h.text.WithAttrs(attrs)
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	h.text = h.text.WithGroup(name)
	return h
}
