package model_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pgrex/pgrex/model"
)

// TestPrintable: trap 44. No text from outside is a command to a terminal, or a second line.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"slot pgrex_pm01: 75 % ü 表": "slot pgrex_pm01: 75 % ü 表",
		"a\x1b[31mb\x1b]0;title\a":  "a\uFFFD[31mb\uFFFD]0;title\uFFFD",
		"a\r\nb\tc\vd\fe":           "a  b c d e",
		"a\u0085b\u2028c\u2029d":    "a b c d",
		"a\u009b31mb\u009dc":        "a\uFFFD31mb\uFFFDc",
		"a\u202eb\u2066c\u200bd":    "a\uFFFDb\uFFFDc\uFFFDd",
		"a\x00\x07\x08\x7fb":        "a\uFFFD\uFFFD\uFFFD\uFFFDb",
		"a\xff\xc2b\xed\xa0\x80":    "a\uFFFD\uFFFDb\uFFFD\uFFFD\uFFFD",
		"a\U000e0041\ue000b":        "a\uFFFD\uFFFDb",
	} {
		if got := model.Printable(text); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
	}
}

type named string

type stringer struct{}

func (stringer) String() string { return "s\x1b" }

// TestLine: whatever the type of a value, what comes of it is printable; the verb and its flags hold.
func TestLine(t *testing.T) {
	got := model.Line("%s|%-4s|%v|%v|%v|%q|%d|%5.1f|%+v\n", "a\nb", "\x1b", named("\u009b"), errors.New("\r"), stringer{}, []string{"\x7f"}, 7, 1.25,
		struct{ A string }{"\u202e"})
	if want := "a b|\uFFFD   |\uFFFD| |s\uFFFD|[\"\\x7f\"]|7|  1.2|{A:\uFFFD}\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\u0085\u202e\xff\U000e0041<&>\\")
	f.Fuzz(func(t *testing.T, text string) {
		got := model.Printable(text)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(got) ||
			utf8.RuneCountInString(got) != utf8.RuneCountInString(text) || model.Printable(got) != got {
			t.Errorf("%q becomes %q", text, got)
		}
		document, err := json.MarshalIndent(map[string]string{text: text}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		escaped := model.PrintableJSON(document)
		if strings.ContainsFunc(string(escaped), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q becomes %q", document, escaped)
		}
		var before, after any
		if err := errors.Join(json.Unmarshal(document, &before), json.Unmarshal(escaped, &after)); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q becomes %q: %v", document, escaped, err)
		}
	})
}
