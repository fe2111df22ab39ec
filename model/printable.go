package model

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable returns a text that no terminal, log or service manager can take for a command or for a second line. White
// space, such as a line break or a tab, becomes a blank. What else is not printable (unicode.IsPrint) becomes U+FFFD:
// the escape character, C1 controls, marks that change the direction of writing, invalid UTF-8. A text from a server, a
// CIB or a snapshot may hold any of these.
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
// overwrites the elements of args.
func Line(format string, args ...any) string {
	for i, a := range args {
		args[i] = printable{a}
	}
	return fmt.Sprintf(format, args...)
}

// printable formats a value of any type as fmt does, and then makes the text Printable.
type printable struct{ value any }

// Format implements fmt.Formatter.
func (p printable) Format(state fmt.State, verb rune) {
	_, _ = io.WriteString(state, Printable(fmt.Sprintf(fmt.FormatString(state, verb), p.value))) // a buffer of fmt's
}

// PrintableJSON returns a document that encoding/json has written, with everything escaped that is not printable. The
// values stay the same. encoding/json itself leaves DEL, C1 controls and marks of direction as they are.
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
