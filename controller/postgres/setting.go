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

// setPrimarySlotName sets it in postgresql.auto.conf and reloads. ALTER SYSTEM runs in no transaction block and no
// function, so that no condition can stand beside it: the condition is asserted before, and again by the reload, which is
// what makes the setting count. If it does not hold then, what the file said before is put back: a host that has just
// been promoted would hand another's name to the next copy made of it.
func (s *Server) setPrimarySlotName(ctx context.Context, step model.SetPrimarySlotName) error {
	var now string
	var commandLine bool
	var former *string // in postgresql.auto.conf; the setting itself may come from another file
	err := s.conn.QueryRow(ctx, sqlCheckSetting, guardValues(step.Guard)...).Scan(&now, &commandLine, &former)
	switch {
	case err != nil:
		return err
	case now != step.From:
		return pgx.ErrNoRows
	case commandLine:
		return configuration("PostgreSQL's command line sets it to '%s', which no file can change: take it out of start_opt", now)
	}
	if err := s.alterSystem(ctx, &step.To); err != nil {
		return err
	}
	err = s.one(ctx, sqlReload, step.Guard)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.putBack(ctx, former)
	}
	if err != nil {
		return err
	}
	return s.awaitSetting(ctx, step.To)
}

func configuration(format string, values ...any) error {
	return &Error{Class: Configuration, Err: fmt.Errorf(format, values...)}
}

// putBack undoes an ALTER SYSTEM that must not take effect.
func (s *Server) putBack(ctx context.Context, former *string) error {
	if err := s.alterSystem(ctx, former); err != nil {
		return &Error{Class: Changed, Err: fmt.Errorf(
			"what it was planned on has changed, and postgresql.auto.conf could not be put back (%w): see to primary_slot_name there", err)}
	}
	return pgx.ErrNoRows
}

// alterSystem writes the value to postgresql.auto.conf, or takes the line out.
func (s *Server) alterSystem(ctx context.Context, value *string) error {
	sql := sqlResetSlotName
	if value != nil {
		sql = sqlSetSlotName + quoteLiteral(*value)
	}
	_, err := s.conn.Exec(ctx, sql)
	return err
}

// quoteLiteral quotes for a utility statement. Slot names hold nothing that needs it; a former value might.
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
			return s.notReloaded(ctx, now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settingPoll):
		}
	}
}

// notReloaded says why a value is not seen. It stays in the file: it is what should be, and counts once the fault is mended.
func (s *Server) notReloaded(ctx context.Context, now string) error {
	var fault string
	err := s.conn.QueryRow(ctx, sqlFileFault).Scan(&fault)
	if errors.Is(err, pgx.ErrNoRows) {
		return configuration("it is still '%s' after ALTER SYSTEM and a reload: see PostgreSQL's log", now)
	}
	if err != nil {
		return err
	}
	return configuration("it is still '%s' after ALTER SYSTEM and a reload, because of a fault in the configuration: %s", now, oneLine(fault))
}
