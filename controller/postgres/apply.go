package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgrex/pgrex/model"
)

// reloadTimeout bounds how long a reload may take to be seen; settingPoll is how often one looks.
const (
	reloadTimeout = 3 * time.Second
	settingPoll   = 20 * time.Millisecond
)

// Apply carries out one step. Its precondition is asserted in the statement that changes something: no row means that
// it does not hold any more (Changed). An error is an *Error.
func (s *Server) Apply(ctx context.Context, step model.Step) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	doing := step.Kind() + " " + step.Text()
	if err := s.connect(ctx); err != nil {
		return classify(err, doing)
	}
	var err error
	switch step := step.(type) {
	case model.CreateSlot:
		err = s.one(ctx, sqlCreateSlot, step.Guard, step.Slot)
	case model.AdvanceSlot:
		err = s.one(ctx, sqlAdvanceSlot, step.Guard, step.Slot, lsnOrNull(step.From), step.To.String())
	case model.ResetSlot:
		err = s.one(ctx, sqlResetSlot, step.Guard, step.Slot, lsnOrNull(step.From))
	case model.DropSlot:
		err = s.one(ctx, sqlDropSlot, step.Guard, step.Slot, lsnOrNull(step.From))
	case model.SetPrimarySlotName:
		err = s.setPrimarySlotName(ctx, step)
	default:
		return &Error{Class: Unknown, Doing: doing, Err: errors.New("this step is not known")}
	}
	if s.conn != nil && s.conn.IsClosed() {
		s.disconnect()
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return classify(err, doing)
}

// one runs a guarded statement that gives one row when its precondition holds.
func (s *Server) one(ctx context.Context, sql string, guard model.Guard, values ...any) error {
	var result *string
	arguments := append([]any{guard.SystemID, guard.InRecovery, int32(guard.RedoTimeline)}, values...)
	err := s.conn.QueryRow(ctx, sql, arguments...).Scan(&result)
	if errors.Is(err, pgx.ErrNoRows) {
		return changed("what it was planned on is no longer so: the role, the timeline, or the slot has changed")
	}
	return err
}

func changed(what string) error {
	return &Error{Class: Changed, Doing: "check before changing", Err: errors.New(what)}
}

func lsnOrNull(l model.LSN) *string {
	if !l.IsValid() {
		return nil
	}
	s := l.String()
	return &s
}

// setPrimarySlotName sets it in postgresql.auto.conf and reloads. ALTER SYSTEM runs in no transaction block and no
// function, so that no condition can stand beside it: the condition is asserted before, and again by the reload, which is
// what makes the setting count. If it does not hold then, the former value is put back.
func (s *Server) setPrimarySlotName(ctx context.Context, step model.SetPrimarySlotName) error {
	var now string
	arguments := []any{step.Guard.SystemID, step.Guard.InRecovery, int32(step.Guard.RedoTimeline)}
	err := s.conn.QueryRow(ctx, sqlCheckSetting, arguments...).Scan(&now)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && now != step.From {
		return changed("the role, the timeline or the setting has changed")
	}
	if err != nil {
		return err
	}
	if err := s.alterSystem(ctx, step.To); err != nil {
		return err
	}
	if err := s.one(ctx, sqlReload, step.Guard); err != nil {
		if ClassOf(err) == Changed {
			return errors.Join(err, s.alterSystem(ctx, step.From))
		}
		return err
	}
	return s.awaitSetting(ctx, step.To)
}

func (s *Server) alterSystem(ctx context.Context, value string) error {
	_, err := s.conn.Exec(ctx, sqlSetSlotName+quoteLiteral(value))
	return err
}

// quoteLiteral quotes for a utility statement. Slot names hold nothing that needs it; this is for what might.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// awaitSetting waits until this session sees the value: the reload reaches it with the signal's arrival.
func (s *Server) awaitSetting(ctx context.Context, want string) error {
	deadline := time.Now().Add(reloadTimeout)
	for {
		var now string
		if err := s.conn.QueryRow(ctx, sqlSlotName).Scan(&now); err != nil {
			return err
		}
		if now == want {
			return nil
		}
		if time.Now().After(deadline) {
			return &Error{Class: Configuration, Doing: "set primary_slot_name", Err: fmt.Errorf(
				"it is still '%s' after ALTER SYSTEM and a reload: look for it on PostgreSQL's command line, and for errors in its log", now)}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settingPoll):
		}
	}
}
