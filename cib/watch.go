package cib

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// DefaultDir is where Pacemaker keeps the CIB's configuration. Its group haclient may read it.
const DefaultDir = "/var/lib/pacemaker/cib"

const (
	cibName = "cib.xml"
	// quiet is how long nothing must happen before a hint is given: Pacemaker writes several files for one change.
	quiet = 50 * time.Millisecond
	// retryWatch is how often a folder that is not there, or may not be read, is tried again.
	retryWatch = 5 * time.Second
)

// Watcher gives a hint when the CIB may have changed. Pacemaker replaces cib.xml at every change of the configuration,
// which includes permanent node attributes; what changes in the status section alone is not seen. So a hint is a
// reason to look, and no hint is no reason not to.
//
// The folder may be missing, be replaced, or not be readable: then there are no hints until it can be watched.
type Watcher struct {
	dir   string
	hints chan struct{}
	retry time.Duration
}

// NewWatcher makes a watcher of a folder; DefaultDir when empty. It does nothing until Run is called.
func NewWatcher(dir string) *Watcher {
	if dir == "" {
		dir = DefaultDir
	}
	return &Watcher{dir: filepath.Clean(dir), hints: make(chan struct{}, 1), retry: retryWatch}
}

// Hints gives the hints. Several changes that nobody looked at in between make one hint.
func (w *Watcher) Hints() <-chan struct{} { return w.hints }

// Run watches until ctx ends, and returns nil then. Whatever goes wrong with the folder or the notifications is tried
// again, because the caller looks at the CIB now and then anyway and a hint only makes it sooner.
func (w *Watcher) Run(ctx context.Context) error {
	for first := true; ctx.Err() == nil; first = false {
		if w.watch(ctx, !first) {
			continue // the folder is another one now: at once to that one
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.retry):
		}
	}
	return nil
}

// watch watches the folder as long as it is the same one, and tells whether it was replaced. late means that something
// may have been missed before.
func (w *Watcher) watch(ctx context.Context, late bool) (replaced bool) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return false // out of inotify instances, most likely
	}
	defer func() { _ = notify.Close() }()
	// The parent tells when the folder is replaced. Without it, the folder's own end is still noticed.
	_ = notify.Add(filepath.Dir(w.dir))
	if notify.Add(w.dir) != nil {
		return w.appears(ctx, notify)
	}
	if late {
		w.hint()
	}
	return w.follow(ctx, notify)
}

// appears waits, up to the time of a retry, until the folder is made.
func (w *Watcher) appears(ctx context.Context, notify *fsnotify.Watcher) bool {
	retry := time.NewTimer(w.retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-retry.C:
			return true
		case e, ok := <-notify.Events:
			if !ok {
				return false
			}
			if filepath.Clean(e.Name) == w.dir && e.Op.Has(fsnotify.Create) {
				return true
			}
		case _, ok := <-notify.Errors:
			if !ok {
				return false
			}
		}
	}
}

// follow turns events into hints.
func (w *Watcher) follow(ctx context.Context, notify *fsnotify.Watcher) (replaced bool) {
	settled := time.NewTimer(quiet)
	settled.Stop()
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-settled.C:
			w.hint()
		case e, ok := <-notify.Events:
			switch {
			case !ok:
				return false
			case filepath.Clean(e.Name) == w.dir && (e.Op.Has(fsnotify.Remove) || e.Op.Has(fsnotify.Rename) || e.Op.Has(fsnotify.Create)):
				return true
			case filepath.Base(e.Name) == cibName && filepath.Dir(e.Name) == w.dir && e.Op != fsnotify.Chmod:
				settled.Reset(quiet)
			}
		case _, ok := <-notify.Errors:
			if !ok {
				return false
			}
			settled.Reset(quiet) // events were lost, perhaps ours
		}
	}
}

// hint never waits: a hint that is still there says the same.
func (w *Watcher) hint() {
	select {
	case w.hints <- struct{}{}:
	default:
	}
}
