package cib

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/pgrex/pgrex/model"
)

// apiVersion is what we know of Pacemaker's XML: within a major version of its output's schema things are only added
// (Pacemaker, xml/README.md). Pacemaker 2.0.3 writes 2.0, 3.0.0 writes 2.38.
var apiVersion = regexp.MustCompile(`^2\.[0-9]+$`)

// report is what crm_mon says of a CIB.
type report struct {
	dc          string
	maintenance bool
	// fencing: nodes that are lost are to be fenced. Then crm_mon tells what ran on one until it is.
	fencing bool
	nodes   []model.Node // without attributes
	clones  map[string]reportedClone
}

// reportedClone is a clone with its instances.
type reportedClone struct {
	promotable bool
	isManaged  bool
	instances  []instance
}

// instance is one of a clone's primitives on one node, on none while it is stopped, or on several if Pacemaker has
// found it active there. ID may end in ":" and a number. Attributes that a release does not print are false.
type instance struct {
	ID             string `xml:"id,attr"`
	Role           string `xml:"role,attr"`
	Managed        bool   `xml:"managed,attr"`
	Blocked        bool   `xml:"blocked,attr"`
	Failed         bool   `xml:"failed,attr"`
	FailureIgnored bool   `xml:"failure_ignored,attr"`
	Orphaned       bool   `xml:"orphaned,attr"`
	Removed        bool   `xml:"removed,attr"` // since 3.0.2: orphaned
	Pending        string `xml:"pending,attr"`
	Nodes          []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

// answer is crm_mon's XML (Pacemaker, xml/api/crm_mon-*.rng).
type answer struct {
	XMLName xml.Name `xml:"pacemaker-result"`
	API     string   `xml:"api-version,attr"`
	Status  *struct {
		Code    string   `xml:"code,attr"`
		Message string   `xml:"message,attr"`
		Errors  []string `xml:"errors>error"`
	} `xml:"status"`
	DC struct {
		Name string `xml:"name,attr"`
	} `xml:"summary>current_dc"`
	Options struct {
		Maintenance bool `xml:"maintenance-mode,attr"`
		STONITH     bool `xml:"stonith-enabled,attr"`
		Fencing     bool `xml:"fencing-enabled,attr"` // its name since 3.0.2
	} `xml:"summary>cluster_options"`
	Nodes *struct {
		Nodes []struct {
			Name        string `xml:"name,attr"`
			ID          string `xml:"id,attr"`
			Online      bool   `xml:"online,attr"`
			Standby     bool   `xml:"standby,attr"`
			Maintenance bool   `xml:"maintenance,attr"`
			Pending     bool   `xml:"pending,attr"`
			Unclean     bool   `xml:"unclean,attr"`
		} `xml:"node"`
	} `xml:"nodes"`
	Clones []struct {
		ID         string     `xml:"id,attr"`
		Promotable bool       `xml:"multi_state,attr"`
		Managed    bool       `xml:"managed,attr"`
		Instances  []instance `xml:"resource"`
		Grouped    []instance `xml:"group>resource"`
	} `xml:"resources>clone"`
}

// readReport reads the answer of crm_mon --output-as=xml. Its errors are ErrUnparseable. An exit status of 0 does not
// prove that crm_mon has read the CIB: 2.1.5 also exits with 0 where it could not.
func readReport(data []byte) (report, error) {
	var a answer
	decoder := xml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&a); err != nil {
		if errors.Is(err, io.EOF) {
			return report{}, notUnderstood("it is empty or cut off")
		}
		return report{}, notUnderstood("it is not Pacemaker's XML, or cut off: %v", err)
	}
	switch rest := data[decoder.InputOffset():]; {
	case len(bytes.TrimSpace(rest)) > 0:
		return report{}, notUnderstood("more follows after it")
	case a.Status == nil:
		return report{}, notUnderstood("it has no status")
	case !apiVersion.MatchString(a.API):
		return report{}, notUnderstood("its api-version is %q, and this pgrex knows 2; use a newer pgrex", a.API)
	case a.Status.Code != "0" || len(a.Status.Errors) > 0 || a.Nodes == nil:
		return report{}, notUnderstood("it has status %s, %s: %s", a.Status.Code, a.Status.Message, strings.Join(a.Status.Errors, "; "))
	}
	r := report{
		dc: a.DC.Name, maintenance: a.Options.Maintenance, fencing: a.Options.STONITH || a.Options.Fencing,
		clones: map[string]reportedClone{},
	}
	for _, n := range a.Nodes.Nodes {
		r.nodes = append(r.nodes, model.Node{
			Name: n.Name, ID: n.ID, Online: n.Online, Standby: n.Standby,
			Maintenance: n.Maintenance, Pending: n.Pending, Unclean: n.Unclean,
		})
	}
	for _, c := range a.Clones {
		r.clones[c.ID] = reportedClone{c.Promotable, c.Managed, append(c.Instances, c.Grouped...)}
	}
	return r, nil
}

func notUnderstood(format string, args ...any) error {
	return unparseable("crm_mon's answer is not understood: "+format, args...)
}
