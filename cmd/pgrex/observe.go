package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// observer reads this host as the settings say.
func (s *settings) observer() *controller.Observer {
	pacemaker := &cib.Client{}
	kept, _ := controller.LoadState(s.StateDir) // the daemon reports errors; a user who may not read it goes on without it
	return &controller.Observer{
		Kept:       kept,
		Operation:  func() *model.LocalOperation { return operation.Left(s.StateDir) },
		AutoRejoin: func() *model.AutoRejoin { return operation.AutoRejoin(s.StateDir) },
		Node:       s.Node,
		Resource:   s.Resource,
		Override:   controller.Target{DataDir: s.PGData, SocketDir: s.PGSocketDir, Port: s.PGPort, User: s.PGUser, Database: s.PGDatabase},
		Clusters:   pacemaker, Pacemaker: pacemaker, Attributes: pacemaker,
		Connect: func(t controller.Target) controller.Server {
			return postgres.NewServer(postgres.Config{DataDir: t.DataDir, SocketDir: t.SocketDir, Port: t.Port, User: t.User, Database: t.Database})
		},
	}
}

// observeOnce looks at this host once, and closes what it opened.
func (s *settings) observeOnce(ctx context.Context) (reconcile.Who, error) {
	o := s.observer()
	defer o.Close()
	return look(ctx, o)
}

// look looks once, at everything. What a look that was interrupted made of the cluster and the server means nothing.
func look(ctx context.Context, o *controller.Observer) (reconcile.Who, error) {
	who, err := o.Full(ctx)
	if ctx.Err() != nil {
		return reconcile.Who{}, ctx.Err()
	}
	return who, err
}

// snapshotOf is the document for an input taken now.
func snapshotOf(in reconcile.Input) ([]byte, error) {
	return reconcile.Snapshot{Taken: time.Now().UTC().Truncate(time.Second), Input: in}.Encode()
}

// planFrom makes the plan of a look, unless that says too little for a plan to mean anything.
func planFrom(who reconcile.Who) (model.Plan, error) {
	if err := blind(who.Input); err != nil {
		return model.Plan{}, err
	}
	return who.Plan(), nil
}

// blind tells why an input says too little.
func blind(in reconcile.Input) error {
	switch {
	case in.Cluster == nil:
		return errors.New(cmp.Or(in.ClusterProblem, "there is no CIB in the snapshot"))
	case in.Instance.State == model.ServerUnreachable:
		return fmt.Errorf("PostgreSQL could not be asked: %s", in.Instance.Problem)
	}
	return nil
}
