package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen is what is printed on: a terminal of some size, or a file or pipe, which gets no colour and whole lines.
type screen struct {
	w             io.Writer
	terminal      bool
	colour        bool
	width, height int
}

// The colours that mean something; see ECMA-48, SGR.
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// screenOf looks at what a command prints on (https://no-color.org for NO_COLOR).
func screenOf(w io.Writer) screen {
	s := screen{w: w}
	f, ok := w.(*os.File)
	if !ok {
		return s
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	s.terminal, s.width, s.height = true, int(size.Col), int(size.Row)
	s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

func (s screen) paint(colour, text string) string {
	if !s.colour || colour == plain || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// wrap breaks a line at spaces where the terminal ends; what follows is indented.
func (s screen) wrap(text string) string {
	const indent = "  "
	if !s.terminal || s.width < 40 {
		return text
	}
	var b strings.Builder
	column := 0
	for i, word := range strings.Split(text, " ") {
		length := utf8.RuneCountInString(word)
		switch {
		case i > 0 && column+1+length > s.width:
			b.WriteString("\n" + indent)
			column = len(indent)
		case i > 0:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// cell is a part of a table's row.
type cell struct{ text, colour string }

// table is rows of cells, the first being the head.
type table [][]cell

func (t *table) head(names ...string) {
	var row []cell
	for _, n := range names {
		row = append(row, cell{n, bold})
	}
	*t = append(*t, row)
}

func (t *table) row(cells ...cell) { *t = append(*t, cells) }

// print writes a table, each column as wide as it must be.
func (s screen) print(t table) {
	widths := map[int]int{}
	for _, row := range t {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t {
		line := ""
		for i, c := range row {
			line += s.paint(c.colour, c.text)
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2)
			}
		}
		fmt.Fprintln(s.w, strings.TrimRight(line, " "))
	}
}
