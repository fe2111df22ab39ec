package cib

import (
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// attr is the value of e's attribute, "" when there is none or e is nil.
func attr(e *etree.Element, key string) string {
	v, _ := lookupAttr(e, key)
	return v
}

func lookupAttr(e *etree.Element, key string) (string, bool) {
	if e == nil {
		return "", false
	}
	for i := range e.Attr {
		if a := &e.Attr[i]; a.Key == key && a.Space == "" {
			return a.Value, true
		}
	}
	return "", false
}

// isTrue reads a boolean as crm_is_true does: what is not known to be true is false.
func isTrue(s string) bool {
	value, _ := model.ParseBool(s)
	return value
}

// integer reads a decimal number; fallback where there is none.
func integer(s string, fallback int) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return fallback
	}
	return n
}

// infinity is Pacemaker's: scores and counts are limited to it.
const infinity = 1000000

// score reads a score as char2score does.
func score(s string) int {
	switch strings.ToLower(s) {
	case "infinity", "+infinity":
		return infinity
	case "-infinity":
		return -infinity
	}
	return max(-infinity, min(infinity, integer(s, 0)))
}

// milliseconds reads an interval as crm_parse_interval_spec does: "10", "10s", "1min", "500ms", "PT1M30S".
func milliseconds(s string) int {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "P") {
		return isoMilliseconds(s[1:])
	}
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	n, err := strconv.Atoi(s[:digits])
	if err != nil || n > maxInterval {
		return 0
	}
	unit := strings.ToLower(strings.TrimSpace(strings.TrimLeft(s[digits:], ".0123456789")))
	switch {
	case strings.HasPrefix(unit, "ms"):
		return n
	case strings.HasPrefix(unit, "us"):
		return n / 1000
	case strings.HasPrefix(unit, "m"):
		return n * 60 * 1000
	case strings.HasPrefix(unit, "h"):
		return n * 60 * 60 * 1000
	case unit == "" || strings.HasPrefix(unit, "s"):
		return n * 1000
	}
	return 0
}

// maxInterval is the longest interval that is still told apart: 2^31 ms or s, beyond what Pacemaker can hold.
const maxInterval = 1 << 31

// isoMilliseconds reads what follows the P of an ISO 8601 duration. Months and years do not occur in intervals.
func isoMilliseconds(s string) int {
	units := map[rune]int{'W': 7 * 24 * 3600, 'D': 24 * 3600, 'H': 3600, 'M': 60, 'S': 1}
	seconds, n := 0, 0
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9' && n < maxInterval && seconds < maxInterval:
			n = n*10 + int(r-'0')
		case r == 'T':
		case units[r] != 0 && n < maxInterval:
			seconds, n = seconds+n*units[r], 0
		default:
			return 0
		}
	}
	return seconds * 1000
}
