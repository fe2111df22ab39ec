package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Commit commits a transaction that changes no data, to see that commits are taken. An error is an *Error.
func (s *Server) Commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	_, err := call(ctx, s.local, func() (struct{}, error) {
		return struct{}{}, s.query(ctx, func(io context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(io, sqlCommit)
			return err
		})
	})
	return s.unanswered(err, "commit")
}
