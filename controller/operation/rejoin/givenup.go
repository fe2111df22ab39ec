package rejoin

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/model"
)

// GivenUpFolder is the folder in the state folder in which the WAL is kept that only this host had.
const GivenUpFolder = "given-up"

// givenUp returns the WAL that only this host has, which a rewind or a copy gives up; nil if there is none, or nobody
// can tell. Acknowledged commits may be in it: with asynchronous standbys, or with synchronous ones that were away.
func (r *Rejoin) givenUp(ctx context.Context, c *Case, begun time.Time) *model.GivenUp {
	timeline, parted := c.Return.shared()
	local := c.Return.Local
	if r.StateDir == "" || c.Return.Begun != "" || parted == 0 || parted >= local.End || local.Backup != nil {
		return nil
	}
	name := fmt.Sprintf("%s-%d-%s", begun.UTC().Format("20060102T150405Z"), timeline, strings.ReplaceAll(parted.String(), "/", "_"))
	return &model.GivenUp{
		Timeline: timeline, From: parted, To: local.End, Bytes: parted.BytesTo(local.End),
		Commit: c.Place.LastCommitSince(ctx, local, parted, local.End),
		Folder: filepath.Join(r.StateDir, GivenUpFolder, name),
	}
}

// keeps is how much WAL is kept aside at most on the file system of the data, in bytes.
func (r *Rejoin) keeps(c *Case) uint64 {
	parted, local := c.Return.Parted(), c.Return.Local
	if r.StateDir == "" || c.Return.Begun != "" || parted == 0 || parted >= local.End {
		return 0
	}
	if fileSystem, _, err := datadir.Disk(r.StateDir); err != nil || fileSystem != local.FileSystem {
		return 0 // without a state folder nothing is begun
	}
	return min(datadir.MaxKeptWAL, parted.BytesTo(local.End))
}

// givenUpText says what is given up.
func givenUpText(g model.GivenUp) string {
	return fmt.Sprintf("given up: the WAL that only this host has, %s, from %s to %s on timeline %d, last commit in it at %s; it is kept in %s",
		model.FormatBytes(g.Bytes), g.From, g.To, g.Timeline, cmp.Or(g.Commit, "an unknown time, or none"), g.Folder)
}

// keepWAL keeps what is given up aside, before anything here is changed.
func (r *Rejoin) keepWAL(c *Case) []operation.Step {
	g := c.givenUp
	if g == nil {
		return nil
	}
	c.flags()
	return []operation.Step{{
		ID: "keep-wal", Action: operation.Program{
			Text: "keep the WAL that only this host has in " + g.Folder,
			Run: func(ctx context.Context) (err error) {
				err = during(r.show, "keeping WAL in "+g.Folder, nil, func() error {
					kept, err := c.Place.KeepWAL(ctx, *g, c.Return.Local, datadir.MaxKeptWAL)
					g.Short = kept.Short
					return err
				})
				if err == nil && g.Short != "" {
					r.Report("   warning: not all of it is kept: " + g.Short)
				}
				return err
			},
			Found: func(context.Context) (operation.State, error) {
				if _, err := os.Stat(g.Folder); err != nil {
					return operation.NotDone, nil //nolint:nilerr // then it is done again
				}
				return operation.Done, nil
			},
		},
		Back: []operation.Action{operation.Change{Text: "remove " + g.Folder + " if the data here were not changed", Make: func() error {
			if c.Place.Rewinding() != datadir.NotBegun || c.Place.HalfSwapped() || *c.changed {
				return nil
			}
			return os.RemoveAll(g.Folder)
		}}},
	}}
}

// forgetOldest removes the oldest WAL that was kept aside on this host, if all of it takes too much room. That comes
// last: a way back that fails costs nothing that was kept before. This host is back by then, so that a failure is only
// reported.
func (r *Rejoin) forgetOldest(ctx context.Context, c *Case) {
	if c.givenUp == nil {
		return
	}
	removed, err := datadir.ForgetOldest(ctx, c.givenUp.Folder, datadir.MaxKeptWAL)
	for _, folder := range removed {
		r.Report("   warning: removed the oldest kept WAL: " + folder)
	}
	if err != nil {
		r.Report("   warning: kept WAL takes more room than it should: " + err.Error())
	}
}

// changedBy reports whether an operation that was left, with that plan, may have changed the data here.
func (c *Case) changedBy(j *operation.Journal, p *Plan) bool {
	return p.Changed || p.Swapped || j.HasBegun(stepRewind) || j.HasBegun(stepSwap) || c.Place.Rewinding() != datadir.NotBegun || c.Place.HalfSwapped()
}

// takeOver takes over what the plan before has given up: if the data were changed, that is on no other host, and if not,
// it need not be kept twice. A primary that is another host now may have parted from these data earlier.
func (p *Plan) takeOver(before *Plan) {
	if before == nil || before.GivenUp == nil {
		return
	}
	old, now := before.GivenUp, p.GivenUp
	same := now != nil && now.Timeline == old.Timeline && now.From == old.From && now.To == old.To
	if same || now == nil && p.Changed {
		p.GivenUp = old
	}
}

// NotKept is why nothing of what the job gives up would be kept; "" if some of it is, or if nothing is given up. Job
// has to be called before.
func (c *Case) NotKept() (string, error) {
	if c.givenUp == nil || c.Streams || c.Return.Begun != "" { // or else it was kept before that began
		return "", nil
	}
	_, kept, err := c.Place.Keeps(*c.givenUp, c.Return.Local, datadir.MaxKeptWAL)
	if err != nil || !kept.Nothing {
		return "", err
	}
	return kept.Short, nil
}

// GaveUp is what a job has given up, however it has ended; nil for nothing. Undone, it has removed the folder.
func GaveUp(job operation.Job) *model.GivenUp {
	p, ok := job.Plan.(*Plan)
	if !ok || p.GivenUp == nil {
		return nil
	}
	if _, err := os.Stat(p.GivenUp.Folder); err != nil {
		return nil
	}
	return p.GivenUp
}

// Unnamed is why nobody can say what only this host has; "" if it is named, or there is nothing.
func (r Return) Unnamed() string {
	switch {
	case r.Begun != "":
		return "" // it was named before that began
	case r.Differs:
		return "the WAL here differs from the primary's on the same timeline"
	case r.Local.Unreadable != "":
		return r.Local.Unreadable
	case r.Parted() == 0:
		return "the data here share no timeline with the primary's"
	}
	return ""
}

// ReturnedBy is what is remembered of a job that has ended well.
func ReturnedBy(job operation.Job, primary, who string) model.Returned {
	returned := model.Returned{At: time.Now().UTC(), By: who, Primary: primary}
	if p, ok := job.Plan.(*Plan); ok {
		returned.Way, returned.GivenUp = string(p.Way), p.GivenUp
	}
	return returned
}
