package controller

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// A daemon that is started again knows the newest CIB that it has seen, and how fast WAL comes.
func TestRestartForgetsNothing(t *testing.T) {
	w := newWorld()
	w.stateDir = t.TempDir()
	live(t, w, false, func() {
		for range 120 {
			w.instance.Current += 1 << 20
			w.pass(time.Second)
		}
		if w.status.WAL.RateUsual == nil {
			t.Fatal("no rate is known after two minutes")
		}
	})
	w.cluster.Version.Epoch = 9
	live(t, w, false, func() {
		if !w.holds(model.CodeCIBStale) {
			t.Errorf("an older CIB is believed after a restart: %v", w.status.Conditions)
		}
		if rate := w.status.WAL.RateUsual; rate == nil || *rate < 1<<19 {
			t.Errorf("the rate of WAL is not known after a restart: %v", rate)
		}
	})
	if w.said("state not kept") > 0 {
		t.Error("the state could not be kept")
	}
}

func (w *world) holds(code model.Code) bool {
	return slices.ContainsFunc(w.status.Conditions, func(c Condition) bool { return c.Code == code })
}

// Another cluster's CIBs have versions of their own, and another database's WAL comes at another rate.
func TestStateIsOfOneClusterAndDatabase(t *testing.T) {
	w := newWorld()
	w.stateDir = t.TempDir()
	w.cluster.Properties = map[string]string{"cluster-name": "rex"}
	live(t, w, false, func() {
		for range 60 {
			w.instance.Current += 1 << 20
			w.pass(time.Second)
		}
	})
	w.cluster.Properties = map[string]string{"cluster-name": "other"}
	w.cluster.Version.Epoch, w.instance.SystemID = 2, "8"
	live(t, w, false, func() {
		if w.holds(model.CodeCIBStale) || w.status.WAL.RateUsual != nil {
			t.Errorf("another cluster is judged by the one before: %v, %v", w.status.Conditions, w.status.WAL.RateUsual)
		}
	})
}

// Half a file, one of a later version, and a folder that cannot be written are said, and stop nothing.
func TestStateThatIsOfNoUse(t *testing.T) {
	for name, text := range map[string]string{"half": `{"pgrex_state":1,"newest_v`, "later": `{"pgrex_state":2}`, "unknown": `{"pgrex_state":1,"x":0}`} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.stateDir = t.TempDir()
			file := filepath.Join(w.stateDir, stateName)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			live(t, w, false, func() {
				if !w.status.Healthy || w.said("read what was known before the start") != 1 {
					t.Errorf("%q, said %q", w.status.Summary, w.log)
				}
			})
			if _, err := LoadState(w.stateDir); err != nil {
				t.Errorf("it was not replaced: %v", err)
			}
		})
	}
	w := newWorld()
	w.stateDir = filepath.Join(t.TempDir(), "missing")
	live(t, w, false, func() {
		w.pass(time.Hour)
		if !w.status.Healthy || w.said("state not kept") != 1 {
			t.Errorf("%q, said %d times that the state is not kept", w.status.Summary, w.said("state not kept"))
		}
	})
}

// The newest CIB is never forgotten for an older one, also where the CIB cannot be read for a while.
func TestStateNeverGoesBack(t *testing.T) {
	w := newWorld()
	w.stateDir = t.TempDir()
	for _, epoch := range []int64{50, 60} {
		w.cluster.Version.Epoch = epoch
		live(t, w, false, func() { w.pass(time.Minute) })
	}
	live(t, w, false, func() {
		w.clusterErr = errors.New("Pacemaker is down")
		w.pass(time.Hour)
	})
	w.clusterErr = nil
	w.cluster.Version.Epoch = 55
	live(t, w, false, func() {
		if !w.holds(model.CodeCIBStale) {
			t.Errorf("a CIB older than the newest one seen is believed: %v", w.status.Conditions)
		}
	})
	kept, err := LoadState(w.stateDir)
	if err != nil || kept.Newest.Epoch != 60 {
		t.Errorf("epoch %d is kept, not 60: %v", kept.Newest.Epoch, err)
	}
}

// What this host has as the primary is kept when it no longer is, after a restart, too: at once when it has become the
// primary, and with each newer CIB.
func TestLastPrimaryIsRemembered(t *testing.T) {
	w := newWorld()
	w.stateDir = t.TempDir()
	kept := func() *LastPrimary {
		t.Helper()
		s, err := LoadState(w.stateDir)
		if err != nil {
			t.Fatal(err)
		}
		return s.Primary
	}
	w.instance.Timeline, w.instance.Current = 3, 0x7000000
	live(t, w, false, func() {
		if got := kept(); got == nil || got.System != "7" || got.Timeline != 3 || got.Flushed != 0x7000000 || got.At.IsZero() {
			t.Errorf("once it is the primary, %+v is kept", got)
		}
		w.instance.Current = 0x8000000
		w.cluster.Version.Epoch++
		w.pass(time.Minute)
		if got := kept(); got.Flushed != 0x8000000 {
			t.Errorf("with a newer CIB, %+v is kept", got)
		}
		w.instance.Timeline = 4
		w.pass(time.Minute)
		if got := kept(); got.Timeline != 4 {
			t.Errorf("on a newer timeline, %+v is kept", got)
		}
	})
	w.instance.InRecovery, w.instance.Current = true, 0x5000000
	w.cluster.Version.Epoch++
	live(t, w, false, func() { w.pass(time.Minute) })
	if got := kept(); got == nil || got.Timeline != 4 || got.Flushed != 0x8000000 {
		t.Errorf("as a standby, %+v is kept", got)
	}
}

// What this host has as a standby is kept when it no longer is, after a restart, too: at once when it has become one, and
// with each newer CIB.
func TestLastStandbyIsRemembered(t *testing.T) {
	standby := reconcile.Who{Standing: model.Standby}
	standby.Instance = model.Instance{State: model.ServerUp, InRecovery: true, SystemID: "7", Timeline: 3, Current: 0x7000000, Received: 0x7000100}
	if got := lastStandby(standby, nil); got != nil {
		t.Errorf("a standby that does not stream has %+v", got)
	}
	standby.Instance.Receiver = &model.WALReceiver{Status: "streaming"}
	got := lastStandby(standby, nil)
	if got == nil || got.System != "7" || got.Timeline != 3 || got.Replayed != 0x7000000 || got.At.IsZero() {
		t.Fatalf("a standby has %+v", got)
	}
	for _, standing := range []model.Standing{model.Primary, model.InTransition} {
		who := standby
		who.Standing, who.Instance.Current = standing, 0x8000000
		if now := lastStandby(who, got); now != got {
			t.Errorf("as %s, %+v is kept", standing, now)
		}
	}
	k := keeper{folder: t.TempDir()}
	s := State{Newest: model.Version{Epoch: 1}}
	k.written = s
	s.Standby = got
	if !k.due(s) {
		t.Error("that it has become a standby is not written at once")
	}
	if err := k.keep(s); err != nil {
		t.Fatal(err)
	}
	if kept, err := LoadState(k.folder); err != nil || !kept.Standby.same(got) || kept.Standby.Replayed != got.Replayed {
		t.Errorf("after a restart, %+v is known: %v", kept.Standby, err)
	}
	if k.due(s) {
		t.Error("the same is written again")
	}
}

// The addresses from which the members streamed when this host was the primary are kept when it no longer is, and after
// a restart.
func TestStandbysAreRemembered(t *testing.T) {
	primary := reconcile.Who{Standing: model.Primary, Others: []string{"pm02", "pm03", "pm04"}}
	primary.Instance.Senders = []model.WALSender{
		{ApplicationName: "pm02", State: "streaming", Address: "192.0.2.2"},
		{ApplicationName: "pm03", State: "startup", Address: "192.0.2.99"}, // pgrex, or a tool
		{ApplicationName: "pm04", State: "streaming"},                      // over the unix socket
		{ApplicationName: "reports", State: "streaming", Address: "192.0.2.9"},
	}
	before := map[string]string{"pm02": "192.0.2.7", "pm03": "192.0.2.3", "former": "192.0.2.5"}
	want := map[string]string{"pm02": "192.0.2.2", "pm03": "192.0.2.3"}
	if got := standbysOf(primary, before); !maps.Equal(got, want) {
		t.Errorf("the primary knows %v, want %v", got, want)
	}
	if got := standbysOf(reconcile.Who{Standing: model.InTransition, Others: primary.Others}, before); !maps.Equal(got, before) {
		t.Errorf("in an outage, %v are known", got)
	}
	k := keeper{folder: t.TempDir()}
	s := State{Newest: model.Version{Epoch: 1}, Standbys: want}
	if err := k.keep(s); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadState(k.folder); err != nil || !maps.Equal(got.Standbys, want) {
		t.Errorf("after a restart, %v are known: %v", got.Standbys, err)
	}
	if k.due(s) {
		t.Error("the same is written again")
	}
	s.Standbys = before
	if !k.due(s) {
		t.Error("another address is not written")
	}
}
