package rejoin

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
)

// contents reads what a copy of the primary brings.
func (c *Case) contents(ctx context.Context, source *postgres.Source) error {
	segment, most, err := source.WALSizes(ctx)
	if err != nil {
		return err
	}
	local := &c.Return.Local
	local.Segment, local.WAL = cmp.Or(local.Segment, segment), cmp.Or(local.WAL, most)
	database, err := postgres.OpenSourceDatabase(ctx, c.Conninfo)
	var contents postgres.Contents
	if err == nil {
		defer database.Close()
		err = during(c.show, "measuring the databases of "+c.Primary, nil, func() (err error) {
			contents, err = database.Contents(ctx)
			return err
		})
	}
	switch class := postgres.ClassOf(err); {
	case class == postgres.Permission || class == postgres.Configuration:
		c.Return.Unseen = err.Error()
		here, err := c.Place.Linked()
		if len(here) > 0 {
			local.NoCopy = cmp.Or(local.NoCopy, "the database has tablespaces, and where the primary has them is "+
				"not known: "+c.Return.Unseen)
		}
		return err
	case err != nil:
		return err
	}
	c.Return.Bytes, c.Return.Unmeasured, c.spaces = contents.Bytes, contents.Unmeasured, contents.Tablespaces
	return c.tablespaces()
}

// tablespaces finds out where the primary's tablespaces would be here.
func (c *Case) tablespaces() (err error) {
	r := &c.Return
	if c.Folders, r.NoFolder, err = c.Place.Lacks(c.spaces); err != nil {
		return err
	}
	if r.Taken, err = c.Place.Taken(c.spaces); err != nil {
		return err
	}
	var why string
	if c.fresh, why, err = c.Place.Fresh(c.spaces); err != nil {
		return err
	}
	r.Local.NoCopy = cmp.Or(r.Local.NoCopy, why)
	for _, f := range c.fresh {
		s := Space{Name: f.Name, Folder: f.Folder, Bytes: f.Bytes}
		if s.FileSystem, s.Free, err = datadir.Disk(f.Folder); err != nil {
			return err
		}
		r.Spaces = append(r.Spaces, s)
	}
	return nil
}

// with returns a list with further words, each of them once.
func with(list []string, further ...string) []string {
	list = slices.Clone(list)
	for _, word := range further {
		if !slices.Contains(list, word) {
			list = append(list, word)
		}
	}
	return list
}

// sameSpaces returns an error if the primary's tablespaces have changed. There may be no folder here for a new one.
func (c *Case) sameSpaces(ctx context.Context) error {
	if c.Return.Unseen != "" {
		return nil
	}
	database, err := postgres.OpenSourceDatabase(ctx, c.Conninfo)
	if err != nil {
		return err
	}
	defer database.Close()
	now, err := database.Tablespaces(ctx)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(now, c.spaces, func(a, b postgres.Tablespace) bool { return a.OID == b.OID && a.Location == b.Location })
	if !same {
		err = fmt.Errorf("a tablespace was made, dropped or renamed on %s meanwhile: run it again", c.Primary)
	}
	return err
}
