package prune

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Archive prunes a folder of archived WAL on this host. It asks every member what it needs; where one that it has to
// ask does not answer, nothing goes.
type Archive struct {
	Observer      *controller.Observer // of this host
	Folder        string               // "" where archive_command or restore_command tells it
	Move          string               // the folder that files are moved into; "" removes them
	BackupFolders []string             // of base backups that are kept, too
	Backups       int                  // how many of those are kept; AllBackups
	NoBackups     bool                 // the operator says that there are none
	GivenUp       []string             // members, lower-cased, whose needs do not count
	// Status asks the daemon of this host for its status.
	Status func(ctx context.Context) (controller.Status, error)
	Report operation.Reporter // is told if fewer files went than were shown; may be nil
}

// freshness is how old the daemon's status may be. By default, the daemon looks every ten seconds.
const freshness = 2 * time.Minute

// needs gathers from where on WAL is needed, and by whom.
type needs struct {
	reconcile.Who
	conninfo string
	server   *postgres.Server
	status   func(ctx context.Context) (controller.Status, error)
	givenUp  []string
	found    []Need
}

// Prune makes the step that prunes the archive. There is no step if nothing may go.
func (a *Archive) Prune(ctx context.Context) (operation.Work, error) {
	n, err := a.look(ctx)
	if err != nil {
		return operation.Work{}, err
	}
	settings, err := n.server.Settings(ctx, []string{"archive_mode", "archive_command", "restore_command",
		"primary_conninfo"})
	if err != nil {
		return operation.Work{}, err
	}
	n.conninfo = settings["primary_conninfo"]
	folder := a.Folder
	if folder == "" {
		if folder, err = archiveFolder(settings); err != nil {
			return operation.Work{}, err
		}
	}
	if err := n.gather(ctx); err != nil {
		return operation.Work{}, fmt.Errorf("nothing is removed: %w", err)
	}
	return a.choose(ctx, folder, n)
}

func (a *Archive) look(ctx context.Context) (*needs, error) {
	who, err := a.Observer.Full(ctx)
	if err == nil && who.Cluster == nil {
		err = errors.New(who.ClusterProblem)
	}
	if err != nil {
		return nil, err
	}
	if _, err := who.ConfirmedPrimary(); err != nil {
		return nil, err
	}
	if err := operation.Preflight(who, operation.Demand{Policy: true}); err != nil {
		return nil, err
	}
	server, ok := a.Observer.Server().(*postgres.Server)
	switch {
	case !ok || who.Instance.State != model.ServerUp:
		return nil, fmt.Errorf("PostgreSQL here is %s, and has to say what it needs: %s", who.Instance.State,
			who.Instance.Problem)
	case who.Standing == model.InTransition:
		return nil, fmt.Errorf("the cluster says that the primary is %s, and PostgreSQL here differs: wait",
			who.Primary)
	}
	for _, host := range a.GivenUp {
		if !slices.Contains(who.Policy.Members, host) || who.Is(host) {
			return nil, fmt.Errorf("--give-up %s: it is one of the other members %s", host,
				strings.Join(who.Policy.Members, ", "))
		}
	}
	return &needs{Who: who, givenUp: a.GivenUp, server: server, status: a.Status}, nil
}

func (n *needs) add(from model.LSN, format string, args ...any) {
	n.found = append(n.found, Need{Who: fmt.Sprintf(format, args...), From: from})
}

// gather asks this host, the primary, and every member that runs. This host's redo stands for the primary's, too: a
// restartpoint is never ahead of the primary's last checkpoint.
func (n *needs) gather(ctx context.Context) error {
	i := n.Instance
	n.add(i.Redo, "%s, its last checkpoint", n.Self)
	for _, s := range i.Slots {
		if s.RestartLSN.IsValid() {
			n.add(s.RestartLSN, "the slot %s on %s", s.Name, n.Self)
		}
	}
	if slices.ContainsFunc(i.Senders, func(s model.WALSender) bool { return s.State == "backup" }) {
		return errors.New("a base backup is being taken here, and where it begins is not known before it ends: wait " +
			"for it")
	}
	if n.Self != n.Primary && n.Upstream == nil {
		return fmt.Errorf("the primary %s could not be asked: %s", n.Primary, n.UpstreamProblem)
	}
	if n.Self != n.Primary {
		if err := n.answer(n.Primary, *n.Upstream); err != nil {
			return err
		}
	}
	addresses, err := n.addresses(ctx)
	if err != nil {
		return err
	}
	for _, member := range n.Policy.Members {
		if member == n.Self || member == n.Primary || slices.Contains(n.givenUp, member) {
			continue
		}
		if err := n.member(ctx, member, addresses); err != nil {
			return err
		}
	}
	return n.slotOnPrimary(ctx)
}

// slotOnPrimary sees that the primary holds WAL for every standby: what one has whose slot holds nothing is not known.
// Nor is it of one that is away, unless pgrex on the primary foretells that it comes back: a slot may have been made
// since.
func (n *needs) slotOnPrimary(ctx context.Context) error {
	for _, member := range n.Policy.Members {
		if member == n.Primary || member == n.Self || slices.Contains(n.givenUp, member) {
			continue
		}
		name := n.Names[member]
		reserved := false
		if n.Self == n.Primary {
			reserved = slices.ContainsFunc(n.Instance.Slots, func(s model.Slot) bool { return s.Name == name && s.Reserved() })
		} else {
			slot, _ := n.Upstream.Slot(name)
			reserved = slot.RestartLSN.IsValid()
		}
		if !reserved {
			return fmt.Errorf("the primary %s holds no WAL for %s in the slot %s, and nobody knows what that host "+
				"needs: bring it back first, see pgrex status; if it is to be copied anyway, --give-up %[2]s",
				n.Primary, member, name)
		}
		if !n.runs(member) && n.Policy.Paused {
			return fmt.Errorf("%s is away and pgrex is paused, and its forecast may be out of date: type sudo pgrex "+
				"resume first", member)
		}
		way := model.ForecastIn(n.ForecastOf(n.Primary), member)
		if !n.runs(member) && way != model.WayStream && way != model.WayRewind {
			return fmt.Errorf("%s is away, and pgrex on the primary %s foretells %q for it: it may need WAL that "+
				"only the archive has: bring it back first, see pgrex status; if it is to be copied anyway, "+
				"--give-up %[1]s", member, n.Primary, way)
		}
		if !n.runs(member) {
			if err := n.foretold(ctx, member); err != nil {
				return fmt.Errorf("%s is away, and nobody knows what it needs: %w; if it is to be copied anyway, "+
					"--give-up %[1]s", member, err)
			}
		}
	}
	return nil
}

// foretold returns an error unless the daemon of this host now says that a host will come back to this one. The
// forecast in the CIB is not enough, because it stays there when its daemon has ended: it may be out of date, and the
// slots may have been made since.
func (n *needs) foretold(ctx context.Context, member string) error {
	s, err := n.status(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Forecast, func(f model.Forecast) bool { return n.Is(f.Candidate) && f.Host == member })
	switch {
	case s.Primitive != n.Clone.Primitive:
		return fmt.Errorf("the pgrex that answers here is that of the database %q, and not of %s: name its --instance",
			s.Primitive, n.Clone.Primitive)
	case s.DryRun:
		return errors.New("pgrex here makes no slots (--dry-run), and its forecast is for what it would do")
	case time.Since(s.Read) > freshness:
		return fmt.Errorf("pgrex here has last looked at the cluster at %s: see sudo pgrex status",
			s.Read.Local().Format(time.DateTime))
	case i < 0:
		return errors.New("pgrex here foretells nothing for it: see sudo pgrex status")
	}
	if way := s.Forecast[i].Way; way != model.WayStream && way != model.WayRewind {
		return fmt.Errorf("pgrex here foretells %q for it, because %s", way, s.Forecast[i].Why)
	}
	return nil
}

// member asks a standby that runs for its slots, and how far it is. One that is stopped has everything from its redo on
// in its own pg_wal, up to where its slot on the primary stands.
func (n *needs) member(ctx context.Context, member string, addresses map[string]string) error {
	node := n.NodeOf(member)
	switch {
	case node.Unclean || node.Pending || node.Online && n.RoleOf(member) == "":
		return fmt.Errorf("to Pacemaker the database on %s is %s, and nobody knows what that host needs: put that "+
			"right first, or wait; if it is to be copied anyway, --give-up %[1]s", member, n.RoleText(member))
	case !n.runs(member):
		return nil
	}
	address, err := n.address(ctx, member, addresses)
	if err != nil {
		return err
	}
	source, err := postgres.OpenStandby(ctx, n.conninfo, address)
	if err != nil {
		return fmt.Errorf("%s runs and could not be asked what it needs: %w", member, err)
	}
	defer source.Close()
	upstream, err := source.Identify(ctx, n.SlotNames()...)
	if err != nil {
		return fmt.Errorf("%s runs and could not be asked what it needs: %w", member, err)
	}
	if !upstream.InRecovery {
		return fmt.Errorf("%s runs as a standby, but at its address %s a primary answers: what %[1]s needs is not "+
			"known", member, address)
	}
	n.add(upstream.Flushed, "%s, what it has", member)
	return n.answer(member, upstream)
}

// runs reports whether the cluster says that a member runs the database.
func (n *needs) runs(member string) bool {
	return n.NodeOf(member).Online && n.RoleOf(member) != model.RoleStopped
}

// answer adds what another host's slots need.
func (n *needs) answer(member string, u model.Upstream) error {
	if u.SystemID != n.Instance.SystemID {
		return fmt.Errorf("the server at %s, which is to be %s, is another database: its system identifier is %s, "+
			"and here it is %s",
			u.Address, member, u.SystemID, n.Instance.SystemID)
	}
	for _, s := range u.Slots {
		if s.RestartLSN.IsValid() {
			n.add(s.RestartLSN, "the slot %s on %s", s.Name, member)
		}
	}
	return nil
}

// addresses are those from which the standbys come, which the primary alone knows.
func (n *needs) addresses(ctx context.Context) (map[string]string, error) {
	addresses := map[string]string{}
	if n.Self != n.Primary {
		return addresses, nil
	}
	standbys, err := n.server.Replications(ctx)
	for _, s := range standbys {
		addresses[s.Name] = s.Address
	}
	return addresses, err
}

// address is where a member is: where it streams from, or else where its node's name leads.
func (n *needs) address(ctx context.Context, member string, addresses map[string]string) (string, error) {
	if address := addresses[member]; address != "" {
		return address, nil
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, member); err != nil {
		return "", fmt.Errorf("%s runs, and its address is not known: it does not stream from here, and its name "+
			"leads nowhere (%w); run it on the primary %s, with --archive", member, err, n.Primary)
	}
	return member, nil // of its addresses any may answer
}
