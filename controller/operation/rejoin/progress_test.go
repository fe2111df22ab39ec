package rejoin

import (
	"strings"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	for _, c := range []struct{ done, total, want string }{
		{"0", "2048", "[....................]   0%, 0 B of 2.0 MiB"},
		{"1024", "2048", "[##########..........]  50%, 1.0 MiB of 2.0 MiB, 102.4 KiB/s, 10s left"},
		{"4096", "2048", "[####################] 100%, 4.0 MiB of 2.0 MiB, 409.6 KiB/s, 0s left"},
		{"0", "0", "[####################] 100%, 0 B of 0 B"},
	} {
		if got := bar(c.done, c.total, 10*time.Second); got != c.want {
			t.Errorf("%s", got)
		}
	}
	if got := Size(3<<30, 0); got != "3.0 GiB" {
		t.Error(got)
	}
	if got := Size(3<<30, 100<<20); got != "3.0 GiB, about 31s at 100.0 MiB/s" {
		t.Error(got)
	}
	if got := Size(1, 100<<20); got != "1 B, about 1s at 100.0 MiB/s" {
		t.Error(got)
	}
}

// On a pipe there is a line now and then, on a terminal each is drawn over the one before.
func TestProgress(t *testing.T) {
	var lines, drawn []string
	r := &Rejoin{Report: func(line string) { lines = append(lines, line) }}
	for range 2 {
		progress := r.progress()
		for _, line := range []string{"pg_rewind: need to copy 5 MB (total source directory size is 70 MB)", "1/9 kB (11%) copied", "9/9 kB (100%) copied", "done"} {
			progress(line)
		}
		r.Redraw = func(line string) { drawn = append(drawn, line) }
	}
	if len(lines) != 3 || len(drawn) != 2 || !strings.Contains(lines[0], "5 MB") || !strings.Contains(lines[1], "11%") {
		t.Errorf("lines %q, drawn %q", lines, drawn)
	}
}
