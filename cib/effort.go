package cib

import (
	"iter"

	"github.com/beevik/etree"
)

// What a CIB refers to is looked at again for each reference, so that a small one could take very long. Parse therefore
// has an effort that it may make: effortBase, and effortPerByte for each byte of the CIB. It is counted in bytes
// looked at, each time they are. A real CIB takes about 3 a byte.
const (
	effortBase    = 4 << 20
	effortPerByte = 32
)

// What is not a matter of bytes is counted by the memory that it takes.
const (
	effortStep    = 16   // passing by
	effortElement = 32   // looking at one; and as much for each attribute as it is long
	effortRole    = 128  // what one clone does on one node
	effortReplica = 1024 // of a bundle: a container, a node and the connection to it
)

// spend counts effort, and tells whether there may be more of it. Parse fails once there may not.
func (w *workingSet) spend(effort int) bool {
	w.effort -= effort
	return w.effort >= 0
}

// size is the effort of looking at an element.
func size(e *etree.Element) int {
	n := effortElement
	for i := range e.Attr {
		n += len(e.Attr[i].Key) + len(e.Attr[i].Value)
	}
	return n
}

// children gives e's child elements, or those with one of the tags, in document order. e may be nil.
func (w *workingSet) children(e *etree.Element, tags ...string) iter.Seq[*etree.Element] {
	return func(yield func(*etree.Element) bool) {
		if e == nil {
			return
		}
		for _, token := range e.Child {
			if !w.spend(effortStep) {
				return
			}
			if c, ok := token.(*etree.Element); ok && hasTag(c, tags) && (!w.spend(size(c)) || !yield(c)) {
				return
			}
		}
	}
}

func hasTag(e *etree.Element, tags []string) bool {
	for _, tag := range tags {
		if e.Tag == tag && e.Space == "" {
			return true
		}
	}
	return len(tags) == 0
}

// child is e's first child element with the tag, or nil.
func (w *workingSet) child(e *etree.Element, tag string) *etree.Element {
	for c := range w.children(e, tag) {
		return c
	}
	return nil
}
