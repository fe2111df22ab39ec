package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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

// change is one of a setting in postgresql.auto.conf. Values are as pg_settings shows them, in the setting's own unit.
type change struct {
	name  string // of the setting; a constant of this package
	from  string // seen; must still be so
	to    string
	unset bool   // take it out of the file instead
	most  *int64 // bytes that any slot may hold; nil is no limit
	guard model.Guard
}

func (s *Server) setPrimarySlotName(ctx context.Context, step model.SetPrimarySlotName) error {
	return s.set(ctx, change{name: "primary_slot_name", from: step.From, to: step.To, guard: step.Guard})
}

func (s *Server) setWALBudget(ctx context.Context, step model.SetWALBudget) error {
	c := change{
		name: "max_slot_wal_keep_size", from: strconv.FormatInt(step.From, 10), to: strconv.FormatInt(step.To, 10), unset: step.Reset, guard: step.Guard,
	}
	if step.Lossless {
		c.most = new(step.To * model.MiB)
		if err := s.noSlotHoldsMore(ctx, c); err != nil {
			return err
		}
	}
	return s.set(ctx, c)
}

// noSlotHoldsMore says which slot is in the way, where one is.
func (s *Server) noSlotHoldsMore(ctx context.Context, c change) error {
	var slot string
	var held int64
	err := s.row(ctx, sqlMostHeld, append(guardValues(c.guard), c.most), &slot, &held)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &Error{Class: Busy, Err: fmt.Errorf("slot %s still holds %s of WAL, and would lose it: the budget stays until it holds less",
		slot, model.FormatBytes(uint64(held)))}
}

// set changes postgresql.auto.conf and reloads. ALTER SYSTEM runs in no transaction block and no function, so that no
// condition can stand beside it: the condition is asserted before, and again by the reload, which is what makes the setting
// count. If it does not hold then, what the file said before is put back: a host that has just been promoted would hand
// another's slot name to the next copy made of it.
func (s *Server) set(ctx context.Context, c change) error {
	var now string
	var commandLine bool
	var former *string // in postgresql.auto.conf; the setting itself may come from another file
	err := s.row(ctx, sqlCheckSetting, append(guardValues(c.guard), c.name), &now, &commandLine, &former)
	switch {
	case err != nil:
		return err
	case now != c.from:
		return pgx.ErrNoRows
	case commandLine:
		return configuration("PostgreSQL's command line sets it to '%s', which no file can change: take it out of start_opt", now)
	}
	to := &c.to
	if c.unset {
		to = nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := s.alterSystem(c.name, to); err != nil {
		return err
	}
	err = s.one(ctx, sqlReload, c.guard, c.most)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err != nil && ctx.Err() != nil && !s.conn.IsClosed(): // or it was too late for anybody
		return s.putBack(c.name, former)
	case err != nil:
		return err
	case ctx.Err() != nil: // it counts: what the file says stays
		return ctx.Err()
	}
	err = s.awaitSetting(ctx, c)
	if c.most != nil && ClassOf(err) == Configuration {
		// It would count once the fault is mended, and then a slot may hold more.
		if failed := s.alterSystem(c.name, former); failed != nil {
			return &Error{Class: Configuration, Err: fmt.Errorf("%w; postgresql.auto.conf could not be put back (%w): see to %s there", err, failed, c.name)}
		}
	}
	return err
}

func configuration(format string, values ...any) error {
	return &Error{Class: Configuration, Err: fmt.Errorf(format, values...)}
}

// putBack undoes an ALTER SYSTEM that must not take effect.
func (s *Server) putBack(name string, former *string) error {
	if err := s.alterSystem(name, former); err != nil {
		return &Error{Class: Changed, Err: fmt.Errorf(
			"what it was planned on has changed, and postgresql.auto.conf could not be put back (%w): see to %s there", err, name)}
	}
	return pgx.ErrNoRows
}

// alterSystem writes the value to postgresql.auto.conf, or removes the line if it is nil, even if nobody waits for that
// any more.
func (s *Server) alterSystem(name string, value *string) error {
	sql := sqlAlterReset + name
	if value != nil {
		sql = sqlAlterSet + name + " = " + quoteLiteral(*value)
	}
	_, err := s.conn.Exec(s.local.io, sql)
	return err
}

// quoteLiteral quotes for a utility statement. Slot names hold nothing that needs it; a former value might.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// awaitSetting waits until this session sees the value, or no value of postgresql.auto.conf: the reload reaches it with the
// signal's arrival.
func (s *Server) awaitSetting(ctx context.Context, c change) error {
	deadline := time.Now().Add(reloadTimeout)
	for {
		var now string
		var auto bool
		if err := s.row(ctx, sqlSetting, []any{c.name}, &now, &auto); err != nil {
			return err
		}
		if c.unset && !auto || !c.unset && now == c.to {
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

// notReloaded says why a value is not seen. It stays in the file, unless it is to cost no slot: it is what should be, and counts
// once the fault is mended.
func (s *Server) notReloaded(ctx context.Context, now string) error {
	var fault string
	err := s.row(ctx, sqlFileFault, nil, &fault)
	if errors.Is(err, pgx.ErrNoRows) {
		return configuration("it is still '%s' after ALTER SYSTEM and a reload: see PostgreSQL's log", now)
	}
	if err != nil {
		return err
	}
	return configuration("it is still '%s' after ALTER SYSTEM and a reload, because of a fault in the configuration: %s", now, oneLine(fault))
}
