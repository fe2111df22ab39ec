package main

import (
	"os"
	"strings"
	"testing"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "32": 32 << 10, "64k": 64 << 10, "100M": 100 << 20, "1024M": 1 << 30} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"31", "1025M", "1G", "M", "-5M", "fast", "5 M"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// A line that is to be drawn over is gone before the next one comes.
func TestTerminal(t *testing.T) {
	var b strings.Builder
	out := &terminal{w: &b}
	out.report("a")
	out.redraw("1%")
	out.redraw("2%")
	out.report("b")
	out.report("c")
	if want := "a\n" + eraseLine + "1%" + eraseLine + "2%" + eraseLine + "b\nc\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if isTerminal(null) || isTerminal(&b) {
		t.Error("what is none is taken for a terminal")
	}
}
