package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/pgrex/pgrex/model"
)

// Apply carries out one step. Its precondition is asserted in the statement that changes something: no row means that
// it does not hold any more (Changed). An error is an *Error. The answer may get lost after the work was done
// (Transient): a step tried again then finds what it was planned on Changed, or AlreadyDone. If the server hangs
// (NoAnswer), it may still run the statement that it has later, but gets no other statement of the step.
func (s *Server) Apply(ctx context.Context, step model.Step) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	doing := step.Kind() + " " + step.Text()
	if err := valid(step); err != nil {
		return &Error{Class: Configuration, Doing: doing, Err: err}
	}
	_, err := call(ctx, s.local, func() (struct{}, error) {
		if err := s.connect(ctx); err != nil {
			return struct{}{}, err
		}
		err := s.carryOut(ctx, step)
		if s.conn.IsClosed() {
			s.disconnect()
		}
		return struct{}{}, err
	})
	return s.unanswered(err, doing)
}

func (s *Server) carryOut(ctx context.Context, step model.Step) error {
	switch step := step.(type) {
	case model.CreateSlot:
		return s.makeSlot(ctx, sqlCreateSlot, step.Guard, step.Slot)
	case model.ReleaseXMin:
		return s.releaseXMin(ctx, step)
	case model.TouchSlot:
		return s.one(ctx, sqlTouchSlot, step.Guard, step.Slot, lsnOrNull(step.From))
	case model.AdvanceSlot:
		return s.one(ctx, sqlAdvanceSlot, step.Guard, step.Slot, lsnOrNull(step.From), step.To.String())
	case model.ResetSlot:
		return s.resetSlot(ctx, step)
	case model.DropSlot:
		return s.one(ctx, sqlDropSlot, step.Guard, step.Slot, lsnOrNull(step.From))
	case model.SetPrimarySlotName:
		return s.setPrimarySlotName(ctx, step)
	case model.PublishAttribute: // is Pacemaker's
	case model.SetWALBudget:
		return s.setWALBudget(ctx, step)
	}
	return &Error{Class: Unknown, Err: fmt.Errorf("the step %T is not known", step)}
}

// unanswered classes an error that may be one of connecting.
func (s *Server) unanswered(err error, doing string) error {
	if _, ok := errors.AsType[connectError](err); !ok {
		return classify(err, doing)
	}
	class := ClassOf(classify(err, doing))
	if errors.Is(err, context.Canceled) {
		return &Error{Class: class, Doing: doing, Err: context.Canceled}
	}
	return &Error{Class: class, Doing: doing, Err: errors.New(s.notConnected(err))}
}

// slotName is what PostgreSQL allows (ReplicationSlotValidateName).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// validName refuses what PostgreSQL would: it cuts a longer name without a word, and would then change another slot.
func validName(name string) error {
	if !slotName.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a slot: a-z, 0-9 and _, at most 63", name)
	}
	return nil
}

// valid checks what PostgreSQL would not, or not in time.
func valid(step model.Step) error {
	switch step := step.(type) {
	case model.CreateSlot:
		return validName(step.Slot)
	case model.ReleaseXMin:
		return validName(step.Slot)
	case model.TouchSlot:
		return validName(step.Slot)
	case model.AdvanceSlot:
		if !step.From.IsValid() || step.To < step.From {
			return errors.New("a slot advances from a position to one not before it")
		}
		return validName(step.Slot)
	case model.ResetSlot:
		return validName(step.Slot)
	case model.DropSlot:
		return validName(step.Slot)
	case model.SetPrimarySlotName:
		if step.To == "" {
			return nil
		}
		return validName(step.To)
	case model.PublishAttribute:
	case model.SetWALBudget:
		if step.To < model.Unlimited {
			return fmt.Errorf("%d is no value of max_slot_wal_keep_size", step.To)
		}
	}
	return nil
}

// one runs a guarded statement that gives one row when its precondition holds. NULL in it is a slot without WAL.
func (s *Server) one(ctx context.Context, sql string, guard model.Guard, values ...any) error {
	var result *string
	err := s.row(ctx, sql, append(guardValues(guard), values...), &result)
	if err == nil && result == nil {
		return errNotReserved
	}
	return err
}

// guardValues are the parameters of sqlGuard.
func guardValues(guard model.Guard) []any {
	return []any{guard.SystemID, guard.InRecovery, int64(guard.RedoTimeline)}
}

func lsnOrNull(l model.LSN) *string {
	if !l.IsValid() {
		return nil
	}
	s := l.String()
	return &s
}
