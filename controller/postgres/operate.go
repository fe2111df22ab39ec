package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Commit commits a transaction that changes no data, to see that commits are taken. An error is an *Error.
func (s *Server) Commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	err := s.query(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sqlCommit)
		return err
	})
	if err != nil {
		return s.unanswered(err, "commit")
	}
	return nil
}
