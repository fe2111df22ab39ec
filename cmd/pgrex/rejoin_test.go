package main

import (
	"context"
	"io"
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

// TestIsTerminal: a device that is none is told from one.
func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if isTerminal(null) || isTerminal(&strings.Builder{}) {
		t.Error("what is none is taken for a terminal")
	}
}

// An interrupt at the question is an answer.
func TestConsents(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES \n": true, "\n": false, "no\n": false, "": false, "yess\n": false} {
		if got := consents(t.Context(), strings.NewReader(answer)); got != want {
			t.Errorf("%q is a yes: %t", answer, got)
		}
	}
	silent, terminal := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if consents(ctx, silent) {
		t.Error("an interrupt is a yes")
	}
	_ = terminal.Close()
}
