package model

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable is a text that no terminal, log or service manager can take for a command or for a second line. White
// space, line breaks and tabs among it, becomes a blank. Whatever else unicode.IsPrint does not call printable becomes
// U+FFFD: escape sequences, C1 controls, marks that turn the direction of writing, invalid UTF-8. A text from a
// server, a CIB or a snapshot may hold any of these.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return utf8.RuneError
	}, text)
}

// Line is fmt.Sprintf with every value made Printable. The format is the program's own and stays as it is. Line
// replaces what is in args.
func Line(format string, args ...any) string {
	for i, a := range args {
		args[i] = printable{a}
	}
	return fmt.Sprintf(format, args...)
}

// printable is a value that is formatted as it is, and made Printable then, whatever its type.
type printable struct{ value any }

// Format implements fmt.Formatter.
func (p printable) Format(state fmt.State, verb rune) {
	_, _ = io.WriteString(state, Printable(fmt.Sprintf(fmt.FormatString(state, verb), p.value))) // a buffer of fmt's
}

// PrintableJSON is a document as encoding/json writes it, with everything escaped that is not printable. The values
// stay the same. encoding/json itself leaves DEL, C1 controls and marks of direction as they are.
func PrintableJSON(document []byte) []byte {
	var out []byte
	for len(document) > 0 {
		r, size := utf8.DecodeRune(document)
		document = document[size:]
		if r == '\n' || unicode.IsPrint(r) { // strings hold no bare line break
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}
