package model

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const someValue = "0123456789abcdef0123456789abcdef"

// drawToken is any token that an operation could make.
func drawToken(t *rapid.T) Token {
	host := rapid.StringMatching(`[!-~äß]{1,20}`)
	token := Token{
		Operation: rapid.StringMatching(`[a-z-]{1,12}`).Draw(t, "operation"), Host: host.Draw(t, "host"),
		Phase: rapid.SampledFrom([]Phase{PhaseBegun, PhaseMaintenance, PhaseGiven}).Draw(t, "phase"),
		Value: rapid.StringMatching(`[0-9a-f]{32}`).Draw(t, "value"),
		Begun: time.Unix(rapid.Int64Range(0, 1<<37).Draw(t, "begun"), 0).UTC(),
	}
	if rapid.Bool().Draw(t, "about another host") {
		token.Target = host.Draw(t, "target")
	}
	return token
}

// What String writes ParseToken reads, and gets the same token.
func TestTokenIsReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawToken(t)
		got, err := ParseToken(want.String())
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	})
}

// A token with a byte more, fewer or another one is either refused, or is written just as it was read.
func TestTokenIsReadStrictly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawToken(t).String()
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		instead := rapid.SampledFrom([]string{"", " ", "=", "\n", "\xff", "A", " host=x"}).Draw(t, "instead")
		text = text[:at] + instead + text[at+1:]
		if got, err := ParseToken(text); err == nil && got.String() != text {
			t.Errorf("%q is read as %q", text, got)
		}
	})
}

func TestTokenText(t *testing.T) {
	const text = "switchover host=pm01 target=pm02 phase=begun begun=2026-11-30T03:20:11Z value=" + someValue
	token := Token{
		Operation: "switchover", Host: "pm01", Target: "pm02", Phase: PhaseBegun, Value: someValue,
		Begun: time.Date(2026, 11, 30, 4, 20, 11, 999, time.FixedZone("", 3600)),
	}
	if token.String() != text {
		t.Errorf("%s", token)
	}
	for _, wrong := range []string{
		"", " ", "switchover",
		strings.Replace(text, "switchover", "", 1), strings.Replace(text, "switchover", "Switchover", 1),
		text + " ", " " + text, text + " x=1", text + " host=pm03", strings.Replace(text, "host=pm01", "host=", 1),
		strings.Replace(text, " target=pm02", " target=", 1), strings.Replace(text, "phase=begun", "phase=over", 1),
		strings.Replace(text, "Z", "+00:00", 1), strings.Replace(text, "11Z", "11.5Z", 1), strings.Replace(text, "T", " ", 1),
		strings.Replace(text, "2026", "10026", 1), strings.ToUpper(text), text[:len(text)-1], text + "0",
		strings.Replace(text, "host=pm01 target=pm02", "target=pm02 host=pm01", 1), strings.Replace(text, " ", "\t", 1),
		strings.Replace(text, "pm01", "pm\x1b01", 1),
	} {
		if got, err := ParseToken(wrong); err == nil || got != (Token{}) {
			t.Errorf("%q: %+v, %v", wrong, got, err)
		}
	}
}

func TestTokenOfACluster(t *testing.T) {
	c := Cluster{Properties: map[string]string{
		"pgrex-operation-pgsql": "rejoin host=pm01 phase=given begun=2026-11-30T03:20:11Z value=" + someValue,
		"pgrex-operation-other": "nonsense",
	}}
	if got, there, err := c.Token("pgsql"); !there || err != nil || got.What() != "rejoin" || got.Phase != PhaseGiven {
		t.Errorf("%+v, %t, %v", got, there, err)
	}
	if _, there, err := c.Token("other"); !there || err == nil {
		t.Errorf("nonsense: %t, %v", there, err)
	}
	if _, there, err := c.Token("third"); there || err != nil {
		t.Errorf("none: %t, %v", there, err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("switchover host=pm01 target=pm02 phase=begun begun=2026-11-30T03:20:11Z value=" + someValue)
	f.Add("host= =")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != text {
			t.Errorf("%q is read as %q", text, token)
		}
	})
}
