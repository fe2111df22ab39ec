package printer

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// nasty is what a text from outside may hold, and printed is what comes of it.
const (
	nasty   = "a\x1b[31mb\u009b31m\r\nc\u0085d\u202e\x7f\xff"
	printed = "a\uFFFD[31mb\uFFFD31m  c d\uFFFD\uFFFD\uFFFD"
)

func on(terminal bool) (*Printer, *strings.Builder) {
	var b strings.Builder
	if terminal {
		return &Printer{w: &b, terminal: true, colour: true, width: 40, height: 4}, &b
	}
	return To(&b), &b
}

// TestPrinter: trap 44. In every way of printing, values are printable, and the line breaks are the printer's own.
func TestPrinter(t *testing.T) {
	err := errors.Join(errors.New(nasty), errors.New("e"))
	for name, c := range map[string]struct {
		print              func(*Printer)
		onFile, onTerminal string
	}{
		"Line":    {func(p *Printer) { p.Line("x: %s", nasty) }, "x: " + printed + "\n", ""},
		"Report":  {func(p *Printer) { p.Report(nasty) }, printed + "\n", ""},
		"Lines":   {func(p *Printer) { p.Lines("x\x1b\ny\n") }, "x\uFFFD\ny\n", ""},
		"Ask":     {func(p *Printer) { p.Ask(nasty) }, printed + " ", ""},
		"Wrapped": {func(p *Printer) { p.Wrapped(Red, "%s", nasty) }, printed + "\n", "\x1b[31m" + printed + "\x1b[0m\n"},
		"Wrapped at the end": {func(p *Printer) { p.Wrapped(Plain, "%s %s", strings.Repeat("x", 30), strings.Repeat("y", 20)) },
			strings.Repeat("x", 30) + " " + strings.Repeat("y", 20) + "\n", strings.Repeat("x", 30) + "\n  " + strings.Repeat("y", 20) + "\n"},
		"Titled": {func(p *Printer) { p.Titled("t\x1b:", Green, "%s", nasty) }, "t\uFFFD: " + printed + "\n",
			"\x1b[1mt\uFFFD:\x1b[0m\x1b[32m " + printed + "\x1b[0m\n"},
		"Titled at the end": {func(p *Printer) {
			p.Titled("ü ü ü:", Plain, "%s %s", strings.Repeat("ü", 30), strings.Repeat("y", 20))
		},
			"ü ü ü: " + strings.Repeat("ü", 30) + " " + strings.Repeat("y", 20) + "\n",
			"\x1b[1mü ü ü:\x1b[0m " + strings.Repeat("ü", 30) + "\n  " + strings.Repeat("y", 20) + "\n"},
		"Error": {func(p *Printer) { p.Error("pgrex", err, "; see x") }, "pgrex: a\uFFFD[31mb\uFFFD31m; c d\uFFFD\uFFFD\uFFFD; e; see x\n", ""},
		"JSON": {func(p *Printer) { _ = p.JSON(nasty) },
			`"a\u001b[31mb\u009b31m\r\nc\u0085d\u202e\u007f\ufffd"` + "\n", ""},
		"Redraw": {func(p *Printer) { p.Redraw(nasty); p.Redraw("2 %"); p.Report("b"); p.Report("c") },
			eraseLine + printed + eraseLine + "2 %" + eraseLine + "b\nc\n", ""},
		"Redraw what is wide": {func(p *Printer) { p.Redraw(strings.Repeat("ü", 50)) },
			eraseLine + strings.Repeat("ü", 50), eraseLine + strings.Repeat("ü", 39)},
		"Table": {func(p *Printer) {
			var tab Table
			tab.Head("H", "I")
			tab.Row(Yellow.In("x\n\x1b"), Plain.In("y"))
			tab.Text("z")
			p.Table(tab)
		}, "H    I\nx \uFFFD  y\nz\n", "\x1b[1mH\x1b[0m    \x1b[1mI\x1b[0m\n\x1b[33mx \uFFFD\x1b[0m  y\nz\n"},
		"Writer": {func(p *Printer) { _, _ = io.WriteString(p.Writer(), "a\x1bb\nc\x7f\n") }, "a\uFFFDb\nc\uFFFD\n", ""},
		"Show": {func(p *Printer) {
			page := p.Page()
			page.Lines("a\nb\x1b\nc\nd\n")
			_ = p.Show(page)
		}, "a\nb\uFFFD\nc\nd\n\n", "\x1b[?7l\x1b[Ha\x1b[K\nb\uFFFD\x1b[K\n... 2 more lines: make the window higher\x1b[K\n\x1b[J\x1b[?7h"},
	} {
		for terminal, want := range map[bool]string{false: c.onFile, true: c.onTerminal} {
			p, out := on(terminal)
			c.print(p)
			if want == "" {
				want = c.onFile
			}
			if out.String() != want || p.Err() != nil {
				t.Errorf("%s, on a terminal %t: %q, %v, not %q", name, terminal, out, p.Err(), want)
			}
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestErr: the first error of writing is kept.
func TestErr(t *testing.T) {
	p := To(broken{})
	p.Line("a")
	if err := p.JSON(1); !errors.Is(err, io.ErrClosedPipe) || !errors.Is(p.Err(), io.ErrClosedPipe) {
		t.Errorf("%v, %v", err, p.Err())
	}
}
