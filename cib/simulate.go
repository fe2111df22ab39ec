package cib

import (
	"context"
	"encoding/xml"
	"slices"

	"github.com/beevik/etree"

	"github.com/pgrex/pgrex/model"
)

// simulator is the tool that asks Pacemaker's scheduler what it would do. The tool writes the CIB that it gets into a
// file in CIB_shadow_dir.
const simulator = "crm_simulate"

// AlsoStops asks Pacemaker which other resources would stop, move or restart if a primitive's clone is kept away from a
// node (KeepAway): those in a group with it, colocated with it, or ordered after it. It returns a few words about each.
// What Pacemaker would do anyway does not count. Its errors are those of Read.
func (c *Client) AlsoStops(ctx context.Context, clone, primitive, node string) ([]string, error) {
	data, err := c.query(ctx)
	if err != nil {
		return nil, err
	}
	d, err := parse(data)
	if err != nil {
		return nil, err
	}
	d.constrain(keptAway(clone, primitive, node))
	after, err := c.simulate(ctx, []byte(text(d.root)))
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(after, func(a scheduled) bool {
		itself := instanceOf(a.Resource) == primitive && model.SameNode(a.from(), node)
		return itself || !a.disturbs()
	})
	if len(others) == 0 {
		return nil, nil
	}
	anyway, err := c.simulate(ctx, data)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, a := range others {
		if !slices.Contains(anyway, a) {
			texts = append(texts, a.String())
		}
	}
	return texts, nil
}

// constrain adds a constraint, unless one with its id is there.
func (d *document) constrain(constraint *etree.Element) {
	all := child(d.configuration, constraints)
	if all == nil {
		all = d.configuration.CreateElement(constraints)
	}
	for e := range children(all, constraint.Tag) {
		if attr(e, "id") == attr(constraint, "id") {
			return
		}
	}
	all.AddChild(constraint)
}

// scheduled is one action that the scheduler would take on a resource (Pacemaker, xml/api/crm_simulate-*.rng).
type scheduled struct {
	Action   string `xml:"action,attr"`
	Resource string `xml:"resource,attr"`
	Node     string `xml:"node,attr"`
	Source   string `xml:"source,attr"`
	Dest     string `xml:"dest,attr"`
}

// disturbs reports whether the action stops or changes a resource that is active. A start or a promotion does not.
func (a scheduled) disturbs() bool { return a.Action != "start" && a.Action != "promote" }

// from is the node where the resource is before the action.
func (a scheduled) from() string { return orElse(a.Source, a.Node) }

func (a scheduled) String() string {
	what := instanceOf(a.Resource) + " on " + a.from() + ": " + a.Action
	if a.Dest != "" {
		what += " to " + a.Dest
	}
	return what
}

// simulate returns what the scheduler would do with a CIB.
func (c *Client) simulate(ctx context.Context, data []byte) ([]scheduled, error) {
	answer, err := c.simulation(ctx, data, "--run")
	return answer.Actions, err
}

// simulation is what the simulator answers.
type simulation struct {
	XMLName xml.Name    `xml:"pacemaker-result"`
	API     string      `xml:"api-version,attr"`
	Actions []scheduled `xml:"actions>rsc_action"`
	// Transition has every action, recurring monitors too. Only --simulate prints it.
	Transition struct {
		Actions []executed `xml:",any"`
	} `xml:"transition"`
	Status *struct {
		Code string `xml:"code,attr"`
	} `xml:"status"`
}

// executed is one action of a transition.
type executed struct {
	XMLName xml.Name
	Op      string `xml:"op,attr"`
}

// simulation asks the simulator about a CIB.
func (c *Client) simulation(ctx context.Context, data []byte, how string) (answer simulation, err error) {
	path := orElse(c.CrmSimulate, simulator)
	out, err := c.askAbout(ctx, data, maxReport, path, how, "--xml-pipe", "--output-as=xml")
	if err != nil {
		return simulation{}, err
	}
	err = xml.Unmarshal(out, &answer)
	if err != nil || !apiVersion.MatchString(answer.API) || answer.Status == nil || answer.Status.Code != "0" {
		return simulation{}, unparseable("the answer of %s is not understood (api-version %q): %v", path, answer.API, err)
	}
	return answer, nil
}
