package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

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
	Pacemaker  Pacemaker // nil where nobody is to be asked for this host's name, as in tests
	Attributes AttributeSetter
	Connect    Connector
	Kept       State // saved before the start, and of the cluster what was seen since
	// Patient is set by who looks again and again: nobody being the primary is no outage before that has lasted.
	Patient bool
	// Operation, if not nil, is called in each look. It returns what the state folder says of an operation that was
	// begun on this host, or nil if that is unknown. It must not wait.
	Operation func() *model.LocalOperation
	// AutoRejoin, if not nil, is called in each look. It returns what this host remembers of its ways back without a
	// person, or nil if that is unknown. It must not wait.
	AutoRejoin func() *model.AutoRejoin
	// Ended, if not nil, is called whenever a call has ended, with or without an answer.
	Ended func()

	noPrimary time.Time   // since when nobody is the primary; zero while somebody is
	locked    chan string // where the lock is, by a file system that has not answered yet

	last     reconcile.Who
	name     model.LocalName // zero before Pacemaker was asked, and again after each outage
	versions model.Versions
	dated    time.Time // when the versions were last asked for
	target   Target
	server   Server
	looks    looks
	silent   bool // a call of the last look had no answer: the rest of the pass asks nobody else
}

// Deadlines for what is asked beside the CIB.
const (
	nameTimeout     = 10 * time.Second
	versionsTimeout = 5 * time.Second
	lockTimeout     = time.Second // a file system answers from memory
	// versionsAge is how long versions are taken for granted: packages are seldom upgraded.
	versionsAge = 10 * time.Minute
)

// Full reads the CIB, the server, and on a standby the upstream.
func (o *Observer) Full(ctx context.Context) (who reconcile.Who, err error) {
	o.silent = false
	defer func() { o.last = who }()
	in, err := o.cluster(ctx)
	if err != nil {
		return reconcile.Resolve(in) // that there is no cluster is a finding
	}
	return o.look(ctx, in, o.upstream)
}

// Look reads the server only, and takes the rest as it was last.
func (o *Observer) Look(ctx context.Context) (reconcile.Who, error) {
	if o.last.Cluster == nil {
		return o.last, nil
	}
	in := o.last.Input
	in.Operation, in.AutoRejoin = since(in.Operation, o.operation()), o.autoRejoin()
	return o.look(ctx, in, func(context.Context, *reconcile.Who) {})
}

// Cluster reads the CIB only. Where that cannot be read, or does not say who is who, the error says so. The standing
// is in transition: the server was not looked at.
func (o *Observer) Cluster(ctx context.Context) (reconcile.Who, error) {
	in, err := o.cluster(ctx)
	if err != nil {
		return reconcile.Who{Input: in}, err
	}
	return reconcile.ResolveCluster(in)
}

// Glance reads the CIB only, as Cluster does, and asks for nothing that seldom changes: this host's name is the one that
// was last answered. Not even an error here makes it doubtful: the next full look asks anew after one.
func (o *Observer) Glance(ctx context.Context) (reconcile.Who, error) {
	in, err := o.read(ctx)
	if err != nil {
		return reconcile.Who{Input: in}, err
	}
	if o.Pacemaker != nil {
		in.LocalName = o.name
		if o.name == (model.LocalName{}) {
			in.LocalName.Problem = "it has not been asked"
		}
	}
	return reconcile.ResolveCluster(in)
}

// cluster is an input with what Pacemaker says.
func (o *Observer) cluster(ctx context.Context) (reconcile.Input, error) {
	in, err := o.read(ctx)
	if err != nil {
		o.name = model.LocalName{}
		return in, err
	}
	if o.Pacemaker != nil {
		in.LocalName = o.askName(ctx)
		o.ended()
		in.Versions = o.askVersions(ctx)
		o.ended()
	}
	return in, nil
}

// read is an input with what the CIB says.
func (o *Observer) read(ctx context.Context) (reconcile.Input, error) {
	in := reconcile.Input{
		Node: o.Node, Resource: o.Resource, Newest: o.last.Newest, Operation: o.operation(), AutoRejoin: o.autoRejoin(),
	}
	began := time.Now()
	cluster, err := o.Clusters.Read(ctx)
	o.looked(SourceCIB, began, err == nil)
	in.Operation = since(in.Operation, o.operation())
	if in.Operation.None() && !cluster.HasTokens() {
		in.Operation = nil // no operation anywhere: nothing to report
	}
	if err != nil {
		in.ClusterProblem = err.Error()
		return in, err
	}
	in.Cluster = &cluster
	for _, seen := range []model.Version{o.Kept.newest(cluster), cluster.Version} {
		if in.Newest.ConfigurationOlder(seen) {
			in.Newest = seen
		}
	}
	o.Kept.Cluster, o.Kept.Newest = cluster.Properties[clusterName], in.Newest
	return in, nil
}

func (o *Observer) operation() *model.LocalOperation {
	if o.Operation == nil {
		return nil
	}
	return o.Operation()
}

func (o *Observer) autoRejoin() *model.AutoRejoin {
	if o.AutoRejoin == nil {
		return nil
	}
	return o.AutoRejoin()
}

// since returns what the state folder says now. before is what it said before the CIB was read. An operation that has
// ended in between counts as unknown, because that CIB still has its token.
func since(before, now *model.LocalOperation) *model.LocalOperation {
	if now.None() && !before.None() {
		return nil
	}
	return now
}

func (o *Observer) ended() {
	if o.Ended != nil {
		o.Ended()
	}
}

// looked ends a look at one source.
func (o *Observer) looked(source Source, began time.Time, answered bool) {
	if o.looks == nil {
		o.looks = looks{}
	}
	o.looks.ended(source, began, answered)
	o.ended()
}

// askName asks Pacemaker what it calls this host, once after each outage. It does not ask where a variable leads the
// tools to a file: the name would be that of another cluster.
func (o *Observer) askName(ctx context.Context) model.LocalName {
	if o.name != (model.LocalName{}) {
		return o.name
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	if variable := cib.NoClusterVariable(); variable != "" {
		o.name.NotAsked = variable + " is set"
	} else if name, err := o.Pacemaker.LocalName(ctx); err == nil {
		o.name.Name = name
	} else {
		o.silent = errors.Is(err, cib.ErrTimeout)
		return model.LocalName{Problem: err.Error()} // and asked again at the next look
	}
	return o.name
}

// askVersions asks now and then. Nothing depends on versions, so that what nobody knows stays empty.
func (o *Observer) askVersions(ctx context.Context) model.Versions {
	if o.silent || !o.dated.IsZero() && time.Since(o.dated) < versionsAge {
		return o.versions
	}
	ctx, cancel := context.WithTimeout(ctx, versionsTimeout)
	defer cancel()
	o.dated, o.versions = time.Now(), model.Versions{}
	if tools, err := o.Pacemaker.Tools(ctx); err == nil {
		o.versions.Pacemaker = tools.Version
	}
	for _, agent := range model.DatabaseAgents {
		o.versions.ResourceAgents = cmp.Or(o.versions.ResourceAgents, o.Pacemaker.AgentVersion(ctx, agent))
	}
	o.silent = errors.Is(ctx.Err(), context.DeadlineExceeded)
	return o.versions
}

// look finds out who is who, observes the server, and asks the upstream as it is told.
func (o *Observer) look(ctx context.Context, in reconcile.Input, ask func(context.Context, *reconcile.Who)) (reconcile.Who, error) {
	in.Lock, in.WithoutPrimary = "", 0
	who, err := reconcile.ResolveCluster(in)
	if err == nil && who.Policy.AutoRejoin == model.DearestNone && in.AutoRejoin.Nothing() { // or older versions could not read the snapshot
		in.AutoRejoin, who.AutoRejoin = nil, nil
	}
	if err == nil && who.Primary == "" {
		in.Lock, in.WithoutPrimary = o.lockOf(who.Clone), o.withoutPrimary()
		who, err = reconcile.ResolveCluster(in)
	} else {
		o.noPrimary = time.Time{}
	}
	if err != nil {
		return who, err
	}
	if who.Instance, err = o.instance(ctx, who.Clone); err != nil {
		return who, err
	}
	if who.Instance.State == model.ServerDown && who.Primary != "" { // an old primary's, which keeps it from starting
		who.Lock = o.lockOf(who.Clone)
	}
	who = who.WithServer()
	o.Kept.Standbys = standbysOf(who, o.Kept.Standbys)
	o.Kept.Primary, o.Kept.Standby = lastPrimary(who, o.Kept.Primary), lastStandby(who, o.Kept.Standby)
	ask(ctx, &who)
	return who, nil
}

// withoutPrimary is for how many seconds nobody has been the primary, as Input has it. In a single look it is not
// known.
func (o *Observer) withoutPrimary() float64 {
	switch {
	case !o.Patient:
		return 0
	case o.noPrimary.IsZero():
		o.noPrimary = time.Now()
	}
	return max(1, time.Since(o.noPrimary).Seconds())
}

// lockOf is the agent's PGSQL.lock, where it is there. A file system that does not answer is asked once, and not
// awaited.
func (o *Observer) lockOf(clone model.Clone) string {
	if o.locked == nil {
		o.locked = make(chan string, 1)
		go func(answer chan<- string) {
			path := filepath.Join(clone.TmpFolder(), "PGSQL.lock")
			if _, err := os.Stat(path); err != nil {
				path = ""
			}
			answer <- path
		}(o.locked)
	}
	select {
	case path := <-o.locked:
		o.locked = nil
		return path
	case <-time.After(lockTimeout):
		return ""
	}
}

// Apply carries out one step: on the server that was observed last, or in Pacemaker. Its errors have a class.
func (o *Observer) Apply(ctx context.Context, step model.Step) error {
	defer o.ended()
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
	case errors.Is(err, cib.ErrTimeout):
		class = postgres.NoAnswer
	case errors.Is(err, cib.ErrClusterDown):
		class = postgres.Transient
	case errors.Is(err, cib.ErrPermission):
		class = postgres.Permission
	}
	return &postgres.Error{Class: class, Doing: s.Kind() + " " + s.Text(), Err: err}
}

// state returns what the daemon keeps of the cluster: its name, the newest CIB seen, where the members stream from, and
// what this host had as the primary and as a standby.
func (o *Observer) state() State {
	k := o.Kept
	return State{Cluster: k.Cluster, Newest: k.Newest, Standbys: k.Standbys, Primary: k.Primary, Standby: k.Standby}
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

func (o *Observer) instance(ctx context.Context, clone model.Clone) (model.Instance, error) {
	target, err := targetOf(clone, o.Override)
	if err != nil {
		return model.Instance{}, err
	}
	if o.server == nil || target != o.target {
		o.Close()
		o.server, o.target = o.Connect(target), target
	}
	began := time.Now()
	instance, err := o.server.Observe(ctx)
	o.looked(SourcePostgreSQL, began, err == nil && instance.State != model.ServerUnreachable)
	if err != nil {
		return instance, fmt.Errorf("observe PostgreSQL at %s:%d: %w", target.SocketDir, target.Port, err)
	}
	return instance, nil
}

// upstream asks the primary, if this host is a standby of one by every sign: otherwise nobody may be there to answer.
func (o *Observer) upstream(ctx context.Context, who *reconcile.Who) {
	who.Upstream, who.UpstreamProblem = nil, ""
	switch {
	case who.Standing != model.Standby:
		return
	case o.silent:
		who.UpstreamProblem = "not asked: Pacemaker, or the host's package manager, has not answered in time"
		return
	}
	began := time.Now()
	upstream, err := o.server.ObserveUpstream(ctx, who.SlotNames())
	o.looked(SourcePrimary, began, err == nil)
	if err == nil {
		who.Upstream = &upstream
		return
	}
	who.UpstreamProblem = err.Error()
	// A primary that hangs is waited for only once: after that, the same problem is reported at once.
	o.silent = postgres.ClassOf(err) == postgres.NoAnswer && who.UpstreamProblem != o.last.UpstreamProblem
}
