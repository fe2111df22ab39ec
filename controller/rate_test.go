package controller

import (
	"testing"
	"time"

	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

const mebi = 1 << 20

// meter looks once a second at WAL that comes at some rate.
type meter struct {
	rates
	now time.Time
	in  reconcile.Input
}

func newMeter(inRecovery bool) *meter {
	m := &meter{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	m.in.Instance = model.Instance{State: model.ServerUp, SystemID: "7", InRecovery: inRecovery, Current: 0x5000000}
	if inRecovery {
		m.in.Upstream = &model.Upstream{Flushed: 0x5000000}
	}
	return m
}

func (m *meter) pass(d time.Duration, perSecond model.LSN) (rate model.WALRate) {
	for range int(d.Seconds()) {
		m.now = m.now.Add(time.Second)
		m.in.Instance.Current += perSecond
		rate = m.measure(m.in, m.now)
	}
	return rate
}

func wantRate(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got < 0.98*want-1 || got > 1.02*want+1 {
		t.Errorf("%s: %.0f bytes a second, not %.0f", what, got, want)
	}
}

// TestRate: a steady load is right at once, a burst is in the peak for a day, and the usual rate follows by halves.
func TestRate(t *testing.T) {
	m := newMeter(false)
	if r := m.pass(9*time.Second, mebi); r.Known() {
		t.Errorf("after 9 s it is %+v", r)
	}
	begin := m.now
	r := m.pass(2*time.Minute, mebi)
	wantRate(t, "steady", r.Usual, mebi)
	wantRate(t, "steady peak", r.Peak, mebi)
	if !r.Since.Before(begin) {
		t.Errorf("it is measured since %s", r.Since)
	}
	m.pass(3*time.Hour, mebi)
	wantRate(t, "after half-life without load", m.pass(rateHalfLife, 0).Usual, mebi/2)
	m.pass(2*time.Minute, 10*mebi)
	r = m.pass(6*time.Hour, 0)
	wantRate(t, "peak, hours later", r.Peak, 10*mebi)
	wantRate(t, "usual, hours later", r.Usual, 0)
	wantRate(t, "peak, a day later", m.pass(20*time.Hour, 1000).Peak, 1000)

	// The nightly batch is remembered until the next one, when in its hour it ever came.
	m.pass(50*time.Minute, mebi)
	m.pass(2*time.Minute, 10*mebi)
	wantRate(t, "peak, after 23 h 30", m.pass(23*time.Hour+30*time.Minute, 0).Peak, 10*mebi)
}

// TestRateIsNeverAbsurd: what comes while nobody looks, at a change of role, or from a position that is no longer comparable,
// comes at no rate.
func TestRateIsNeverAbsurd(t *testing.T) {
	const far = 1 << 40
	for name, happens := range map[string]func(m *meter){
		"a restart": func(m *meter) {
			m.in.Instance.State = model.ServerDown
			m.pass(5*time.Second, 0)
			m.in.Instance.State = model.ServerUp
			m.in.Instance.Current += far
		},
		"a promotion":     func(m *meter) { m.in.Instance.InRecovery, m.in.Instance.Current = false, m.in.Instance.Current+far },
		"another system":  func(m *meter) { m.in.Instance.SystemID, m.in.Instance.Current = "8", m.in.Instance.Current+far },
		"an older end":    func(m *meter) { m.in.Instance.Current, m.in.Upstream.Flushed = 1, 1 },
		"nobody looks":    func(m *meter) { m.now = m.now.Add(time.Hour); m.in.Instance.Current += far },
		"no upstream":     func(m *meter) { u := m.in.Upstream; m.in.Upstream = nil; m.pass(time.Second, far); m.in.Upstream = u },
		"a look too soon": func(m *meter) { m.now = m.now.Add(time.Millisecond); m.measure(m.in, m.now) },
		"catching up": func(m *meter) {
			m.in.Instance.State = model.ServerDown
			m.pass(time.Second, 0)
			m.in.Instance.State = model.ServerUp
			m.in.Upstream.Flushed = m.in.Instance.Current + far
			for range 20 { // fast, but nothing of it is new
				m.pass(time.Second, far/20-mebi)
				m.in.Upstream.Flushed += mebi
			}
			m.in.Instance.Current = m.in.Upstream.Flushed
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeter(true)
			m.pass(10*time.Minute, mebi)
			happens(m)
			r := m.pass(5*time.Minute, mebi)
			wantRate(t, "usual", r.Usual, mebi)
			if r.Peak > 1.1*mebi {
				t.Errorf("the peak is %.0f", r.Peak)
			}
		})
	}
}
