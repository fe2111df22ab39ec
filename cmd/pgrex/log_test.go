package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-logr/logr"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestJournalLines: each line carries its priority and no time; a finding's is its severity.
func TestJournalLines(t *testing.T) {
	var out strings.Builder
	lines := printer.To(&out).Writer()
	log := logr.FromSlogHandler(newJournalHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug})).WithValues("node", "pm01")
	log.Info("pgrex starts", "version", "1")
	log.V(1).Info("pass")
	log.Info("condition began", "code", "X", controller.KeySeverity, model.Warning)
	log.Info("condition began", "code", "Y", controller.KeySeverity, model.Critical)
	log.Info("condition began", "code", "Z", controller.KeySeverity, model.Info)
	log.Error(errors.New("two\nlines"), "step failed")
	log.Info("pass", "text", "a\r\n<2>msg=forged\u0085\u2028\x1b[31m\u009b\u202e", "code", "\x7f", "node\n<2>", model.Code("\u009b")) // trap 44
	const want = `<6>msg="pgrex starts" node=pm01 version=1
<7>msg=pass node=pm01
<4>msg="condition began" node=pm01 code=X severity=warning
<2>msg="condition began" node=pm01 code=Y severity=critical
<6>msg="condition began" node=pm01 code=Z severity=info
<3>msg="step failed" node=pm01 err="two\nlines"
<6>msg=pass node=pm01 text="a\r\n<2>msg=forged\u0085\u2028\x1b[31m\u009b\u202e" code=` + "\uFFFD" + ` "node\n<2>"="\u009b"
`
	if out.String() != want {
		t.Errorf("the lines are\n%s\nnot\n%s", out.String(), want)
	}
}

// TestToJournal: only the very stream that systemd names is the journal; its variable is inherited by what is
// redirected, too.
func TestToJournal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		"": false, "8:1": false, "nonsense": false, fmt.Sprintf("%d:%d", stat.Dev, stat.Ino): true,
	} {
		if got := toJournal(file, stream); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %t", stream, got)
		}
	}
}
