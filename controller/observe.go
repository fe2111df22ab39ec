package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Observer reads everything a plan needs. It keeps the connection to the server, and what it read last.
type Observer struct {
	Node       string // this host's node name
	Resource   string // picks the database's clone; "" when there is only one
	Override   Target // what is set here wins over the agent's parameters
	Clusters   ClusterReader
	Attributes AttributeSetter
	Connect    Connector

	last   reconcile.Input
	target Target
	server Server
}

// Full reads the CIB, the server, and on a standby the upstream.
func (o *Observer) Full(ctx context.Context) (in reconcile.Input, err error) {
	in = reconcile.Input{Node: o.Node, Resource: o.Resource, Newest: o.last.Newest}
	defer func() { o.last = in }()
	cluster, err := o.Clusters.Read(ctx)
	if err != nil {
		in.ClusterProblem = err.Error()
		return in, nil
	}
	in.Cluster = &cluster
	if in.Newest.ConfigurationOlder(cluster.Version) {
		in.Newest = cluster.Version
	}
	if in.Instance, err = o.instance(ctx, cluster); err != nil {
		return in, err
	}
	return in, o.upstream(ctx, &in)
}

// Look reads the server only, and takes the rest as it was last.
func (o *Observer) Look(ctx context.Context) (reconcile.Input, error) {
	in := o.last
	if in.Cluster == nil {
		return in, nil
	}
	var err error
	in.Instance, err = o.instance(ctx, *in.Cluster)
	return in, err
}

// Apply carries out one step: on the server that was observed last, or in Pacemaker. Its errors have a class.
func (o *Observer) Apply(ctx context.Context, step model.Step) error {
	s, ok := step.(model.PublishAttribute)
	if !ok {
		return o.server.Apply(ctx, step)
	}
	err := o.Attributes.SetAttribute(ctx, s.Node, s.Name, s.To)
	if err == nil {
		return nil
	}
	class := postgres.Unknown
	switch {
	case errors.Is(err, cib.ErrTimeout), errors.Is(err, cib.ErrClusterDown):
		class = postgres.Transient
	case errors.Is(err, cib.ErrPermission):
		class = postgres.Permission
	}
	return &postgres.Error{Class: class, Doing: s.Kind() + " " + s.Text(), Err: err}
}

// Server is the one last observed, nil before any was.
func (o *Observer) Server() Server { return o.server }

// Close ends the connection.
func (o *Observer) Close() {
	if o.server != nil {
		o.server.Close()
		o.server = nil
	}
}

func (o *Observer) instance(ctx context.Context, cluster model.Cluster) (model.Instance, error) {
	clone, err := reconcile.Database(cluster, o.Resource)
	if err != nil {
		return model.Instance{}, err
	}
	target, err := targetOf(clone, o.Override)
	if err != nil {
		return model.Instance{}, err
	}
	if o.server == nil || target != o.target {
		o.Close()
		o.server, o.target = o.Connect(target), target
	}
	instance, err := o.server.Observe(ctx)
	if err != nil {
		return instance, fmt.Errorf("observe PostgreSQL at %s:%d: %w", target.SocketDir, target.Port, err)
	}
	return instance, nil
}

// upstream asks the primary, if this host is a standby of one by every sign: otherwise nobody may be there to answer.
func (o *Observer) upstream(ctx context.Context, in *reconcile.Input) error {
	plan, err := reconcile.Plan(*in)
	if err != nil || plan.Standing != model.Standby {
		return err
	}
	clone, err := reconcile.Database(*in.Cluster, o.Resource)
	if err != nil {
		return err
	}
	policy, _ := model.PolicyOf(clone)
	var slots []string
	for _, member := range policy.Members {
		slots = append(slots, policy.SlotNames()[member])
	}
	slices.Sort(slots)
	if upstream, err := o.server.ObserveUpstream(ctx, slices.Compact(slots)); err == nil {
		in.Upstream = &upstream
	} else {
		in.UpstreamProblem = err.Error()
	}
	return nil
}
