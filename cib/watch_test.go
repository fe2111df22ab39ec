package cib

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// startWatcher watches dir until the test ends.
func startWatcher(t *testing.T, dir string) *Watcher {
	t.Helper()
	w := NewWatcher(dir)
	w.retry = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// replaceCIB writes the CIB as Pacemaker does: under another name, then renamed.
func replaceCIB(t *testing.T, dir string) {
	t.Helper()
	temporary := filepath.Join(dir, "cib.Xy1Zab")
	if err := os.WriteFile(temporary, []byte("<cib/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, "cib.xml")); err != nil {
		t.Fatal(err)
	}
}

// hinted changes the CIB until there is a hint: when the watcher has begun to watch cannot be seen from outside.
func hinted(t *testing.T, w *Watcher, dir string) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		replaceCIB(t, dir)
		select {
		case <-w.Hints():
			return
		case <-deadline:
			t.Fatal("no hint")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// settle waits until what is under way has settled, and takes the hints of that.
func settle(w *Watcher) {
	for {
		select {
		case <-w.Hints():
		case <-time.After(8 * quiet):
			return
		}
	}
}

func TestWatcherHintsWhenTheCIBIsReplaced(t *testing.T) {
	dir := t.TempDir()
	w := startWatcher(t, dir)
	hinted(t, w, dir)
}

// Many changes shortly one after the other make one hint, once there is quiet. Time is fake, because a busy machine may
// hold up anybody for longer than that.
func TestWatcherMakesOneHintOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatcher("/cib")
		notify := &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
		go w.follow(t.Context(), notify)
		for range 20 {
			notify.Events <- fsnotify.Event{Name: "/cib/cib.xml", Op: fsnotify.Create}
			time.Sleep(quiet / 5)
		}
		last := time.Now().Add(-quiet / 5)
		<-w.Hints()
		if took := time.Since(last); took != quiet {
			t.Errorf("the hint comes %s after the last change, not %s", took, quiet)
		}
		select {
		case <-w.Hints():
			t.Error("a second hint")
		case <-time.After(time.Minute):
		}
	})
}

func TestWatcherIgnoresOtherFiles(t *testing.T) {
	dir := t.TempDir()
	w := startWatcher(t, dir)
	hinted(t, w, dir)
	settle(w)
	for _, name := range []string{"cib.xml.sig", "cib-1.raw", "cib-1.raw.sig", "cib.last", "cib.Xy1Zab"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "cib.xml"), 0o640); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Hints():
		t.Error("a hint")
	case <-time.After(8 * quiet):
	}
}

func TestWatcherWaitsForTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "cib")
	w := startWatcher(t, dir)
	time.Sleep(50 * time.Millisecond)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hinted(t, w, dir)
}

func TestWatcherFollowsAFolderThatIsMadeAnew(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "cib")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w := startWatcher(t, dir)
	hinted(t, w, dir)
	for range 2 {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		settle(w)
		hinted(t, w, dir)
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	settle(w)
	hinted(t, w, dir)
}

func TestWatcherOfAFileOnlyWaits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cib")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWatcher(t, filepath.Join(file, "below"))
	select {
	case <-w.Hints():
		t.Error("a hint")
	case <-time.After(300 * time.Millisecond):
	}
}
