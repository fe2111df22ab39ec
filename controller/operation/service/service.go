package service

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// Service starts and stops the database of this host through Pacemaker. A constraint of pgrex's own keeps a stopped
// database from this node, even after a restart of Pacemaker. Other resources on the node go on.
type Service struct {
	Observer *controller.Observer // of this host
	Left     *operation.Journal   // of an operation that was left here and is to be finished; may be nil
	Report   operation.Reporter   // of what takes long; may be nil
	// CorosyncConf is corosync's configuration; "" for cib.CorosyncConf.
	CorosyncConf string
}

// self is this host in the cluster, fit to be started or stopped.
type self struct {
	here
	place datadir.Place
}

func (s *Service) look(ctx context.Context) (self, error) {
	who, err := s.Observer.Cluster(ctx)
	if err == nil {
		err = operation.Preflight(who, operation.Demand{Managed: true})
	}
	if err != nil {
		return self{}, err
	}
	place, err := datadir.Of(who.Clone)
	return self{here{who}, place}, err
}

// The names of the operations, in journals and tokens.
const (
	Start = "start"
	Stop  = "stop"
)

// Plan is what the journal keeps: what the operator asked for, and how this host was before.
type Plan struct {
	Force      bool   `json:"force"`
	Follow     bool   `json:"follow"` // the start of a standby
	Proven     bool   `json:"proven"` // it was proven that no other host has newer data
	Checkpoint bool   `json:"checkpoint"`
	Standby    bool   `json:"node_standby"` // Pacemaker's standby mode was on
	Kept       bool   `json:"kept_stopped"` // pgrex kept the database stopped
	Failover   bool   `json:"failover"`     // the primary is stopped while others run
	DataStatus string `json:"data_status"`  // the agent's node attribute, where it is changed
	Locked     bool   `json:"locked"`       // the agent's lock was there
	Timeline   uint32 `json:"timeline"`     // the newest that the data had WAL of; 0 if that is not known
}

// rejoin is the operation from which start and stop borrow steps. caseOf is the case from which it makes them.
func (s *Service) rejoin() *rejoin.Rejoin {
	return &rejoin.Rejoin{Observer: s.Observer, Report: s.Report}
}

func (s *Service) caseOf(h self, p *Plan) *rejoin.Case {
	return &rejoin.Case{
		Primitive: h.Clone.Primitive, Clone: h.Clone.ID, Node: h.Here.Name, Place: h.place, Standby: p.Standby, Kept: p.Kept,
	}
}

// job begins to plan. It goes on with its own operation if that was left here.
func (s *Service) job(ctx context.Context, name string, h self, p *Plan) operation.Job {
	job := operation.NewJob(name, h.Who, operation.On(h.place.Identity(ctx)))
	job.Plan, job.Continues = p, func(j *operation.Journal) bool {
		return s.Left != nil && j.Operation == name && j.Token == s.Left.Token
	}
	return job
}

// before is the plan of the operation of that name that was left here, or nil.
func (s *Service) before(name string) *Plan {
	var p Plan
	if s.Left == nil || s.Left.Operation != name || s.Left.Read(&p) != nil {
		return nil
	}
	return &p
}

// Resume makes the steps of an operation that was left, to undo them. To finish it, plan a new one: the database here
// may have been started or stopped since.
func (s *Service) Resume(ctx context.Context, j *operation.Journal) (operation.Job, error) {
	var p Plan
	if err := j.Read(&p); err != nil {
		return operation.Job{}, err
	}
	who, err := s.Observer.Cluster(ctx)
	if err != nil {
		return operation.Job{}, err
	}
	if !dataStatus.MatchString(p.DataStatus) { // the plan is the data owner's to write
		return operation.Job{}, fmt.Errorf("the data status in the plan of the journal is none of the agent's: %q",
			p.DataStatus)
	}
	h := self{here: here{who}}
	if h.place, err = datadir.Of(who.Clone); err != nil {
		return operation.Job{}, err
	}
	job := s.job(ctx, j.Operation, h, &p)
	switch {
	case j.Operation == Stop:
		job.Steps = s.keepAway(h, &p)
	case j.Operation == Start && p.Follow:
		c := s.caseOf(h, &p)
		c.Slot = h.OwnSlot()
		job.Steps = append(s.hand(h, &p), s.rejoin().AwaitStreams(c))
	case j.Operation == Start:
		job.Steps = slices.Concat(s.claim(h, &p), s.hand(h, &p), s.promoted())
	}
	return job, nil
}

// dataStatus is what the agent's node attribute says of data.
var dataStatus = regexp.MustCompile(`^(LATEST|DISCONNECT|(STREAMING|CATCHUP|STARTUP|BACKUP|STOPPING)\|[A-Z]+)?$`)

// server is the local server, or nil if it is not up.
func (s *Service) server(ctx context.Context) (*postgres.Server, error) {
	in, err := s.Observer.Full(ctx)
	if err != nil || in.Instance.State != model.ServerUp {
		return nil, err
	}
	server, ok := s.Observer.Server().(*postgres.Server)
	if !ok {
		return nil, fmt.Errorf("the server is a %T", s.Observer.Server())
	}
	return server, nil
}
