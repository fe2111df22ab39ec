package printer

import (
	"io"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Writer prints what a log handler or the lab writes, each line made printable. What is written at once has to be
// whole lines, in which every line break is the writer's own. It is no place for a value.
func (p *Printer) Writer() io.Writer { return lineWriter{p.w} }

// lineWriter may be used by several goroutines, as far as the stream may.
type lineWriter struct{ w io.Writer }

func (l lineWriter) Write(text []byte) (int, error) {
	if _, err := io.WriteString(l.w, PrintableLines(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// PrintableLines is a text whose line breaks are its own, with each line made printable.
func PrintableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = model.Printable(line)
	}
	return strings.Join(lines, "\n")
}
