package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// What was given up is named, also after a try that failed, and never said to be kept when some of it is not.
func TestPrintGivenUp(t *testing.T) {
	given := &model.GivenUp{Timeline: 3, From: 0x1000, To: 0x2000, Bytes: 0x1000, Folder: "/kept/here", Short: "WAL from 0/1000 to 0/1800 is no longer here"}
	for name, remembered := range map[string]model.AutoRejoin{
		"returned": {Last: &model.Returned{Way: "copy", GivenUp: given}},
		"failed":   {Tries: 1, GivenUp: given},
	} {
		var text bytes.Buffer
		printAutoRejoin(printer.To(&text), &controller.AutoRejoinStatus{Dearest: model.DearestCopy, AutoRejoin: remembered}, false)
		said := strings.Join(strings.Fields(text.String()), " ")
		if want := "not all of it is kept in /kept/here: " + given.Short; !strings.Contains(said, want) || strings.Contains(said, "; it is kept") {
			t.Errorf("%s: %s", name, said)
		}
	}
}
