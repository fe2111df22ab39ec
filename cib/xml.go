package cib

import (
	"iter"
	"slices"
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

// children yields e's child elements, or those with one of the tags, in document order. e may be nil.
func children(e *etree.Element, tags ...string) iter.Seq[*etree.Element] {
	return func(yield func(*etree.Element) bool) {
		if e == nil {
			return
		}
		for _, token := range e.Child {
			c, ok := token.(*etree.Element)
			if ok && (len(tags) == 0 || c.Space == "" && slices.Contains(tags, c.Tag)) && !yield(c) {
				return
			}
		}
	}
}

// child is e's first child element with the tag, or nil.
func child(e *etree.Element, tag string) *etree.Element {
	for c := range children(e, tag) {
		return c
	}
	return nil
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
