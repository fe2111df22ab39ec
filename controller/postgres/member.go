package postgres

import (
	"context"
	"fmt"

	"github.com/pgrex/pgrex/model"
)

// Asker asks the server of another member for its identity, and for slots by name. Several goroutines may use it at
// once. It leaves at most one connection on a server that hangs.
type Asker func(ctx context.Context, address string, slots []string) (model.Upstream, error)

// Asker returns an Asker with the credentials and the port of primary_conninfo, which a primary has as well. Observe
// must have read primary_conninfo before.
func (s *Server) Asker() (Asker, error) {
	conninfo, err := s.credentials()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, address string, slots []string) (model.Upstream, error) {
		return s.askMember(ctx, conninfo, address, slots)
	}, nil
}

func (s *Server) askMember(ctx context.Context, conninfo, address string, slots []string) (model.Upstream, error) {
	doing := "ask the server at " + address
	if conninfo == "" {
		return model.Upstream{}, &Error{Class: Configuration, Doing: doing, Err: fmt.Errorf("primary_conninfo is empty here, so that there are no credentials to ask with")}
	}
	answer, err := s.others.to(address, conninfo).ask(ctx, slots)
	return answer, classify(err, doing)
}
