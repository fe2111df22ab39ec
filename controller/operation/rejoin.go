package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// How long Pacemaker and PostgreSQL may take for what is awaited.
const (
	stopPatience   = 2 * time.Minute
	streamPatience = 10 * time.Minute // it may have much to replay first
)

// Rejoin brings a host back that does not come back by itself.
type Rejoin struct {
	Observer *controller.Observer // of this host
	Clusters controller.ClusterReader
	Node     string
	Resource string
	MaxRate  string // of a copy, as pg_basebackup takes it; "" for no limit
	Report   Reporter
}

// Case is what was found: the ladder, and what the steps need.
type Case struct {
	Return  reconcile.Return
	Ladder  []reconcile.Rung
	Streams bool // it is back already

	place     place
	primitive string
	primary   string
	slot      string // this host's
	conninfo  string
	node      string // as Pacemaker spells it
}

// Look finds the ways back. It changes nothing.
func (r *Rejoin) Look(ctx context.Context) (*Case, error) {
	cluster, err := r.Clusters.Read(ctx)
	if err != nil {
		return nil, err
	}
	clone, err := reconcile.Database(cluster, r.Resource)
	if err != nil {
		return nil, err
	}
	node, ok := cluster.Node(r.Node)
	if !ok || !node.Online {
		return nil, fmt.Errorf("this host, %s, is not online in the cluster: start Pacemaker here first", r.Node)
	}
	c := &Case{primitive: clone.Primitive, node: node.Name}
	if c.primary, err = reconcile.ConfirmedPrimary(cluster, clone); err != nil {
		return nil, err
	}
	if strings.EqualFold(c.primary, r.Node) {
		return nil, fmt.Errorf("this host, %s, is the primary: there is nothing that it could follow", r.Node)
	}
	switch {
	case !cluster.Quorate:
		return nil, errors.New("this partition has no quorum: bring the other hosts or the network back first")
	case cluster.Maintenance || node.Maintenance || !clone.Managed:
		return nil, errors.New("the cluster, this node or the database is in maintenance: Pacemaker would start nothing; leave it first")
	}
	policy, _ := model.PolicyOf(clone)
	c.slot = policy.SlotNames()[strings.ToLower(r.Node)]
	if c.slot == "" {
		return nil, fmt.Errorf("this host, %s, is not in the agent's node_list", r.Node)
	}
	if c.place, err = placeOf(clone); err != nil {
		return nil, err
	}
	if c.Streams, err = r.streams(ctx, c.slot); err != nil || c.Streams {
		return c, err
	}
	if c.conninfo, err = c.place.conninfo(clone); err != nil {
		return nil, err
	}
	c.Return.Host = r.Node
	if err := c.compare(ctx); err != nil {
		return nil, err
	}
	c.Ladder = reconcile.Ladder(c.Return)
	return c, nil
}

// streams tells whether this host receives WAL through its own slot.
func (r *Rejoin) streams(ctx context.Context, slot string) (bool, error) {
	in, err := r.Observer.Full(ctx)
	if err != nil {
		return false, err
	}
	i := in.Instance
	return i.State == model.ServerUp && i.InRecovery && i.Receiver.Streaming() && i.Receiver.SlotName == slot, nil
}

// compare reads this host's data, and what the primary says.
func (c *Case) compare(ctx context.Context) (err error) {
	if c.Return.Local, err = c.place.look(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(c.place.marker()); err == nil {
		c.Return.Begun = reconcile.MethodRewind
	}
	source, err := postgres.OpenSource(ctx, c.conninfo)
	if err != nil {
		return err
	}
	defer source.Close()
	if c.Return.Primary, err = source.Identify(ctx, c.slot); err != nil {
		return err
	}
	if c.Return.Primary.InRecovery {
		return fmt.Errorf("the server at %s is itself a standby, and not the primary %s", c.Return.Primary.Address, c.primary)
	}
	if c.Return.Timelines, err = source.History(ctx, c.Return.Primary.Timeline); err != nil {
		return err
	}
	local := c.Return.Local
	from := local.End - local.End%model.LSN(local.Segment) // a walreceiver asks for whole segments
	if from >= c.Return.Primary.Flushed {
		return nil // there is nothing to send yet
	}
	if err := source.Has(ctx, from, local.Timelines[len(local.Timelines)-1].ID); err != nil {
		c.Return.NoWAL = err.Error()
	}
	return nil
}

// Choose picks a way back: the cheapest that is possible, or the one asked for.
func (c *Case) Choose(method string) (reconcile.Rung, error) {
	for _, rung := range c.Ladder {
		switch {
		case method == "auto" && rung.Possible, method == string(rung.Method) && rung.Possible:
			return rung, nil
		case method == string(rung.Method):
			return rung, fmt.Errorf("%s is not possible: %s", method, rung.Why)
		}
	}
	return reconcile.Rung{}, errors.New("there is no way back that pgrex can go: see what is said of each")
}

// Steps are what a way back takes.
func (r *Rejoin) Steps(c *Case, method reconcile.Method) []Step {
	steps := r.keepAway(c)
	switch method {
	case reconcile.MethodStart:
		steps = append(steps, Step{Text: "set primary_slot_name to " + c.slot, Do: func(context.Context) error {
			return c.place.setSlotName(c.slot)
		}})
	case reconcile.MethodRewind:
		steps = append(steps, r.rewind(c)...)
	case reconcile.MethodCopy:
		steps = append(steps, r.copy(c)...)
	}
	return append(steps, r.letStart(c)...)
}

// keepAway takes the database here out of Pacemaker's hands. Standby mode does so whatever state the resource is in.
func (r *Rejoin) keepAway(c *Case) []Step {
	on, off := cib.SetStandby(c.node, true), cib.DeleteStandby(c.node)
	away := run(on, &off)
	away.Undo = func(ctx context.Context) error {
		if _, err := os.Stat(c.place.marker()); err == nil {
			return errors.New("the data here are half rewound: run pgrex rejoin again before")
		}
		return off.Run(ctx)
	}
	return []Step{away, await("PostgreSQL here has ended", stopPatience, func(ctx context.Context) error {
		cluster, err := r.Clusters.Read(ctx)
		if err != nil {
			return err
		}
		clone, err := reconcile.Database(cluster, r.Resource)
		if err != nil {
			return err
		}
		if role, _ := clone.Role(c.node); role != model.RoleStopped {
			return fmt.Errorf("to Pacemaker its role is %q", role)
		}
		if c.place.runs() {
			return errors.New("it runs, though Pacemaker says that it is stopped: end it with pg_ctl stop")
		}
		return nil
	})}
}

// letStart gives the database back to Pacemaker, and waits until it streams. The agent bans a host whose data was ahead of
// the new primary's; that is cleared, too.
func (r *Rejoin) letStart(c *Case) []Step {
	return []Step{
		{Text: "remove " + c.place.lock(), Do: func(context.Context) error { return removeFile(c.place.lock()) }},
		run(cib.Cleanup(c.primitive, c.node), nil),
		run(cib.ClearBan(c.primitive, c.node), nil),
		run(cib.DeleteStandby(c.node), nil),
		await("it streams through "+c.slot, streamPatience, func(ctx context.Context) error {
			ok, err := r.streams(ctx, c.slot)
			if err == nil && !ok {
				err = errors.New("it does not yet; see PostgreSQL's log here")
			}
			return err
		}),
		{Text: "remove what the operation has left", Do: func(context.Context) error { return os.RemoveAll(c.place.beside()) }},
	}
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// nodeLocal are the files of the data folder that are this host's own.
var nodeLocal = []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"}

func (p place) lock() string   { return filepath.Join(p.tmp, "PGSQL.lock") }
func (p place) marker() string { return p.data + ".pgrex-rewind" } // is there while pg_rewind's work is not whole
func (p place) beside() string { return p.data + ".pgrex-new" }    // the copy; after the swap the old data

// conninfo is what the agent wrote at its last start, or else what it would write. The password is then left to the
// passfile.
func (p place) conninfo(clone model.Clone) (string, error) {
	text, err := os.ReadFile(filepath.Join(p.tmp, "recovery.conf"))
	if err == nil {
		if conninfo := setting(string(text), "primary_conninfo"); conninfo != "" {
			return conninfo, nil
		}
	}
	host, user := clone.Parameters["master_ip"], clone.Parameters["repuser"]
	if host == "" {
		return "", errors.New("the agent has no master_ip: there is no way to ask the primary")
	}
	if user == "" {
		user = "postgres"
	}
	port := clone.Parameters["pgport"]
	if port == "" {
		port = "5432"
	}
	return fmt.Sprintf("host=%s port=%s user=%s", host, port, user), nil
}

// setting is the value of a setting in a configuration file: the last line that has it counts.
func setting(text, name string) (value string) {
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(key) != name {
			continue
		}
		rest = strings.TrimSpace(rest)
		if body, quoted := strings.CutPrefix(rest, "'"); quoted {
			if i := strings.LastIndex(body, "'"); i >= 0 {
				body = body[:i]
			}
			value = strings.ReplaceAll(body, "''", "'")
		} else {
			value, _, _ = strings.Cut(rest, "#")
			value = strings.TrimSpace(value)
		}
	}
	return value
}

// setSlotName writes primary_slot_name into postgresql.auto.conf, where ALTER SYSTEM would: before the first start.
func (p place) setSlotName(slot string) error {
	path := filepath.Join(p.data, "postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	lines := slices.Collect(strings.Lines(string(text)))
	lines = slices.DeleteFunc(lines, func(l string) bool { return setting(l, "primary_slot_name") != "" || isUnset(l) })
	return writeWhole(path, strings.Join(lines, "")+"primary_slot_name = '"+slot+"'\n")
}

func isUnset(line string) bool {
	key, _, _ := strings.Cut(line, "=")
	return strings.TrimSpace(key) == "primary_slot_name"
}
