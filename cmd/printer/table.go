package printer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pgrex/pgrex/model"
)

// Colour is a colour or style of text, by its number in ECMA-48, SGR.
type Colour int

// The colours.
const (
	Plain  Colour = 0
	Bold   Colour = 1
	Dim    Colour = 2
	Red    Colour = 31
	Green  Colour = 32
	Yellow Colour = 33
)

func (p *Printer) paint(c Colour, text string) string {
	if !p.colour || c == Plain || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

// Cell is one field of a table's row, with its colour.
type Cell struct {
	text   string
	colour Colour
}

// In returns a cell with a text in that colour.
func (c Colour) In(text string) Cell { return Cell{model.Printable(text), c} }

// Table is rows of cells.
type Table [][]Cell

// Head adds a row with the names of the columns.
func (t *Table) Head(names ...string) {
	var row []Cell
	for _, n := range names {
		row = append(row, Bold.In(n))
	}
	t.Row(row...)
}

// Row adds a row.
func (t *Table) Row(cells ...Cell) { *t = append(*t, cells) }

// Text adds a row without colours.
func (t *Table) Text(texts ...string) {
	var row []Cell
	for _, text := range texts {
		row = append(row, Plain.In(text))
	}
	t.Row(row...)
}

// Table prints a table, each column as wide as its widest cell. The last cell of a row does not count.
func (p *Printer) Table(t Table) {
	widths := map[int]int{}
	for _, row := range t {
		for i, c := range row[:max(0, len(row)-1)] {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t {
		line := ""
		for i, c := range row {
			line += p.paint(c.colour, c.text)
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2)
			}
		}
		p.write(strings.TrimRight(line, " ") + "\n")
	}
}
