package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

// Config says where the local server is, and as whom to connect.
type Config struct {
	SocketDir string // folder of the unix socket
	DataDir   string // the data folder of the server that has to listen there; "" to take whoever does, in tests
	Port      uint16
	User      string
	Database  string
}

// Server is the local PostgreSQL, over one kept connection. It is not for concurrent use. Each of its calls has a
// deadline. A call that has passed its deadline stays in flight, and all further calls fail at once until it ends.
type Server struct {
	config Config
	local  *lane     // only its call in flight may use the fields down to reserves
	conn   *pgx.Conn // kept
	// reserves is where the slot stands that was made last, in this server's life.
	reserves model.LSN

	conninfo *string // primary_conninfo, as it was last observed
	space    *lane   // of the file system of pg_wal
	listing  listing // the last one
	others   others
}

// NewServer makes a Server. It connects when it is first used.
func NewServer(config Config) *Server {
	return &Server{config: config, local: newLane("PostgreSQL"), space: newLane("the file system")}
}

// Close ends the connections, and cuts what is in flight. The Server cannot be used after that.
func (s *Server) Close() {
	if s.local.idle() {
		s.disconnect()
	}
	s.local.close()
	s.space.close()
	s.others.close()
}

// observation is what Observe's round trips have found.
type observation struct {
	document    []byte         // the JSON form of the instance
	instance    model.Instance // the rest of it
	reserves    model.LSN
	conninfo    *string
	application string // in conninfo
	walFolder   string
}

// Observe reads the server's state in one round trip, and in others the WAL's. That it cannot be talked to is a state,
// too. Of a server that hangs the state says since when.
func (s *Server) Observe(ctx context.Context) (model.Instance, error) {
	asking, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	seen, err := call(asking, s.local, func() (observation, error) { return s.observe(asking) })
	if err != nil {
		s.conninfo = nil
		return s.notUp(err)
	}
	s.conninfo = seen.conninfo
	instance := &seen.instance
	if err := json.Unmarshal(seen.document, instance); err != nil {
		return model.Instance{}, fmt.Errorf("read what PostgreSQL says of itself: %w", err)
	}
	if seen.reserves > instance.Redo {
		instance.Reserves = seen.reserves
	}
	if instance.InRecovery {
		instance.ApplicationName = seen.application
	}
	s.observeSpace(ctx, &seen)
	return *instance, nil
}

func (s *Server) observe(ctx context.Context) (observation, error) {
	var seen observation
	err := s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(io, sqlObserve, kept).Scan(&seen.document, &seen.conninfo)
	})
	if err != nil {
		return seen, err
	}
	seen.reserves = s.reserves
	if seen.conninfo != nil {
		seen.application = applicationNameIn(*seen.conninfo) // which may have to read a service file
	}
	if err := s.observeWAL(ctx, &seen); err != nil {
		seen.instance.WALProblem = err.Error()
	}
	return seen, nil
}

// Settings reads settings by name, as pg_settings shows them. One that this server does not have is left out.
func (s *Server) Settings(ctx context.Context, names []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	settings, err := call(ctx, s.local, func() (map[string]string, error) {
		settings := map[string]string{}
		err := s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
			rows, err := conn.Query(io, sqlSettings, names)
			if err != nil {
				return err
			}
			var name, setting string
			_, err = pgx.ForEachRow(rows, []any{&name, &setting}, func() error { settings[name] = setting; return nil })
			return err
		})
		return settings, err
	})
	if err != nil {
		return nil, s.unanswered(err, "read settings")
	}
	return settings, nil
}

// Replications are the standbys that the local primary sends WAL to, in order of name.
func (s *Server) Replications(ctx context.Context) ([]model.Replication, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	standbys, err := call(ctx, s.local, func() (standbys []model.Replication, err error) {
		err = s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
			rows, err := conn.Query(io, sqlStandbys)
			if err != nil {
				return err
			}
			standbys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[model.Replication])
			return err
		})
		return standbys, err
	})
	return standbys, s.unanswered(err, "ask who streams from here")
}

// Checkpoint makes a checkpoint of the local server. It may take minutes.
func (s *Server) Checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	_, err := call(ctx, s.local, func() (struct{}, error) {
		defer s.disconnect() // the session's deadline is gone
		return struct{}{}, s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(io, sqlNoTimeout); err != nil {
				return err
			}
			_, err := conn.Exec(io, sqlCheckpoint)
			return err
		})
	})
	return s.unanswered(err, "make a checkpoint")
}
