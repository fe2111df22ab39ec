package world

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgrex/pgrex/model"
)

var (
	schedules = flag.Int("schedules", 2000, "how many random schedules to play")
	seed      = flag.Uint64("seed", 0, "play the one schedule of this seed, and say what happens")
)

// firstSeed is where the seeds of a run begin, so that every run plays the same schedules.
const firstSeed = 1

// world is the cluster, and what was counted of what happened in it.
type world struct {
	settings
	hosts      []*host
	names      map[string]string // slot names by host
	parameters map[string]string
	meta       map[string]string
	main       *cib
	apart      map[string]*cib // of the hosts that are cut off
	promoting  *promotion
	address    *host // who has the virtual IP
	timelines  uint32
	holds      map[[2]string]*hold
	count      counts
	failure    error
	broken     string // which promise
}

// settings are what differs between worlds, and does not change.
type settings struct {
	members      int
	version      int       // server_version_num
	budget       model.LSN // max_slot_wal_keep_size, 0: none
	keepSize     model.LSN // wal_keep_size
	maxSlots     int
	synchronous  bool
	fencing      bool
	feedback     bool // hot_standby_feedback
	agentSlots   bool // the agent's replication_slot_name
	standbySlots bool // pgrex-standby-slots=keep
}

// counts tell what a run has exercised.
type counts struct {
	events, plans, steps, changed, interruptions, promotions, switchovers, rewinds, copies, cuts, lost, misled, races, disturbances, further, hints, unhinted int

	kinds map[string]int // steps by kind
	why   map[string]int // copies that were needed, by reason

	forecasts map[string]int // by what was foretold, and what would have happened
}

func (c *counts) add(o counts) {
	c.events += o.events
	c.plans += o.plans
	c.steps += o.steps
	c.changed += o.changed
	c.interruptions += o.interruptions
	c.promotions += o.promotions
	c.switchovers += o.switchovers
	c.rewinds += o.rewinds
	c.copies += o.copies
	c.cuts += o.cuts
	c.lost += o.lost
	c.misled += o.misled
	c.races += o.races
	c.disturbances += o.disturbances
	c.further += o.further
	c.hints += o.hints
	c.unhinted += o.unhinted
	for k, n := range o.kinds {
		c.kinds[k] += n
	}
	for k, n := range o.why {
		c.why[k] += n
	}
	for k, n := range o.forecasts {
		c.forecasts[k] += n
	}
}

func randomSettings(r *rand.Rand) settings {
	oneIn := func(n int) bool { return r.IntN(n) == 0 }
	s := settings{
		members: 2 + r.IntN(3), version: []int{150000, 170000, 180000}[r.IntN(3)], maxSlots: 10,
		keepSize: model.LSN(r.IntN(3) * segment), synchronous: oneIn(2), fencing: !oneIn(6), feedback: !oneIn(3),
		agentSlots: oneIn(12), standbySlots: !oneIn(12),
	}
	if oneIn(4) {
		s.budget = model.LSN(4+r.IntN(8)) * segment
	}
	return s
}

// newWorld is a healthy cluster that pgrex sees for the first time.
func newWorld(s settings) *world {
	w := &world{
		settings: s, timelines: 1, names: map[string]string{}, apart: map[string]*cib{}, holds: map[[2]string]*hold{},
		main:       &cib{nodes: map[string]node{}},
		parameters: map[string]string{"rep_mode": "async"}, meta: map[string]string{model.MetaCrashHint: "true"},
		count: counts{kinds: map[string]int{}, why: map[string]int{}, forecasts: map[string]int{}},
	}
	if s.agentSlots {
		w.parameters["replication_slot_name"] = "pgrex"
	}
	if !s.standbySlots {
		w.meta[model.MetaStandbySlots] = "none"
	}
	var members []string
	for i := range s.members {
		name := fmt.Sprintf("pm%02d", i+1)
		members = append(members, name)
		w.names[name] = "pgrex_" + strings.ReplaceAll(name, "-", "_")
		h := &host{name: name, on: true, server: standby, slots: map[string]slot{}, pgrex: pgrex{up: true}}
		h.wal = wal{history: []branch{{1, segment}}, start: segment, end: 2 * segment}
		h.wal.checkpoints = []checkpoint{{redo: segment + 1, record: segment + 1, timeline: 1}}
		h.redo, h.redoTimeline = segment+1, 1
		w.hosts = append(w.hosts, h)
		w.main.nodes[name] = node{online: true, role: model.RoleUnpromoted, status: "HS:alone", data: "DISCONNECT"}
	}
	w.parameters["node_list"] = strings.Join(members, " ")
	w.main.versions = []*model.Cluster{nil}
	why := "pgrex is new"
	if s.agentSlots || !s.standbySlots {
		why = "no slots are held on standbys"
	}
	for _, h := range w.hosts {
		h.save()
		for _, o := range w.others(h) {
			w.holds[[2]string{h.name, o.name}] = &hold{why: why}
		}
	}
	w.converge()
	return w
}

func (w *world) others(h *host) []*host {
	return slices.DeleteFunc(slices.Clone(w.hosts), func(o *host) bool { return o == h })
}

func (w *world) each(f func(*host)) {
	for _, h := range w.hosts {
		f(h)
	}
}

// play plays a schedule, until the first failure, and then lets the world come to rest.
func play(s settings, schedule []event, tell func(format string, args ...any)) *world {
	w := newWorld(s)
	for i, e := range schedule {
		if w.failure != nil {
			return w
		}
		h := w.hosts[e.host%len(w.hosts)]
		for _, k := range kinds {
			if k.name == e.kind {
				k.happen(w, h, e.arg)
			}
		}
		w.count.events++
		w.judge()
		if tell != nil {
			tell("%d. %s %s (%d)%s\n", i+1, e.kind, h.name, e.arg, w)
		}
		if w.failure != nil {
			w.failure = fmt.Errorf("event %d, %s %s: %w", i+1, e.kind, h.name, w.failure)
			return w
		}
	}
	w.converge()
	if w.failure != nil {
		w.failure = fmt.Errorf("after the faults: %w", w.failure)
	}
	return w
}

// ofSeed is the schedule that a seed stands for.
func ofSeed(seed uint64) (settings, []event) {
	r := rand.New(rand.NewPCG(seed, 0))
	s := randomSettings(r)
	return s, randomSchedule(r, s.members, 50+r.IntN(250))
}

// shrink leaves out events, in ever smaller pieces, as long as the same promise is broken.
func shrink(s settings, schedule []event, broken string) []event {
	for size := len(schedule) / 2; size > 0; {
		shorter := false
		for at := 0; at+size <= len(schedule); {
			without := slices.Concat(schedule[:at], schedule[at+size:])
			if play(s, without, nil).broken == broken {
				schedule, shorter = without, true
			} else {
				at += size
			}
		}
		if !shorter || size > len(schedule) {
			size /= 2
		}
	}
	return schedule
}

// TestWorld plays random schedules. -seed N plays one of them and tells all that happens.
func TestWorld(t *testing.T) {
	if *seed != 0 {
		s, schedule := ofSeed(*seed)
		t.Logf("%+v", s)
		report(t, *seed, s, schedule, play(s, schedule, t.Logf))
		return
	}
	total := counts{kinds: map[string]int{}, why: map[string]int{}, forecasts: map[string]int{}}
	var mutex sync.Mutex
	var workers sync.WaitGroup
	next := uint64(firstSeed)
	take := func() (uint64, bool) {
		mutex.Lock()
		defer mutex.Unlock()
		if t.Failed() || next >= firstSeed+uint64(*schedules) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				s, schedule := ofSeed(seed)
				w := play(s, schedule, nil)
				mutex.Lock()
				total.add(w.count)
				report(t, seed, s, schedule, w)
				mutex.Unlock()
			}
		})
	}
	workers.Wait()
	total.judge(t)
}

// report tells a failure: the seed, and the shortest schedule found that fails.
func report(t *testing.T, seed uint64, s settings, schedule []event, w *world) {
	if w.failure == nil {
		return
	}
	t.Errorf("seed %d: %v", seed, w.failure)
	short := shrink(s, schedule, w.broken)
	last := play(s, short, nil)
	t.Errorf("%d of its %d events are enough (%+v):\n%v\n%v\n%s", len(short), len(schedule), s, short, last.failure, last)
}

// judge: a run that does not exercise what it is for proves nothing.
func (c counts) judge(t *testing.T) {
	t.Logf("%d schedules, %d events, %d plans, %d steps: %s", *schedules, c.events, c.plans, c.steps, show(c.kinds))
	t.Logf("%d promotions, %d switchovers, %d rewinds, %d cut-off hosts, %d lost slots, %d hosts with another's setting",
		c.promotions, c.switchovers, c.rewinds, c.cuts, c.lost, c.misled)
	t.Logf("%d events in the middle of a plan: %d steps refused, %d plans not finished; %d copies, of which needed: %s",
		c.races, c.changed, c.interruptions, c.copies, show(c.why))
	t.Logf("%d times an instance was unsettled; %d slots were made further on than planned, by a restartpoint under way", c.disturbances, c.further)
	t.Logf("%d crash hints; %d ends of a server without one", c.hints, c.unhinted)
	t.Logf("forecasts: %s", show(c.forecasts))
	for what, c := range map[string]struct{ met, in int }{
		"promotions": {c.promotions, 1}, "switchovers": {c.switchovers, 5}, "rewinds": {c.rewinds, 5}, "cuts": {c.cuts, 2},
		"steps refused": {c.changed, 20}, "plans not finished": {c.interruptions, 20}, "lost slots": {c.lost, 5}, "unsettled instances": {c.disturbances, 1},
		"crash hints": {c.hints, 20}, "ends of a server without a crash hint": {c.unhinted, 5},
		"slots made further on than planned, by a restartpoint under way": {c.further, 20},
	} {
		if c.met*c.in < *schedules {
			t.Errorf("only %d %s in %d schedules, not one in %d: that proves little", c.met, what, *schedules, c.in)
		}
	}
	for _, what := range []string{
		foretold(model.WayStream, byStreaming), foretold(model.WayRewind, byRewind), foretold(model.WayCopy, byCopySource),
	} {
		if c.forecasts[what] < *schedules/50 {
			t.Errorf("only %d times it was foretold: %s", c.forecasts[what], what)
		}
	}
	for _, kind := range []string{"CreateSlot", "ReleaseXMin", "AdvanceSlot", "ResetSlot", "DropSlot", "SetPrimarySlotName", "PublishAttribute"} {
		if c.kinds[kind] < *schedules/100 {
			t.Errorf("only %d steps %s in %d schedules", c.kinds[kind], kind, *schedules)
		}
	}
}

func show(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
