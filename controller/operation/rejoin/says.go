package rejoin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
)

// Says returns what the operator should know before a way back is taken.
func (c *Case) Says(ctx context.Context, way Method) ([]string, error) {
	keeps, err := c.Keeps(ctx, way)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]string{"the way back is " + string(way)}, keeps, c.Warnings(ctx)), nil
}

// Keeps returns texts for the question: what in the data folder stays as it is here, and what is removed.
func (c *Case) Keeps(ctx context.Context, way Method) ([]string, error) {
	if way != MethodRewind && way != MethodCopy || c.Place.HalfSwapped() { // the copy already has all files
		return nil, nil
	}
	own, err := c.Place.Own(ctx, postgres.Files(c.Conninfo)...)
	if err != nil {
		return nil, err
	}
	kept := cmp.Or(strings.Join(c.Place.Here(own), ", "), "nothing")
	says := []string{fmt.Sprintf("in %s stays as it is here: %s; all else comes from %s", c.Place.Data, kept, c.Primary)}
	if others := c.Place.Others(own); len(others) > 0 {
		says = append(says, "what is here and not there goes, also of: "+strings.Join(others, ", "))
	}
	if way != MethodCopy {
		return says, nil
	}
	lost, err := c.Place.Lost(ctx)
	if len(lost) > 0 {
		says = append(says, fmt.Sprintf("this host has no %s in its data folder: the copy keeps those of %s",
			strings.Join(lost, ", "), c.Primary))
	}
	if c.Return.Unseen != "" {
		says = append(says, fmt.Sprintf("whether %s has tablespaces is not known; each of them goes into the folder that it has there (%s)",
			c.Primary, c.Return.Unseen))
	}
	return says, err
}

// Warnings are texts on other resources: those that stop, move or restart because they need the database, and those
// that may start because the node's standby mode ends. They also say what is not known of the primary's files.
func (c *Case) Warnings(ctx context.Context) (warnings []string) {
	switch others, err := new(cib.Client).AlsoStops(ctx, c.Clone, c.Primitive, c.Node); {
	case err != nil:
		warnings = append(warnings, fmt.Sprintf("warning: it is not known which other resources stop with the database: %v", err))
	case len(others) > 0:
		warnings = append(warnings, "warning: other resources follow the database: "+strings.Join(others, "; "))
	}
	for _, why := range c.unsure {
		warnings = append(warnings, "warning: it is not known whether "+c.Primary+" can read all of its files: "+why)
	}
	if c.Standby {
		warnings = append(warnings, EndsStandby)
	}
	return warnings
}

// EndsStandby is the warning if this node is in Pacemaker's standby mode.
const EndsStandby = "warning: this node is in standby mode, which ends: other resources may start here, too"
