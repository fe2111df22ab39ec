package operation_test

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
)

// The state folder is the data owner's. Whatever is there instead of a journal and a lock, nobody waits for it, nobody
// reads over a link, and no operation begins.
func TestStateFolderHasSomethingElse(t *testing.T) {
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	link := func(path string) error {
		if err := os.WriteFile(path+"-elsewhere", []byte(`{"pgrex_operation": 1, "operation": "secret"}`), 0o600); err != nil {
			return err
		}
		return os.Symlink(path+"-elsewhere", path)
	}
	long := func(path string) error {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	}
	for name, c := range map[string]struct {
		file string
		made func(path string) error
		left bool
	}{
		"pipe": {"operation.json", pipe, true}, "link": {"operation.json", link, true}, "long": {"operation.json", long, true},
		"lock is a pipe": {"operation.lock", pipe, false}, "lock is a link": {"operation.lock", link, false},
		"new is a pipe": {"operation.json.new", pipe, false}, "new is a link": {"operation.json.new", link, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(c.made(filepath.Join(w.state(), c.file)))
			if left := operation.Left(w.state()); left.None() == c.left || !left.None() && left.Operation == "secret" {
				t.Errorf("left is %+v", left)
			}
			e := fakes.Engine(t, fakes.Lone())
			e.Folder = w.state()
			_ = e.Ready(t.Context(), nil) // it ends
			if err := e.Do(t.Context(), w.job("pm01")); err == nil {
				t.Error("an operation has begun")
			}
			if diff := w.effects()["append"]; diff != 0 {
				t.Error("something was done")
			}
		})
	}
}

// Who only asks whether an operation is under way, as every daemon and every command does, is no operation: it keeps
// none from beginning.
func TestAskingIsNoOperation(t *testing.T) {
	e := fakes.Engine(t, fakes.Lone())
	e.Folder = filepath.Join(t.TempDir(), "state")
	begin := func() error { return e.EndLeft(t.Context(), nil) } // nothing is left, but it takes the lock first
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	const times = 20000
	var asked atomic.Int32
	var asking sync.WaitGroup
	asking.Go(func() {
		for asked.Add(1) < times {
			_ = new(operation.Journal).Held(e.Folder)
		}
	})
	for asked.Load() < times {
		if err := begin(); err != nil {
			t.Error(err)
		}
	}
	asking.Wait()
}
