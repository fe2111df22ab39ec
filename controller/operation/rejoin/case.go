package rejoin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Case is what was found: the ladder, and what the steps need.
type Case struct {
	Return  Return
	Ladder  []Rung
	Streams bool // it is back already
	Left    bool // an operation has left something

	// Folders are to be made here for tablespaces that the primary has and this host lacks.
	Folders []string

	Place     datadir.Place
	Primitive string
	Clone     string // its id
	Primary   string
	Slot      string // this host's
	Conninfo  string
	Node      string                // as Pacemaker spells it
	Standby   bool                  // Pacemaker's standby mode was on
	Kept      bool                  // pgrex kept the database stopped
	locked    bool                  // the agent's lock was there
	astray    []string              // what a restore has left and what keeps PostgreSQL from following the primary
	unsure    []string              // why it is not known whether the primary can read all of its files
	givenUp   *model.GivenUp        // the WAL that only this host has; in the plan
	swapped   *bool                 // the swap was begun: the old data may be where the copy was; in the plan
	changed   *bool                 // the data may not be what they were; in the plan
	spaces    []postgres.Tablespace // the primary's tablespaces
	fresh     []datadir.Tablespace  // the same, as a copy has them
	who       reconcile.Who
	show      func(line string) // shows what takes long; may be nil
}

// Look finds the ways back. It changes nothing.
func (r *Rejoin) Look(ctx context.Context) (*Case, error) {
	c, err := r.find(ctx)
	if err == nil {
		err = r.examine(ctx, c)
	}
	return c, err
}

// find determines which host comes back, where, and to which primary, or why that is impossible now.
func (r *Rejoin) find(ctx context.Context) (*Case, error) {
	who, err := r.Observer.Cluster(ctx)
	if err == nil {
		err = operation.Preflight(who, operation.Demand{Managed: true})
	}
	if err != nil {
		return nil, err
	}
	c := newCase(who)
	c.show = r.show
	c.Standby, c.Kept = who.Here.Standby, who.Clone.KeptStopped(who.Here.Name)
	c.Primary, err = who.ConfirmedPrimary()
	switch {
	case err != nil:
		return nil, err
	case who.Is(c.Primary):
		return nil, fmt.Errorf("this host, %s, is the primary: it follows no other host", who.Node)
	case c.Slot == "":
		return nil, fmt.Errorf("this host, %s, is not in the agent's node_list", who.Node)
	}
	if c.Place, err = datadir.Find(who.Clone); err != nil {
		return nil, err
	}
	c.Place.Count = new(atomic.Int64)
	before, err := r.before()
	if before != nil {
		c.Place.FreshFolders = before.Fresh
	}
	return c, err
}

// flags are there also where no plan has them.
func (c *Case) flags() {
	if c.swapped == nil {
		c.swapped = new(bool)
	}
	if c.changed == nil {
		c.changed = new(bool)
	}
}

// newCase is a case in which only the cluster is known.
func newCase(who reconcile.Who) *Case {
	return &Case{who: who, Primitive: who.Clone.Primitive, Clone: who.Clone.ID, Node: who.Here.Name,
		Slot: who.OwnSlot()}
}

// examine fills in what this host and the primary have.
func (r *Rejoin) examine(ctx context.Context, c *Case) (err error) {
	c.Left = c.Place.Left()
	if c.Streams, _, err = r.streams(ctx, c.Slot); err != nil || c.Streams {
		return err
	}
	if c.Conninfo, err = c.Place.Conninfo(ctx, c.who.Clone); err != nil {
		return err
	}
	return r.weigh(ctx, c)
}

// weigh compares the data here with the primary's, and finds the ways back.
func (r *Rejoin) weigh(ctx context.Context, c *Case) (err error) {
	c.Return.Host, c.Return.MaxRate = c.Node, r.MaxRate
	if err := c.Place.Steerable(ctx, c.Slot); err != nil {
		return err
	}
	if err := c.compare(ctx); err != nil {
		return err
	}
	c.Return.Keeps = r.keeps(c)
	if c.Return.Local.Unconfigured == "" && c.Return.Begun != MethodCopy { // or else there is nothing that could be read
		if c.astray, err = c.Place.Unfollowing(ctx, c.restored()); err != nil {
			return err
		}
	}
	if c.Return.Astray, err = r.astray(ctx, c); err != nil {
		return err
	}
	switch {
	case c.Return.NeedsArchive():
		err = r.tryArchive(ctx, c)
	case c.Return.NeedsRewind():
		c.Return.NoRewindWAL, err = r.noRewindWAL(ctx, c)
	}
	if err != nil {
		return err
	}
	c.Ladder = Ladder(c.Return)
	if rung, err := c.Choose(cmp.Or(r.Method, "auto")); err == nil && !c.fetches(rung.Method) {
		return nil
	}
	err = c.hindrances(ctx)
	c.Ladder = Ladder(c.Return)
	return err
}

// fetches reports whether a way back still needs the primary's files.
func (c *Case) fetches(way Method) bool {
	return way == MethodRewind || way == MethodCopy && c.Return.Begun != MethodCopy
}

// streams reports whether this host receives WAL through its own slot, and how far it has replayed.
func (r *Rejoin) streams(ctx context.Context, slot string) (bool, model.LSN, error) {
	in, err := r.Observer.Full(ctx)
	if err != nil {
		return false, 0, err
	}
	return throughOwn(in.Instance, slot), in.Instance.Current, nil
}

// throughOwn reports whether a server receives WAL through a slot.
func throughOwn(i model.Instance, slot string) bool {
	return i.State == model.ServerUp && i.InRecovery && i.Receiver.Streaming() && i.Receiver.SlotName == slot
}

// inspect reads this host's data, and which operation on them was begun and not finished.
func (c *Case) inspect(ctx context.Context) (err error) {
	err = during(c.show, "looking at "+c.Place.Data, c.Place.Count, func() (err error) {
		c.Return.Local, err = c.Place.Look(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if c.Place.HalfSwapped() {
		c.Return.Begun, c.Return.Local.Backup = MethodCopy, nil // backup_label is the copy's
		return nil
	}
	if c.Place.Rewinding() == datadir.HalfRewound {
		c.Return.Begun = MethodRewind
	}
	return c.Place.RestoredOver()
}

// compare reads this host's data, and what the primary says.
func (c *Case) compare(ctx context.Context) error {
	if err := c.inspect(ctx); err != nil {
		return err
	}
	source, err := postgres.OpenSource(ctx, c.Conninfo)
	if err != nil {
		return err
	}
	defer source.Close()
	if c.Return.Primary, err = source.Identify(ctx, c.Slot); err != nil {
		return err
	}
	if c.Return.Primary.InRecovery {
		return fmt.Errorf("the server at %s is itself a standby, and not the primary %s", c.Return.Primary.Address,
			c.Primary)
	}
	if slot, _ := c.Return.Primary.Slot(c.Slot); slot.Logical {
		return fmt.Errorf("%s on the primary %s: %w", c.Slot, c.Primary, postgres.ErrSquatted)
	}
	if c.Return.Local.WAL > 0 && c.Return.Begun == "" { // or else the settings here could not be read, or there are none
		if c.Return.TooLow, err = c.Place.TooLow(ctx, source.Setting); err != nil {
			return err
		}
	}
	if err := c.contents(ctx, source); err != nil {
		return err
	}
	if c.Return.Bytes == 0 { // then the size of the old data has to do
		err := during(c.show, "measuring "+c.Place.Data, c.Place.Count, func() (err error) {
			c.Return.Local.Bytes, err = c.Place.Size(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if c.Return.Timelines, err = source.History(ctx, c.Return.Primary.Timeline); err != nil {
		return err
	}
	if err := c.lookAtBackup(ctx); err != nil {
		return err
	}
	if c.Return.Fits() {
		local := c.Return.Local
		from := local.End - local.End%model.LSN(local.Segment) // a walreceiver asks for whole segments
		if from < c.Return.Primary.Flushed {                   // or else there is nothing to send yet
			c.Return.Rate, err = source.Has(ctx, from, local.Timelines[len(local.Timelines)-1].ID,
				c.Return.Primary.Flushed)
			switch {
			case errors.Is(err, postgres.ErrNoWAL):
				c.Return.NoWAL = err.Error()
			case err != nil: // it may well have it
				return err
			}
		}
		if c.Return.Differs, err = c.differs(ctx); err != nil {
			return err
		}
	}
	if c.Return.Rate == 0 {
		c.Return.Rate = c.measure(ctx)
	}
	return nil
}

// hindrances looks for files on the primary at which pg_rewind or a copy would fail half way. If the replication user is
// not let into a database there, it cannot look, and allows both. Any other failure to look is a warning, because it
// says nothing about the files.
func (c *Case) hindrances(ctx context.Context) error {
	if c.Return.NeedsRewind() {
		c.Return.Rewound = c.rewound(ctx)
	}
	var odd []string
	err := during(c.show, "looking through "+c.Place.Data, c.Place.Count, func() (err error) {
		odd, err = c.Place.Odd(ctx)
		return err
	})
	if err != nil {
		return err
	}
	source, noAccess := postgres.OpenSourceDatabase(ctx, c.Conninfo)
	if noAccess != nil {
		return ctx.Err()
	}
	defer source.Close()
	name, err := source.HasFile(ctx, odd)
	if err != nil {
		c.unsure = append(c.unsure, err.Error())
	}
	if name != "" && err == nil {
		c.Return.InTheWay = fmt.Sprintf("%s is not a file here, and a file on %s: pg_rewind does not replace it; "+
			"put a file in its place (where it is a link, the file that it leads to)",
			filepath.Join(c.Place.Data, name), c.Primary)
	}
	var unreadable string
	err = during(c.show, "looking for files that "+c.Primary+" cannot read", nil, func() (err error) {
		unreadable, err = source.Unreadable(ctx)
		return err
	})
	if err != nil {
		c.unsure = append(c.unsure, err.Error())
	}
	if unreadable != "" {
		c.Return.NoFiles = fmt.Sprintf("%s: on %s, give that file to the user that runs PostgreSQL, or move it out "+
			"of the data folder", unreadable, c.Primary)
	}
	return ctx.Err()
}

// rewound is how much pg_rewind fetches beside the blocks that have changed; 0 if that is not known. It copies the
// files of a database that was made meanwhile: their blocks need not be in the WAL.
func (c *Case) rewound(ctx context.Context) (bytes uint64) {
	source, err := postgres.OpenSourceDatabase(ctx, c.Conninfo)
	if err != nil {
		return 0
	}
	defer source.Close()
	var files *postgres.FileSizes
	err = during(c.show, "measuring what "+string(MethodRewind)+" would fetch", nil, func() (err error) {
		files, err = source.FileSizes(ctx)
		return err
	})
	if err != nil || files == nil {
		return 0
	}
	bytes = files.Whole
	for folder, size := range files.Databases {
		if _, err := os.Stat(filepath.Join(c.Place.Data, folder)); os.IsNotExist(err) {
			bytes += size
		}
	}
	return bytes
}

// differs compares the last WAL here with the primary's. Timelines are told apart by number and beginning only, and two
// hosts that are both promoted from the same WAL, neither knowing of the other, choose the same.
func (c *Case) differs(ctx context.Context) (bool, error) {
	const much = 8 << 10
	local := c.Return.Local
	newest := local.Timelines[len(local.Timelines)-1]
	begin := (local.End - 1).Segment(local.Segment) * local.Segment
	from := max(newest.Begin, model.LSN(begin), local.End-min(local.End, much))
	if from >= local.End {
		return false, nil // it has nothing of its newest timeline
	}
	mine := make([]byte, from.BytesTo(local.End))
	name := datadir.SegmentName(newest.ID, from.Segment(local.Segment), local.Segment)
	f, err := os.Open(filepath.Join(c.Place.Data, "pg_wal", name))
	if os.IsNotExist(err) {
		return false, nil // after pg_rewind it may be yet to come
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.ReadAt(mine, int64(uint64(from)-begin)); err != nil {
		return false, fmt.Errorf("read the WAL here: %w", err)
	}
	source, err := postgres.OpenSource(ctx, c.Conninfo)
	if err != nil {
		return false, err
	}
	defer source.Close()
	its, err := source.WAL(ctx, from, local.End, newest.ID)
	if errors.Is(err, postgres.ErrNoWAL) {
		return false, nil
	}
	return !bytes.Equal(mine, its), err
}

// measure measures the rate at which the primary sends, with the WAL that it wrote last: a segment and what follows it,
// or, if that is gone, only the newest segment. Soon after a failover the first is of another timeline. None is no error.
func (c *Case) measure(ctx context.Context) uint64 {
	primary, size := c.Return.Primary, c.Return.Local.Segment
	newest := (primary.Flushed - 1).Segment(size)
	for _, n := range []uint64{newest - min(newest, 1), newest} {
		source, err := postgres.OpenSource(ctx, c.Conninfo)
		if err != nil {
			return 0
		}
		rate, _ := source.Has(ctx, model.LSN(n*size), timelineAt(c.Return.Timelines, n, size), primary.Flushed)
		source.Close()
		if rate > 0 {
			return rate
		}
	}
	return 0
}

// Choose picks a way back: the cheapest that is possible, or the one asked for.
func (c *Case) Choose(method string) (Rung, error) {
	for _, rung := range c.Ladder {
		switch {
		case method == "auto" && rung.Possible && !rung.OnlyIfAsked, method == string(rung.Method) && rung.Possible:
			return rung, nil
		case method == string(rung.Method):
			return rung, fmt.Errorf("%s is not possible: %s", method, rung.Why)
		}
	}
	return Rung{}, errors.New("pgrex chooses no way back on its own: see the reasons above")
}
