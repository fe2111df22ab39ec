package cib

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"github.com/beevik/etree"
)

// MaxSize is the largest CIB that is read, in bytes. A CIB of a hundred nodes and a thousand resources has about 10 MiB.
const MaxSize = 16 << 20

// Further limits of what is read. Real CIBs stay far below: 9 levels, an element every 130 bytes.
const (
	maxDepth  = 64
	maxTags   = 1_000_000 // start and end tags, comments
	maxEquals = 1_500_000 // attributes, and "=" within values
)

const queryAgain = "query it again with cibadmin --query"

// readDocument checks the limits before any memory is spent, then reads the XML.
func readDocument(data []byte) (*etree.Element, error) {
	switch {
	case len(data) > MaxSize:
		return nil, unparseable("it has %d bytes, more than the limit of %d; is this a CIB?", len(data), MaxSize)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, unparseable("it is empty; %s", queryAgain)
	case bytes.Count(data, []byte("<")) > maxTags, bytes.Count(data, []byte("=")) > maxEquals:
		return nil, unparseable("it has more than %d tags or %d attributes; is this a CIB?", maxTags, maxEquals)
	}
	doc, err := readTree(data)
	if err != nil {
		return nil, err
	}
	root := doc.Root()
	switch {
	case root == nil:
		return nil, unparseable("it is not XML; %s", queryAgain)
	case root.Tag != "cib" || root.Space != "":
		return nil, unparseable("its root element is <%s> and not <cib>; query the whole CIB with cibadmin --query", root.FullTag())
	case len(doc.ChildElements()) > 1:
		return nil, unparseable("more follows after </cib>; %s", queryAgain)
	case len(doc.Child) > 1:
		return nil, unparseable("there is text beside <cib>; %s", queryAgain)
	}
	return root, nil
}

// readTree reads elements and their attributes, and text where there should be none: beside the root. The loop is that
// of etree's ReadFrom, whose tree takes a third more time and memory: it grows the attributes of every element one by
// one, and keeps the white space between elements.
func readTree(data []byte) (*etree.Document, error) {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	decoder.CharsetReader = onlyUTF8
	doc := etree.NewDocument()
	for top, depth := &doc.Element, 0; ; {
		token, err := decoder.RawToken()
		if err != nil {
			if errors.Is(err, io.EOF) && depth == 0 {
				return doc, nil
			}
			return nil, syntaxProblem(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return nil, unparseable("its elements are nested more than %d deep; is this a CIB?", maxDepth)
			}
			e := newElement(t)
			top.AddChild(e)
			top = e
		case xml.EndElement:
			if top.Tag != t.Name.Local || top.Space != t.Name.Space {
				return nil, syntaxProblem(io.ErrUnexpectedEOF)
			}
			top, depth = top.Parent(), depth-1
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(t)) > 0 {
				top.CreateText(string(t))
			}
		}
	}
}

func newElement(start xml.StartElement) *etree.Element {
	e := &etree.Element{Space: start.Name.Space, Tag: start.Name.Local, Attr: make([]etree.Attr, len(start.Attr))}
	for i, a := range start.Attr {
		e.Attr[i] = etree.Attr{Space: a.Name.Space, Key: a.Name.Local, Value: a.Value}
	}
	return e
}

// syntaxProblem puts an error of the XML decoder into the user's words.
func syntaxProblem(err error) error {
	if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "unexpected EOF") {
		return unparseable("it is cut off, or its tags do not match; %s", queryAgain)
	}
	return unparseable("it is not XML (%s); %s", oneLine(err.Error()), queryAgain)
}

// onlyUTF8 refuses other encodings: names that were decoded wrongly would match no host.
func onlyUTF8(charset string, input io.Reader) (io.Reader, error) {
	if strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii") {
		return input, nil
	}
	return nil, errors.New("its encoding is not UTF-8")
}
