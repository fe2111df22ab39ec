package postgres

import (
	"context"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

// Asker asks the server of another member who it is, and for slots by name. It may be used by several goroutines at once,
// and opens a connection for each question that it closes at once: walsenders are scarce.
type Asker func(ctx context.Context, address string, slots []string) (model.Upstream, error)

// Asker reads primary_conninfo, which a primary has as well, and gives what asks others with its credentials, at its port.
func (s *Server) Asker(ctx context.Context) (Asker, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	var conninfo string
	if err := s.query(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, sqlConninfo).Scan(&conninfo) }); err != nil {
		return nil, s.unanswered(err, "read primary_conninfo")
	}
	return func(ctx context.Context, address string, slots []string) (model.Upstream, error) {
		return askMember(ctx, conninfo, address, slots)
	}, nil
}

func askMember(ctx context.Context, conninfo, address string, slots []string) (model.Upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	doing := "ask the server at " + address
	if conninfo == "" {
		return model.Upstream{}, &Error{Class: Configuration, Doing: doing, Err: fmt.Errorf("primary_conninfo is empty here, so that there are no credentials to ask with")}
	}
	if net.ParseIP(address) == nil {
		found, err := net.DefaultResolver.LookupHost(ctx, address)
		if err != nil || len(found) == 0 {
			return model.Upstream{}, &Error{Class: Transient, Doing: doing, Err: fmt.Errorf("its name is not known here")}
		}
		address = found[0]
	}
	u, err := openUpstream(ctx, withKeyword(conninfo, "hostaddr", address))
	if err != nil {
		return model.Upstream{}, classify(err, doing)
	}
	source := Source{u}
	defer source.Close()
	answer, err := u.ask(ctx, slots)
	return answer, classify(err, doing)
}
