package printer

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
)

// Printer prints on a terminal, in colour and broken at its width, or on a file or pipe, without colour and in whole
// lines.
type Printer struct {
	w             io.Writer
	err           error // the first write error
	terminal      bool
	colour        bool
	width, height int
	drawn         bool // the cursor is behind a line that Redraw left
}

// Out returns a Printer on a command's standard output.
func Out(cmd *cobra.Command) *Printer { return To(cmd.OutOrStdout()) }

// Stdout returns a Printer on the program's standard output.
func Stdout() *Printer { return To(os.Stdout) }

// Errors returns a Printer on standard error.
func Errors() *Printer { return To(os.Stderr) }

// To returns a Printer on a stream. It honours NO_COLOR (https://no-color.org).
func To(w io.Writer) *Printer {
	p := &Printer{w: w}
	f, ok := w.(*os.File)
	if !ok {
		return p
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return p
	}
	p.terminal, p.width, p.height = true, int(size.Col), int(size.Row)
	p.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return p
}

// Err returns the first write error.
func (p *Printer) Err() error { return p.err }

// Terminal reports whether it prints on a terminal, where lines can be drawn over.
func (p *Printer) Terminal() bool { return p.terminal }

// Line prints a line. It replaces a line that Redraw left.
func (p *Printer) Line(format string, args ...any) { p.write(model.Line(format, args...) + "\n") }

// Report prints a value as a line of its own.
func (p *Printer) Report(line string) { p.Line("%s", line) }

// Lines prints a text whose line breaks are its own: a plan, a log, a document.
func (p *Printer) Lines(text string) { p.write(PrintableLines(text)) }

// Ask prints a question, and leaves the cursor behind it.
func (p *Printer) Ask(question string) { p.write(model.Printable(question) + " ") }

// Wrapped prints a line in a colour, broken at spaces where the terminal ends.
func (p *Printer) Wrapped(c Colour, format string, args ...any) {
	p.write(p.paint(c, p.wrap(0, model.Line(format, args...))) + "\n")
}

// Titled is Wrapped with a title in front, which stands out.
func (p *Printer) Titled(title string, c Colour, format string, args ...any) {
	title = model.Printable(title)
	text := p.wrap(utf8.RuneCountInString(title), " "+model.Line(format, args...))
	p.write(p.paint(Bold, title) + p.paint(c, text) + "\n")
}

// JSON prints a value as an indented document.
func (p *Printer) JSON(v any) error {
	document, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	p.write(string(model.PrintableJSON(document)) + "\n")
	return p.err
}

// Error prints an error on one line, between the program's name and a help text.
func (p *Printer) Error(program string, err error, help string) {
	p.Line("%s: %s%s", program, OneLine(err), help)
}

// OneLine returns an error's text on one line. A semicolon separates errors that were joined.
func OneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if part := strings.Join(strings.Fields(model.Printable(line)), " "); part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "; ")
}

const eraseLine = "\r\x1b[K"

// Redraw prints a line that the next output replaces. It cuts the line to the terminal's width: a wider one cannot be
// replaced.
func (p *Printer) Redraw(line string) {
	runes := []rune(model.Printable(line))
	if p.width > 1 {
		runes = runes[:min(len(runes), p.width-1)]
	}
	p.drawn = false
	p.write(eraseLine + string(runes))
	p.drawn = true
}

// Page returns a Printer that keeps what is printed, for Show.
func (p *Printer) Page() *Printer {
	page := *p
	page.w, page.err, page.drawn = &strings.Builder{}, nil, false
	return &page
}

// Show replaces the last page by this one. On a file or a pipe it prints the page and an empty line.
func (p *Printer) Show(page *Printer) error {
	text := page.w.(*strings.Builder).String()
	if !p.terminal {
		p.write(text + "\n")
		return p.err
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if room := p.height - 1; room > 1 && len(lines) > room {
		lines = append(lines[:room-1], fmt.Sprintf("... %d more lines: make the window higher", len(lines)-room+1))
	}
	const home, restOfLine, restOfPage = "\x1b[H", "\x1b[K", "\x1b[J"
	const cutLines, wrapLines = "\x1b[?7l", "\x1b[?7h" // a table that is too wide must not become higher
	p.write(cutLines + home + strings.Join(lines, restOfLine+"\n") + restOfLine + "\n" + restOfPage + wrapLines)
	return p.err
}

// write writes what is printable, with the printer's own line breaks and colours.
func (p *Printer) write(text string) {
	if p.drawn {
		text, p.drawn = eraseLine+text, false
	}
	if p.err == nil {
		p.err = writeTo(p.w, text)
	}
}

// wrap breaks a text at spaces where the terminal ends, and indents the new lines. column is where the text begins.
func (p *Printer) wrap(column int, text string) string {
	const indent = "  "
	if !p.terminal || p.width < 40 {
		return text
	}
	var b strings.Builder
	for i, word := range strings.Split(text, " ") {
		length := utf8.RuneCountInString(word)
		switch {
		case i > 0 && column+1+length > p.width:
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
