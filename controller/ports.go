package controller

import (
	"context"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
)

// ClusterReader reads the CIB.
type ClusterReader interface {
	Read(ctx context.Context) (model.Cluster, error)
}

// Pacemaker says what it calls this host, and of which release it is. Its errors are those of package cib.
type Pacemaker interface {
	LocalName(ctx context.Context) (string, error)
	Tools(ctx context.Context) (cib.Tools, error)
	AgentVersion(ctx context.Context, agent string) string
}

// AttributeSetter sets a transient node attribute. Its errors are those of package cib.
type AttributeSetter interface {
	SetAttribute(ctx context.Context, node, name, value string) error
}

// Executor carries out one step. Its errors have a class (postgres.ClassOf).
type Executor interface {
	Apply(ctx context.Context, step model.Step) error
}

// Server is the local PostgreSQL. Its calls have deadlines of their own and do not retry.
type Server interface {
	// Observe gives the server's state; a server that is down is a state, not an error.
	Observe(ctx context.Context) (model.Instance, error)
	// ObserveUpstream asks the server that the local standby replicates from about slots.
	ObserveUpstream(ctx context.Context, slots []string) (model.Upstream, error)
	// Postmaster holds the server's process, if its data folder is the one of the clone.
	Postmaster(ctx context.Context, clones string) (postgres.Postmaster, error)
	// Asker gives what asks the other members' servers, in the background.
	Asker() (postgres.Asker, error)
	Executor
	Close()
}

// Target is where the local server is, and as whom to connect.
type Target struct {
	DataDir   string // of the server that has to listen at the socket
	SocketDir string
	Port      uint16
	User      string
	Database  string
}

// Connector makes the Server of a target. It does not connect yet.
type Connector func(Target) Server

// Notifier tells the service manager how things are; see sd_notify(3).
type Notifier interface {
	Ready()
	Alive() // the watchdog's ping
	Status(line string)
	Stopping()
}
