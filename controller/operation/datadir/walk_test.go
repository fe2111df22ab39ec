package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// walk sees what filepath.WalkDir sees, also where see skips something or something cannot be read. remove removes all
// of it.
func TestWalk(t *testing.T) {
	p := Place{Data: t.TempDir(), Count: new(atomic.Int64)}
	p.make(t, p.Data+"/a/b/1", p.Data+"/a/2", p.Data+"/skipped/3", p.Data+"/skipped/4/5", p.Data+"/last/6", p.Data+"/7")
	must(t, os.Symlink(p.Data+"/a", p.Data+"/link"))
	must(t, os.Mkdir(p.Data+"/closed", 0))
	t.Cleanup(func() { _ = os.Chmod(p.Data+"/closed", 0o700) })
	seen := func(walk func(root string, see fs.WalkDirFunc) error) (names []string) {
		must(t, walk(p.Data, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(p.Data, path)
			names = append(names, fmt.Sprintf("%s %t %t", name, d.IsDir(), err == nil))
			if d.Name() == "skipped" || err != nil {
				return fs.SkipDir
			}
			return nil
		}))
		slices.Sort(names)
		return names
	}
	want := seen(filepath.WalkDir)
	got := seen(func(root string, see fs.WalkDirFunc) error { return p.walk(t.Context(), root, see) })
	if !slices.Equal(got, want) {
		t.Errorf("it has seen %q, and not %q", got, want)
	}
	stopped := 0
	must(t, p.walk(t.Context(), p.Data, func(string, fs.DirEntry, error) error { stopped++; return fs.SkipAll }))
	if stopped != 1 {
		t.Errorf("it has seen %d after it was to skip all", stopped)
	}
	if err := p.walk(t.Context(), p.Data+"/none", func(_ string, _ fs.DirEntry, err error) error { return err }); !os.IsNotExist(err) {
		t.Errorf("of a folder that is not there it says %v", err)
	}
	outside := t.TempDir()
	must(t, os.Symlink(outside, p.Data+"/a/outside"))
	if err := p.removeAll(t.Context(), p.Data+"/none", p.Data); err != nil || isThere(p.Data) || !isThere(outside) {
		t.Errorf("removed: %v", err)
	}
}

// A folder of many files is neither held in memory nor gone through to its end after an interrupt. What a removal has
// left, the next one removes.
func TestManyFiles(t *testing.T) {
	const files, most = 60_000, 2 << 20 // all names at once take about 7 MB
	p := Place{Data: filepath.Join(t.TempDir(), "data"), Count: new(atomic.Int64)}
	p.make(t, p.Data+"/base/0")
	for i := range files {
		must(t, os.Link(p.Data+"/base/0", fmt.Sprintf("%s/base/%d", p.Data, i+1)))
	}
	errInterrupted := errors.New("interrupted")
	interrupted, interrupt := context.WithCancelCause(t.Context())
	interrupt(errInterrupted)
	for name, look := range map[string]func(ctx context.Context) error{
		"size":     func(ctx context.Context) error { _, err := p.Size(ctx); return err },
		"writable": func(ctx context.Context) error { _, err := p.notWritable(ctx); return err },
		"odd":      func(ctx context.Context) error { _, err := p.Odd(ctx); return err },
		"kept":     func(ctx context.Context) error { _, err := p.notKept(ctx, []string{"base"}); return err },
	} {
		p.Count.Store(0)
		if err := look(interrupted); !errors.Is(err, errInterrupted) || p.Count.Load() > 0 {
			t.Errorf("%s goes on: %v, %d", name, err, p.Count.Load())
		}
		if err := look(t.Context()); err != nil || p.Count.Load() < files {
			t.Errorf("%s has looked at %d files: %v", name, p.Count.Load(), err)
		}
	}
	to := t.TempDir()
	if err := CopyFiles(interrupted, p.Data, to, []string{"base"}); !errors.Is(err, errInterrupted) || isThere(to+"/base") {
		t.Errorf("a copy goes on: %v", err)
	}
	before, held, seen := inUse(), uint64(0), 0
	must(t, p.walk(t.Context(), p.Data, func(string, fs.DirEntry, error) error {
		if seen++; seen%20_000 == 0 {
			held = max(held, inUse())
		}
		return nil
	}))
	if held > before+most {
		t.Errorf("a walk holds %d bytes", held-before)
	}
	if err := p.remove(interrupted, p.Data); !errors.Is(err, errInterrupted) || !isThere(p.Data+"/base/0") {
		t.Errorf("an interrupted removal: %v", err)
	}
	must(t, p.remove(t.Context(), p.Data))
	if isThere(p.Data) {
		t.Error("it is still there")
	}
}

// A big file of the host's own is copied up to an interrupt. The name has the old text then.
func TestCopyIsInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	ctx, cancel := context.WithCancelCause(t.Context())
	errInterrupted := errors.New("interrupted")
	reads := 0
	err := copyAs(path, Reader(ctx, readerFunc(func(text []byte) (int, error) {
		if reads++; reads > 2 {
			cancel(errInterrupted)
		}
		return len(text), nil // it has no end
	})), path)
	if text, readErr := os.ReadFile(path); !errors.Is(err, errInterrupted) || readErr != nil || string(text) != "old" || reads != 3 {
		t.Errorf("%v, after %d reads; it has %q, %v", err, reads, text, readErr)
	}
	must(t, writeWhole(path, "new")) // what the interrupt has left is no hindrance
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("there is %v, %v", names, err)
	}
}

type readerFunc func(text []byte) (int, error)

func (f readerFunc) Read(text []byte) (int, error) { return f(text) }

// A folder of the host's own is made the same as here: what is only there goes, however many files those are.
func TestCopiedFolderHasNothingElse(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	p := Place{}
	p.make(t, from+"/conf.d/a", from+"/conf.d/sub/b", to+"/conf.d/a", to+"/conf.d/theirs/c")
	for i := range 3 * atOnce {
		must(t, os.Link(to+"/conf.d/a", fmt.Sprintf("%s/conf.d/%d", to, i)))
	}
	must(t, CopyFiles(t.Context(), from, to, []string{"conf.d"}))
	var names []string
	must(t, filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, to))
		return err
	}))
	if want := []string{"", "/conf.d", "/conf.d/a", "/conf.d/sub", "/conf.d/sub/b"}; !slices.Equal(names, want) {
		t.Errorf("there are %d: %.200q", len(names), names)
	}
}

// inUse is how much memory is in use, in bytes.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
