package model

import (
	"encoding/json"
	"fmt"
	"strings"
)

// FormatBytes writes a size for people, in powers of 1024: "0 B", "16.0 MiB".
func FormatBytes(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v /= 1024
		u++
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

// FormatVersion writes PostgreSQL's server_version_num as people know it: "15.20"; "" where it is not known.
func FormatVersion(number int) string {
	if number <= 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", number/10000, number%10000)
}

// MarshalJSON encodes a plan with each step's kind and text, and the recheck in seconds.
func (p Plan) MarshalJSON() ([]byte, error) {
	type step struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
		Step Step   `json:"step"`
	}
	doc := struct {
		Host     string     `json:"host"`
		Standing Standing   `json:"standing"`
		Steps    []step     `json:"steps"`
		Findings []Finding  `json:"findings"`
		Forecast []Forecast `json:"forecast"`
		Recheck  float64    `json:"recheck_after_seconds"`
	}{p.Host, p.Standing, []step{}, p.Findings, p.Forecast, p.RecheckAfter.Seconds()}
	for _, s := range p.Steps {
		doc.Steps = append(doc.Steps, step{s.Kind(), s.Text(), s})
	}
	if doc.Findings == nil {
		doc.Findings = []Finding{}
	}
	if doc.Forecast == nil {
		doc.Forecast = []Forecast{}
	}
	return json.Marshal(doc)
}

// String writes a plan for people to review, a line each: what is done and why, then what is found. Its values are made
// Printable. It ends in a newline.
func (p Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(Line(format, args...) + "\n") }
	line("%s is %s: %s, %s", p.Host, p.Standing, count(len(p.Steps), "step"), count(len(p.Findings), "finding"))
	for i, s := range p.Steps {
		line("  %d. %s %s", i+1, s.Kind(), s.Text())
		line("     because %s", s.Why().Text)
	}
	for _, f := range p.Findings {
		subject := ""
		if f.Subject != "" {
			subject = " (" + f.Subject + ")"
		}
		line("  %s %s%s: %s", f.Severity, f.Code, subject, f.Text)
	}
	return b.String()
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
