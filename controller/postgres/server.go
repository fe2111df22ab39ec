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

// Server is the local PostgreSQL, over one kept connection. It is not for concurrent use.
type Server struct {
	config   Config
	conn     *pgx.Conn
	reserves model.LSN // where the slot stands that was made last, in this server's life
	upstream *upstream
	space    chan spaceAnswer // of the file system that was asked and has not answered yet
}

// NewServer makes a Server. It connects when it is first used.
func NewServer(config Config) *Server { return &Server{config: config} }

// Close ends the connections.
func (s *Server) Close() {
	s.disconnect()
	s.closeUpstream()
}

// Observe reads the server's state in one round trip, and in another one the WAL's. That it cannot be talked to is a state,
// too.
func (s *Server) Observe(ctx context.Context) (model.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	var document []byte
	var conninfo *string
	err := s.query(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sqlObserve).Scan(&document, &conninfo)
	})
	if err != nil {
		return s.notUp(err)
	}
	var instance model.Instance
	if err := json.Unmarshal(document, &instance); err != nil {
		return model.Instance{}, fmt.Errorf("read what PostgreSQL says of itself: %w", err)
	}
	if s.reserves > instance.Redo {
		instance.Reserves = s.reserves
	}
	if conninfo != nil {
		instance.ApplicationName = applicationNameIn(*conninfo)
	}
	if !instance.InRecovery || s.upstream.idle() {
		s.closeUpstream() // a primary has none, and walsenders are scarce
	}
	if err := s.observeWAL(ctx, &instance); err != nil {
		instance.WALSpace, instance.Budget, instance.WALProblem = nil, nil, err.Error()
	}
	return instance, nil
}

// Settings reads settings by name, as pg_settings shows them. One that this server does not have is left out.
func (s *Server) Settings(ctx context.Context, names []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	settings := map[string]string{}
	err := s.query(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sqlSettings, names)
		if err != nil {
			return err
		}
		var name, setting string
		_, err = pgx.ForEachRow(rows, []any{&name, &setting}, func() error { settings[name] = setting; return nil })
		return err
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
	var standbys []model.Replication
	err := s.query(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sqlStandbys)
		if err != nil {
			return err
		}
		standbys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[model.Replication])
		return err
	})
	if err != nil {
		return nil, s.unanswered(err, "ask who streams from here")
	}
	return standbys, nil
}

// Checkpoint makes a checkpoint of the local server. It may take minutes.
func (s *Server) Checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	err := s.query(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, sqlNoTimeout); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, sqlCheckpoint)
		return err
	})
	s.disconnect() // the session's deadline is gone
	if err != nil {
		return s.unanswered(err, "make a checkpoint")
	}
	return nil
}
