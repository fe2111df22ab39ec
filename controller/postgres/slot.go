package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

// makeSlot runs a guarded statement that makes a slot, and sees where the slot stands.
func (s *Server) makeSlot(ctx context.Context, sql string, guard model.Guard, values ...any) error {
	var at, redo *string
	if err := s.row(ctx, sql, append(guardValues(guard), values...), &at, &redo); err != nil {
		return err
	}
	return s.madeAt(at, redo)
}

// resetSlot makes a slot anew: one that holds WAL only where it stands further back then.
func (s *Server) resetSlot(ctx context.Context, step model.ResetSlot) error {
	if !step.From.IsValid() {
		return s.makeSlot(ctx, sqlResetSlot, step.Guard, step.Slot, nil)
	}
	values := append(guardValues(step.Guard), step.Slot, step.From.String())
	var at, redo *string
	var made bool
	err := s.row(ctx, sqlResetBack, values, &at, &redo, &made, nil)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // it is lost, or the guard does not hold
		return s.makeSlot(ctx, sqlResetSlot, step.Guard, step.Slot, step.From.String())
	case err != nil:
		return err
	}
	if err := s.madeAt(at, redo); made {
		return err
	}
	return &Error{Class: Changed, Err: fmt.Errorf("the slot stays at %s: one that is made now would stand at %s", step.From, *at)}
}

// madeAt remembers where a slot was made. Where that is further on than the plan could know, nothing else of it holds.
func (s *Server) madeAt(at, redo *string) error {
	if at == nil {
		return errNotReserved
	}
	stands, err := model.ParseLSN(*at)
	if err != nil {
		return err
	}
	complete, err := model.ParseLSN(*redo)
	if err != nil {
		return err
	}
	known := max(complete, s.reserves)
	s.reserves = stands
	if stands > known {
		return &Error{Class: Changed, Err: fmt.Errorf(
			"the slot is made, and holds WAL from %s on: a checkpoint or restartpoint is under way, and the last complete one is at %s", stands, complete)}
	}
	return nil
}
