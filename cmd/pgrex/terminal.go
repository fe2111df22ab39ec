package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// terminal writes lines, and on a real terminal some that are drawn over.
type terminal struct {
	w     io.Writer
	drawn bool // the cursor is behind a line to be drawn over
}

const eraseLine = "\r\x1b[K"

func (t *terminal) report(line string) {
	if t.drawn {
		fmt.Fprint(t.w, eraseLine)
		t.drawn = false
	}
	fmt.Fprintln(t.w, line)
}

// redraw leaves a line to be drawn over, cut to the terminal's width: what is wider could not be.
func (t *terminal) redraw(line string) {
	if f, ok := t.w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 1 {
			line = line[:min(len(line), int(size.Col)-1)]
		}
	}
	fmt.Fprint(t.w, eraseLine+line)
	t.drawn = true
}

// isTerminal tells a terminal from a pipe, a file, and /dev/null.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
