package printer

import (
	"io"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// Writer returns a writer for a log handler or the lab. It makes each line printable. Each Write must have whole lines,
// with no line break that comes from a value.
func (p *Printer) Writer() io.Writer { return lineWriter{p.w} }

// lineWriter may be used by several goroutines if the stream may.
type lineWriter struct{ w io.Writer }

func (l lineWriter) Write(text []byte) (int, error) {
	if _, err := io.WriteString(l.w, PrintableLines(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// PrintableLines returns a text with each line made printable. It keeps the line breaks.
func PrintableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = model.Printable(line)
	}
	return strings.Join(lines, "\n")
}
