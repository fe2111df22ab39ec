package operation

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failed step and those before it are undone, in reverse order, up to the first that cannot be: what lies before that
// protects the data. It is said what to type then, in which order.
func TestDoUndoes(t *testing.T) {
	var did []string
	step := func(name string, fails, undoFails error) Step {
		return Step{
			Text: name, Do: func(context.Context) error { did = append(did, name); return fails },
			UndoText: "undo " + name, Undo: func(context.Context) error { did = append(did, "undo "+name); return undoFails },
		}
	}
	broken := errors.New("broken")
	steps := []Step{step("a", nil, nil), step("b", nil, broken), {Text: "c", Do: func(context.Context) error { return nil }}, step("d", broken, nil), step("e", nil, nil)}
	err := Do(t.Context(), steps, func(string) {})
	if got := strings.Join(did, ", "); got != "a, b, d, undo d, undo b" {
		t.Errorf("did %s", got)
	}
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "d: broken") || !strings.Contains(err.Error(), "type in this order: undo b; then: undo a") {
		t.Errorf("error %v", err)
	}
}

// What lies before a point of no return is undone as long as that is not reached, and then no more.
func TestDoNoReturn(t *testing.T) {
	for _, test := range []struct {
		fails int
		want  string
	}{{0, "undo a"}, {1, "undo b, undo a"}, {2, "undo c"}} {
		var did []string
		var steps []Step
		for i, name := range []string{"a", "b", "c"} {
			steps = append(steps, Step{
				Text: name, UndoText: name, NoReturn: name == "b",
				Do: func(context.Context) error {
					if i == test.fails {
						return errors.New("broken")
					}
					return nil
				},
				Undo: func(context.Context) error { did = append(did, "undo "+name); return nil },
			})
		}
		if err := Do(t.Context(), steps, func(string) {}); err == nil {
			t.Error("no error")
		}
		if got := strings.Join(did, ", "); got != test.want {
			t.Errorf("step %d fails: %s; wanted %s", test.fails, got, test.want)
		}
	}
}

// An interrupt lets the step under way end, undoes it, and begins no other.
func TestDoInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	undone := false
	steps := []Step{
		{Text: "a", Do: func(context.Context) error { cancel(); return nil }, UndoText: "undo a", Undo: func(ctx context.Context) error {
			undone = true
			return ctx.Err()
		}},
		{Text: "b", Do: func(context.Context) error { t.Error("begun after the interrupt"); return nil }},
	}
	if err := Do(ctx, steps, func(string) {}); !errors.Is(err, context.Canceled) || !undone {
		t.Errorf("error %v, undone: %t", err, undone)
	}
}

// An interrupt at a point of no return: the next step ends at once, and its undo is what puts things right.
func TestDoInterruptedAtNoReturn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	undone := ""
	undo := func(name string) func(context.Context) error {
		return func(context.Context) error { undone += name; return nil }
	}
	after := Await("it is so", time.Minute, func(ctx context.Context) error { return errors.Join(errors.New("not yet"), ctx.Err()) })
	after.Undo = undo("b")
	steps := []Step{
		{Text: "a", NoReturn: true, Do: func(context.Context) error { cancel(); return nil }, Undo: undo("a")},
		after,
		{Text: "c", Do: func(context.Context) error { t.Error("begun after the interrupt"); return nil }, Undo: undo("c")},
	}
	if err := Do(ctx, steps, func(string) {}); !errors.Is(err, context.Canceled) || undone != "b" {
		t.Errorf("error %v, undone: %q", err, undone)
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		step := Await("it is so", time.Minute, func(context.Context) error {
			if looks++; looks < 5 {
				return errors.New("not yet")
			}
			return nil
		})
		if err := step.Do(t.Context()); err != nil || looks != 5 {
			t.Errorf("%d looks, %v", looks, err)
		}
		// As long as something moves, it is waited for.
		begin := time.Now()
		moving := AwaitMoving("it is so", time.Minute, func(context.Context) (string, error) {
			since := min(time.Since(begin), 10*time.Minute)
			return since.Round(30 * time.Second).String(), errors.New("on the way")
		})
		if err := moving.Do(t.Context()); err == nil || time.Since(begin) < 10*time.Minute || time.Since(begin) > 12*time.Minute {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		never := Await("it is so", time.Minute, func(context.Context) error { return errors.New("it rains") })
		if err := never.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "it rains") || !strings.Contains(err.Error(), "1m0s") {
			t.Errorf("error %v", err)
		}
	})
}
