package datadir

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestToolLeavesAnother: what a command leaves in the background, with its standard error, is not waited for. The
// command has ended well.
func TestToolLeavesAnother(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := Tool{Path: "/bin/sh", Args: []string{"-c", `setsid sh -c 'echo $$ >` + pid + `; exec sleep 1000' & echo done`}}.Run(ctx)
	if err != nil || out != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Errorf("what it has left is gone: %v", err)
	}
}

// TestToolQuotes: an error and the progress have the tool's own lines only, and a line without an end does no harm.
func TestToolQuotes(t *testing.T) {
	t.Parallel()
	script := `echo "mine: broken" >&2; echo "curl: https://key@archive need to copy" >&2; echo "1/2 kB (50%)" >&2; head -c 1000000 /dev/zero >&2; exit 3`
	var told []string
	_, err := Tool{Path: "/bin/sh", Args: []string{"-c", script}, OnlyFrom: "mine:", Progress: func(line string) { told = append(told, line) }}.Run(t.Context())
	if err == nil || err.Error() != "sh: mine: broken" {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(told, []string{"mine: broken", "1/2 kB (50%)"}) {
		t.Errorf("the progress is %q", told)
	}
}

// TestToolHasASession: a tool, and what the server's configuration has it run, has no terminal to type at.
func TestToolHasASession(t *testing.T) {
	t.Parallel()
	out, err := Tool{Path: "/bin/sh", Args: []string{"-c", `echo $$; cut -d " " -f 6 /proc/$$/stat`}}.Run(t.Context())
	if ids := strings.Fields(out); err != nil || len(ids) != 2 || ids[0] != ids[1] {
		t.Errorf("process and session are %v, %v", ids, err)
	}
}

// TestTool: an interrupt ends all that a tool has started, also what ignores it.
func TestTool(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun := filepath.Join(t.TempDir(), "begun")
	go func() {
		for len(there(begun)) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	_, err := Tool{Path: "/bin/sh", Args: []string{"-c", `trap "" INT; (trap "" INT; touch ` + begun + `; sleep 1000)`}}.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Error(err)
	}
}
