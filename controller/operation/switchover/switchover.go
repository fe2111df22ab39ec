package switchover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// What a switchover waits for, and how long. Writes stand still from the stop on, so that it goes back soon.
const (
	receivePatience = 20 * time.Second
	promotePatience = 2 * time.Minute
	demotePatience  = 40 * time.Second // within undoTimeout
	shutdownSeconds = "60"             // of pg_ctl
	// lookPatience bounds one look at the address that moves: nobody may be there to answer.
	lookPatience = time.Second
)

// Switchover makes another host the primary, and the old one, on which it is run, a standby of that.
//
// The agent's demote would be an immediate shutdown, after which nobody knows what the standbys have got. So PostgreSQL is
// shut down by pgrex, while Pacemaker looks away (maintenance-mode): a fast shutdown ends only when every standby that
// streams has flushed all of the WAL, the shutdown checkpoint included. The agent then finds it stopped, and demotes nothing.
// The old primary's data are a part of the new one's for the same reason, so that the lock may go that keeps it from starting.
type Switchover struct {
	Observer *controller.Observer // of this host
	To       string               // "" for any host that can
	Report   operation.Reporter

	reconcile.Who
	place    datadir.Place
	target   string // its node
	address  string // its own
	conninfo string
	rejoin   *rejoin.Rejoin
	back     *rejoin.Case // of this host

	end     model.LSN // of the WAL here, once it is shut down
	system  string
	stopped time.Time // when it was told to shut down
	given   bool      // Pacemaker has the database again
	done    bool      // the target is the primary
}

// primaryServer is what is asked of the local primary beside what the controller asks.
type primaryServer interface {
	Replications(ctx context.Context) ([]model.Replication, error)
	Checkpoint(ctx context.Context) error
}

// Steps looks whether it can be done, and makes the steps. It changes nothing.
func (s *Switchover) Steps(ctx context.Context) (steps []operation.Step, err error) {
	if in, err := cib.InGroup(); in && err == nil {
		return nil, errors.New("to take it back PostgreSQL would be started here with the group " + cib.ClusterGroup +
			" of this process, and with it every superuser of the database would have the cluster: type, as root: sudo pgrex switchover")
	}
	server, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	s.rejoin = &rejoin.Rejoin{Observer: s.Observer, Report: s.Report}
	s.back = &rejoin.Case{Place: s.place, Node: s.Here.Name, Primitive: s.Clone.Primitive, Slot: s.OwnSlot()}
	first := []operation.Step{
		{Text: "a checkpoint here, so that the shutdown is short", Do: server.Checkpoint},
		{Text: "see that " + s.target + " can still take over", Do: func(ctx context.Context) error {
			now := *s
			now.To = s.target
			_, err := now.look(ctx)
			if err == nil && now.address != s.address {
				err = fmt.Errorf("%s has another address by now, %s: run it again", s.target, now.address)
			}
			return err
		}},
	}
	return slices.Concat(first, s.handOver(), s.comeBack()), nil
}

// look finds who can take over from this host, and why nobody can. The operator may take a while to answer, and so may a
// checkpoint: it is asked again when the first step that changes something is next.
func (s *Switchover) look(ctx context.Context) (server primaryServer, err error) {
	if s.Who, err = operation.OnPrimary(ctx, s.Observer); err != nil {
		return nil, err
	}
	if s.place, err = datadir.Of(s.Clone); err != nil {
		return nil, err
	}
	if s.conninfo, err = s.place.Conninfo(ctx, s.Clone); err != nil {
		return nil, err
	}
	server, ok := s.Observer.Server().(primaryServer)
	if !ok {
		return nil, fmt.Errorf("the server is a %T", s.Observer.Server())
	}
	standbys, err := server.Replications(ctx)
	if err != nil {
		return nil, err
	}
	found := candidates{Who: s.Who, Standbys: standbys}
	if s.target, err = found.successor(s.To); err != nil {
		return nil, err
	}
	replication, _ := found.replication(s.target)
	s.address = replication.Address
	return server, s.slotsAreThere(ctx)
}

// slotsAreThere tells whether the target holds WAL for every other member. It also proves that the target lets this host in,
// which is to follow it.
func (s *Switchover) slotsAreThere(ctx context.Context) error {
	said, err := s.askTarget(ctx, s.SlotNames()...)
	if err != nil {
		return fmt.Errorf("%s cannot be asked from here, so that this host could not follow it: %w", s.target, err)
	}
	if s.Policy.AgentSlots || !s.Policy.StandbySlots {
		return nil // there are none before it is promoted
	}
	if missing := missingSlots(s.Who, s.target, said); len(missing) > 0 {
		return fmt.Errorf("%s holds no WAL for the others, its slots are not there or not reserved (%s): see that pgrex runs there",
			s.target, strings.Join(missing, ", "))
	}
	return nil
}

// askTarget asks the target at its own address.
func (s *Switchover) askTarget(ctx context.Context, slots ...string) (model.Upstream, error) {
	source, err := postgres.OpenStandby(ctx, s.conninfo, s.address)
	if err != nil {
		return model.Upstream{}, err
	}
	defer source.Close()
	return source.Identify(ctx, slots...)
}

// handOver are the steps that make the target the primary. Until Pacemaker gets the database back, all can be undone.
func (s *Switchover) handOver() []operation.Step {
	var steps []operation.Step
	ban := func(c cib.Command, node string) {
		clear := cib.ClearBan(s.Clone.ID, node)
		steps = append(steps, operation.Run(c, &clear))
	}
	for _, node := range s.others() {
		ban(cib.BanPromoted(s.Clone.ID, node), node)
	}
	leave, clear := cib.DeleteProperty(operation.MaintenanceMode), cib.ClearBan(s.Clone.ID, s.back.Node)
	// Undone, it is left when PostgreSQL here is the primary again, and the ban is gone: Pacemaker would stop it.
	maintenance := operation.Run(cib.SetProperty(operation.MaintenanceMode, "true"), &leave)
	maintenance.UndoWhen = "once PostgreSQL here answers as the primary, or the data here are given up"
	return append(steps,
		maintenance,
		operation.Run(cib.Settle(), nil),
		operation.Run(cib.Ban(s.Clone.ID, s.back.Node), &clear),
		s.shutDown(),
		operation.Await(s.target+" has all of the WAL", receivePatience, s.hasAll),
		operation.NoReturn(operation.LeaveMaintenance(leave, s.Observer), &s.given),
		s.takesWrites(),
		operation.NoReturn(
			operation.Await(s.target+" is the primary by every sign", promotePatience, s.isPrimary), &s.done))
}

// others are the nodes of the members that are neither this host nor the target.
func (s *Switchover) others() (nodes []string) {
	for _, member := range s.Policy.Members {
		node, known := s.Cluster.Node(member)
		if known && node.Name != s.target && node.Name != s.back.Node {
			nodes = append(nodes, node.Name)
		}
	}
	return nodes
}

// shutDown ends PostgreSQL here. Undone, it is started as it was before, as the primary: nobody else has been promoted.
func (s *Switchover) shutDown() operation.Step {
	stop := s.place.Program("pg_ctl", "stop", "--pgdata="+s.place.Data, "--mode=fast", "--wait", "--timeout="+shutdownSeconds)
	log := s.Clone.Parameters["logfile"]
	if log == "" {
		log = "/dev/null" // the agent's default
	}
	// With the options of its last start, which are in postmaster.opts.
	start := s.place.Program("pg_ctl", "restart", "--pgdata="+s.place.Data, "--mode=immediate", "--wait", "--timeout=50", "--log="+log)
	return operation.Step{
		Text: stop.String(),
		Do: func(ctx context.Context) error {
			s.stopped = time.Now()
			if _, err := stop.Run(context.WithoutCancel(ctx)); err != nil {
				return err
			}
			return s.seeEnd(context.WithoutCancel(ctx))
		},
		UndoText: "while maintenance-mode is on: " + start.String(),
		Undo: func(ctx context.Context) error {
			if on, err := s.maintenance(ctx); err != nil || !on {
				return errors.Join(err, errors.New("the database may be Pacemaker's again, and another host the primary"))
			}
			return s.startAgain(ctx, start, log)
		},
	}
}

// startAgain starts PostgreSQL here, and sees that it is the primary again. Why it did not start its own log says.
func (s *Switchover) startAgain(ctx context.Context, start datadir.Tool, log string) error {
	from := int64(0)
	if info, err := os.Stat(log); err == nil {
		from = info.Size()
	}
	if _, err := start.Run(ctx); err != nil {
		return fmt.Errorf("%w; PostgreSQL's log %s says: %s", err, log, lastLines(log, from))
	}
	c, err := s.place.Control(ctx)
	if state := c["Database cluster state"]; err == nil && state != "in production" {
		err = fmt.Errorf("PostgreSQL was started here, and to pg_controldata it is %q, and not the primary again", state)
	}
	return err
}

// lastLines are the last few lines of a file from some position on, in one line.
func lastLines(path string, from int64) string {
	const lines, most = 5, 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "nothing that could be read"
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err.Error()
	}
	text, _ := io.ReadAll(io.LimitReader(f, most)) // a part will do
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "; ")
}

// maintenance tells whether maintenance-mode is on.
func (s *Switchover) maintenance(ctx context.Context) (on bool, err error) {
	who, err := s.Observer.Cluster(ctx)
	return err == nil && who.Cluster.Maintenance, err
}

// seeEnd finds the end of the WAL here.
func (s *Switchover) seeEnd(ctx context.Context) error {
	c, err := s.place.Control(ctx)
	if err != nil {
		return err
	}
	if state := c["Database cluster state"]; state != "shut down" {
		return fmt.Errorf("to pg_controldata it is %q, and not shut down as a primary", state)
	}
	local, err := s.place.WAL(ctx, c)
	s.end, s.system = local.End, local.SystemID
	return err
}

// hasAll tells whether the target has flushed all WAL of this host. The other standbys are not waited for: what they lack
// the target has, in their slots.
func (s *Switchover) hasAll(ctx context.Context) error {
	said, err := s.askTarget(ctx)
	switch {
	case err != nil:
		return err
	case said.SystemID != s.system:
		return fmt.Errorf("it is another database, with the system identifier %s", said.SystemID)
	case !said.InRecovery:
		return errors.New("it is no standby any more")
	case said.Flushed < s.end:
		return fmt.Errorf("it has the WAL up to %s, of %s", said.Flushed, s.end)
	}
	return nil
}

// takesWrites waits for the first look that finds a primary at the address that clients, too, may use. Undone, every host may
// be promoted again, this one too: all it has the target has as well, so that it may follow it in any case.
func (s *Switchover) takesWrites() operation.Step {
	vip := s.Clone.Parameters["master_ip"]
	step := operation.Await(vip+" takes writes again", promotePatience, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, lookPatience)
		defer cancel()
		source, err := postgres.OpenSource(ctx, s.conninfo)
		if err != nil {
			return err
		}
		defer source.Close()
		said, err := source.Identify(ctx)
		if err == nil && said.InRecovery {
			err = errors.New("a standby answers there")
		}
		return err
	})
	look := step.Do
	step.Do = func(ctx context.Context) error {
		err := look(ctx)
		if err == nil {
			s.Report(fmt.Sprintf("write gap: %d ms, from the order to shut down here to the first look that found a primary at %s",
				time.Since(s.stopped).Milliseconds(), vip))
		}
		return err
	}
	clear := cib.ClearBan(s.Clone.ID, "")
	step.UndoText = "once the database here is stopped to Pacemaker, too: rm -f " + s.place.Lock() + "; " + clear.String()
	step.Undo = func(ctx context.Context) error {
		// Without the ban Pacemaker would look for the primary that it has left here, and count what it finds as a failure. If
		// it does not get there, somebody must be able to serve all the same.
		_ = operation.Await("Pacemaker has stopped it here", demotePatience, func(ctx context.Context) error {
			return rejoin.Stopped(ctx, s.Observer, s.place)
		}).Do(ctx)
		if err := s.place.RemoveLock(); err != nil {
			return err
		}
		return clear.Run(ctx)
	}
	return step
}

func (s *Switchover) isPrimary(ctx context.Context) error {
	return operation.IsPrimary(ctx, s.Observer, s.target)
}

// comeBack are the steps that make this host a standby of the target. What is left when one fails is for pgrex rejoin.
func (s *Switchover) comeBack() []operation.Step {
	var steps []operation.Step
	for _, node := range s.others() {
		steps = append(steps, operation.Run(cib.ClearBan(s.Clone.ID, node), nil))
	}
	proven := "the data here are a part of " + s.target + "'s"
	return append(steps,
		operation.Step{Text: proven, Do: func(ctx context.Context) error {
			var found *rejoin.Case
			err := operation.Await(proven, promotePatience, func(ctx context.Context) (err error) {
				found, err = s.rejoin.Look(ctx)
				return err
			}).Do(ctx)
			if err == nil {
				defer found.Close()
				_, err = found.Choose(string(rejoin.MethodStart))
			}
			return err
		}},
		s.back.NameSlot(),
		rejoin.Unlock(s.place),
		operation.Run(cib.ClearBan(s.Clone.ID, s.back.Node), nil),
		s.rejoin.AwaitStreams(s.back),
	)
}

// WayOut says how the cluster is left and what to type, where a failure or an interrupt has not undone everything.
func (s *Switchover) WayOut() string {
	switch {
	case s.done:
		var clear strings.Builder
		for _, node := range s.others() {
			clear.WriteString(cib.ClearBan(s.Clone.ID, node).String() + "; ")
		}
		return fmt.Sprintf("%s is the primary now; to make this host its standby, type: %spgrex rejoin", s.target, clear.String())
	case s.given:
		return "Pacemaker may promote any host now; if this one does not come back, type: pgrex rejoin"
	}
	return ""
}

// Target is the host that is to be the primary.
func (s *Switchover) Target() string { return s.target }
