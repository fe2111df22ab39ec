package service

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/model"
)

// Stop plans to stop the database here. There are no steps if it is stopped. The primary is stopped last: to stop it
// while others run is a failover, which only force allows.
func (s *Service) Stop(ctx context.Context, checkpoint, force bool) (operation.Job, error) {
	h, err := s.look(ctx)
	if err != nil || h.away() && h.role() == model.RoleStopped && !h.place.Runs() {
		return operation.Job{}, err
	}
	standbys := h.standbys()
	failover := h.isPrimary() && len(standbys) > 0
	if failover && !force {
		return operation.Job{}, fmt.Errorf("this host, %s, is the primary, and its standbys run (%s), so a stop would "+
			"be a failover: type sudo pgrex switchover first; to stop the whole cluster, type sudo pgrex stop on %[2]s first "+
			"and here last; --force stops this host anyway", h.Here.Name, strings.Join(standbys, ", "))
	}
	server, err := s.server(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	p := &Plan{Force: force, Checkpoint: checkpoint, Kept: h.kept(), Failover: failover && len(h.Successors()) > 0}
	if before := s.before(Stop); before != nil { // it may have begun the failover already
		p.Kept, p.Failover = before.Kept, p.Failover || before.Failover
	}
	job := s.job(ctx, Stop, h, p)
	job.Says = append(h.leaves(failover, standbys), s.caseOf(h, p).Warnings(ctx)...)
	if checkpoint && server != nil && !h.away() { // or else Pacemaker is stopping it by now
		job.Steps = append(job.Steps, operation.Step{ID: "checkpoint", Action: operation.Program{
			Text: "run a checkpoint here to shorten the stop", Run: server.Checkpoint,
		}})
	}
	job.Steps = append(append(job.Steps, s.unchanged(h, failover)), s.keepAway(h, p)...)
	return job, nil
}

// keepAway are the steps by which Pacemaker stops the database and leaves it stopped.
func (s *Service) keepAway(h self, p *Plan) []operation.Step {
	steps := s.rejoin().KeepAway(s.caseOf(h, p))
	if p.Failover {
		steps[0].Back = []operation.Action{operation.Look{Text: "see that the database is not kept from this node", See: func(ctx context.Context) error {
			who, err := s.Observer.Cluster(ctx)
			if err == nil && (here{who}).kept() {
				err = errors.New("it is, and another host is the primary now or soon: type sudo pgrex operation finish")
			}
			return err
		}}}
		steps[0].NoReturn = "another host is the primary now or soon; to bring this one back, type: sudo pgrex rejoin"
	}
	return steps
}

// unchanged looks again: the operator may have taken a while to answer, and so may a checkpoint.
func (s *Service) unchanged(h self, failover bool) operation.Step {
	return operation.Step{ID: "unchanged", Action: operation.Look{
		Text: "see that the database here is still " + h.RoleText(h.Self), See: func(ctx context.Context) error {
			now, err := s.look(ctx)
			switch {
			case err != nil:
				return err
			case now.isPrimary() != h.isPrimary() && !h.away(): // that a standby has just finished its start changes nothing
				return fmt.Errorf("it is now %s: type sudo pgrex stop again", now.RoleText(now.Self))
			case now.kept() && !h.kept(): // undoing this stop would start what the other one has stopped
				return errors.New("another operation has stopped it: type sudo pgrex stop again")
			case now.isPrimary() && !failover && len(now.standbys()) > 0:
				return fmt.Errorf("%s runs now, so a stop would be a failover: type sudo pgrex stop again",
					strings.Join(now.standbys(), ", "))
			}
			return nil
		},
	}}
}
