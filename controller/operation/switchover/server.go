package switchover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/model"
)

// inProduction is what pg_controldata says of a primary that runs, and of one that has crashed.
const inProduction = "in production"

// shutDown ends PostgreSQL here. Undone, PostgreSQL is started as it was before, as the primary: nobody else was
// promoted.
func (s *Switchover) shutDown() operation.Step {
	stop := s.place.Program("pg_ctl", "stop", "--pgdata="+s.place.Data, "--mode=fast", "--wait",
		"--timeout="+shutdownSeconds)
	// pg_ctl uses the options of its last start, which are in postmaster.opts.
	start := s.place.Program("pg_ctl", "restart", "--pgdata="+s.place.Data, "--mode=immediate", "--wait",
		"--timeout=50", "--log="+s.log())
	return operation.Step{
		ID: "shutdown",
		Action: operation.Program{
			Text: stop.String(),
			Run: func(ctx context.Context) error {
				s.plan.Stopped = time.Now()
				if _, err := stop.Run(context.WithoutCancel(ctx)); err != nil {
					return err
				}
				return s.seeEnd(context.WithoutCancel(ctx))
			},
			Found: s.isShutDown,
		},
		Back: []operation.Action{
			operation.Look{Text: "see that maintenance-mode is on, and no other host the primary", See: s.nobodyElse},
			operation.Program{Text: start.String(), Run: func(ctx context.Context) error {
				if s.serves(ctx) {
					return nil // it had not been stopped yet
				}
				switch status := s.place.Status(); status {
				case "", "stopping":
					return s.startAgain(ctx, func(ctx context.Context) error {
						_, err := start.Run(ctx)
						return err
					})
				case "starting": // by an earlier attempt: another start would repeat its recovery
					return s.started(ctx)
				default:
					return fmt.Errorf("PostgreSQL here says in %s that it is %s, but it does not answer as the "+
						"primary; its log %s may say why", s.place.PIDFile(), status, s.log())
				}
			}},
			operation.Program{Text: "see that Pacemaker knows PostgreSQL here as the primary", Run: s.knownAsPrimary},
		},
	}
}

// log is the server's, by the agent's parameter or its default.
func (s *Switchover) log() string {
	if log := s.Clone.Parameters["logfile"]; log != "" {
		return log
	}
	return "/dev/null"
}

// isShutDown is the check of the shutdown.
func (s *Switchover) isShutDown(ctx context.Context) (operation.State, error) {
	if s.place.Runs() {
		return operation.NotDone, nil
	}
	if err := s.seeEnd(ctx); err != nil {
		return operation.CannotTell, fmt.Errorf("PostgreSQL does not run, and its shutdown was not clean: %w; type "+
			"sudo pgrex operation undo, which starts it again", err)
	}
	return operation.Done, nil
}

// inMaintenance returns an error unless maintenance-mode is on.
func (s *Switchover) inMaintenance(ctx context.Context) error {
	who, err := s.Observer.Cluster(ctx)
	switch {
	case err != nil:
	case !who.Cluster.HasQuorum(): // the others may have left it, and promoted one of them
		err = errors.New("this partition has no quorum")
	case !who.Cluster.Maintenance:
		err = errors.New("it is off: Pacemaker may have the database again, and another host may be the primary")
	}
	return err
}

// unwatched returns an error unless maintenance-mode is on, or PostgreSQL here is down already.
func (s *Switchover) unwatched(ctx context.Context) error {
	err := s.inMaintenance(ctx)
	if err != nil && !s.place.Runs() {
		return nil
	}
	return err
}

// nobodyElse returns an error unless PostgreSQL may be started here as the primary. maintenance-mode may have been left
// by hand, for long enough that another host was promoted, and entered again.
func (s *Switchover) nobodyElse(ctx context.Context) error {
	if err := s.inMaintenance(ctx); err != nil {
		return err
	}
	who, err := s.Observer.Cluster(ctx)
	if err != nil {
		return err
	}
	for _, n := range who.Cluster.Nodes {
		if !who.Is(n.Name) && who.RoleOf(n.Name) == model.RolePromoted {
			return fmt.Errorf("to Pacemaker %s is the primary by now: type sudo pgrex operation finish instead", n.Name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	if said, err := s.askTarget(ctx); err == nil && !said.InRecovery { // it may be down
		return fmt.Errorf("%s is no longer a standby: a second primary must not be started here", s.plan.Target)
	}
	return nil
}

// serves reports whether PostgreSQL here answers as the primary.
func (s *Switchover) serves(ctx context.Context) bool {
	who, err := s.Observer.Full(ctx)
	return err == nil && who.Instance.State == model.ServerUp && !who.Instance.InRecovery
}

// startAgain starts PostgreSQL here, and checks that it is the primary again. If it does not start, its own log says
// why.
func (s *Switchover) startAgain(ctx context.Context, start func(context.Context) error) error {
	log, from := s.log(), int64(0)
	if info, err := os.Stat(log); err == nil {
		from = info.Size()
	}
	if err := start(ctx); err != nil {
		return fmt.Errorf("%w; PostgreSQL's log %s says: %s", err, log, lastLines(log, from))
	}
	c, err := s.place.Control(ctx)
	if state := c["Database cluster state"]; err == nil && state != inProduction {
		err = fmt.Errorf("PostgreSQL was started here, but it is not the primary again: pg_controldata shows %q", state)
	}
	return err
}

// started waits until a server that is starting answers as the primary.
func (s *Switchover) started(ctx context.Context) error {
	return operation.Await("wait until PostgreSQL here has started", startPatience, func(ctx context.Context) error {
		if !s.serves(ctx) {
			return fmt.Errorf("it is still %q by %s; its log %s may say how far it is; once it answers, undo goes on",
				s.place.Status(), s.place.PIDFile(), s.log())
		}
		return nil
	}).Do(ctx)
}

// knownAsPrimary makes Pacemaker look again if it no longer knows PostgreSQL here as the primary: Pacemaker was
// restarted meanwhile. Otherwise it would start a second server once maintenance-mode is left.
func (s *Switchover) knownAsPrimary(ctx context.Context) error {
	known := func(ctx context.Context) error {
		who, err := s.Observer.Cluster(ctx)
		if err == nil && who.RoleOf(who.Self) != model.RolePromoted {
			err = fmt.Errorf("to Pacemaker it is %s", who.RoleText(who.Self))
		}
		return err
	}
	if known(ctx) == nil {
		return nil
	}
	if err := cib.Refresh(s.Clone.Primitive, s.Here.Name).Run(ctx); err != nil {
		return err
	}
	return operation.Await("wait until Pacemaker knows it", demotePatience, known).Do(ctx)
}

// seeEnd finds the end of the WAL here.
func (s *Switchover) seeEnd(ctx context.Context) error {
	c, err := s.place.Control(ctx)
	if err != nil {
		return err
	}
	if state := c["Database cluster state"]; state != "shut down" {
		return fmt.Errorf("it was not shut down as a primary: pg_controldata shows %q", state)
	}
	local, err := s.place.WAL(ctx, c)
	s.plan.End, s.plan.SystemID = local.End, local.SystemID
	return err
}

// lastLines are the last few lines of a file from a position on, in one line.
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
